"""Model sizes by name, with parameter and FLOP counts."""

import re
from dataclasses import dataclass
from enum import StrEnum

from data_prep.errors import InputError


class Style(StrEnum):
    """What a block is made of: the two families that the papers trained.

    SHORTFORMER: LayerNorm, GELU, sinusoidal positions added to queries and keys only [H22 section 2; Press et al. 2021].
    QWEN: RMSNorm, SwiGLU, rotary positions, normalised queries and keys [C26; Qwen3].
    """

    SHORTFORMER = "shortformer"
    QWEN = "qwen"


@dataclass(frozen=True)
class Shape:
    """The dimensions of a decoder: layers, width of the residual stream, heads and their width, width of the MLP."""

    layers: int
    d_model: int
    heads: int
    d_head: int
    mlp_width: int  # 0: attention only
    style: Style = Style.SHORTFORMER

    @property
    def parameters_non_embedding(self) -> int:
        """N, H22's axis: the matrices of all blocks (12·L·d_model² in H22's family); embeddings and gains left out."""
        attention = 4 * self.d_model * self.heads * self.d_head
        mlp = (3 if self.style is Style.QWEN else 2) * self.d_model * self.mlp_width
        return self.layers * (attention + mlp)

    def parameters_total(self, vocabulary: int) -> int:
        """Every trained number: N, embedding and unembedding (untied), and the gains of the norms [C26 counts all]."""
        norms = (2 if self.mlp_width else 1) * self.layers + 1
        head_norms = 2 * self.layers * self.d_head if self.style is Style.QWEN else 0
        return self.parameters_non_embedding + (2 * vocabulary + norms) * self.d_model + head_norms

    def training_flops_per_token(self, vocabulary: int, context: int) -> int:
        """Forward and backward FLOPs of one token: 6 per weight of a matrix product, and causal attention.

        Attention multiplies queries with keys and patterns with values, 2·2·heads·d_head per pair of positions and
        layer, over (context + 1) / 2 earlier positions on average; the backward pass costs twice the forward one.
        """
        products = self.parameters_non_embedding + vocabulary * self.d_model
        return 6 * products + 6 * self.layers * self.heads * self.d_head * (context + 1)


# Layers and d_model of C26's models, named after all their parameters with a vocabulary of 151,936. Heads are Qwen3's
# default of 32 by 128 whatever d_model is, and the MLP is 8/3·d_model rounded up to a multiple of 256: the counts that
# follow are the names, within 1%.
C26_SIZES = {"34M": (3, 96), "48M": (4, 128), "63M": (5, 160), "93M": (6, 224), "153M": (9, 320), "344M": (14, 576)}


def shape_of(name: str) -> Shape:
    """The shape a size name stands for.

    `4L`: the H22 family, L layers of d_model 128·L with heads of 64 and MLPs of 4·d_model [H22 section 2].
    `2x64`: the micro family for laptops, layers x d_model with heads of 32 (of 16 where d_model is 32 or less).
    `2L-attn`, `2x64-attn`: the same without MLPs [H22 fig. 7].
    `2x64-qwen`: the micro family in Qwen's style, with MLPs of 8/3·d_model, which have as many weights.
    `63M`: the C26 family, named after all of its parameters [C26].
    Raises InputError for any other name.
    """
    if name in C26_SIZES:
        layers, d_model = C26_SIZES[name]
        return Shape(layers, d_model, 32, 128, -(-(8 * d_model // 3) // 256) * 256, Style.QWEN)
    if match := re.fullmatch(r"([1-9]\d?)(?:L|x([1-9]\d{0,4}))(-attn|-qwen)?", name):
        layers, kind = int(match[1]), match[3]
        d_model = int(match[2] or 128 * layers)
        d_head = 16 if d_model <= 32 else 32 if match[2] else 64
        shape = Shape(layers, d_model, d_model // d_head, d_head, 0 if kind == "-attn" else 4 * d_model)
        if kind == "-qwen":
            shape = Shape(layers, d_model, shape.heads, d_head, 8 * d_model // 3, Style.QWEN)
        if d_model % d_head == 0:
            return shape
    raise InputError(
        f"model: {name!r} is no size; accepted are `4L` (H22: layers, d_model 128·L), `2x64` (layers x d_model, d_model a"
        f" multiple of 32, or 16), both also with -attn (no MLPs) or -qwen, and {', '.join(C26_SIZES)} (C26)"
    )
