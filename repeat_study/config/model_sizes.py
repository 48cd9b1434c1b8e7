"""Model sizes by name, with their parameter and FLOP counts."""

import re
from dataclasses import dataclass
from enum import StrEnum

from data_prep.errors import InputError


class Style(StrEnum):
    """The architecture of a block. The models in [H22] have the first style, and the models in [C26] have the second.

    SHORTFORMER: LayerNorm, GELU, sinusoidal positions added to queries and keys only [H22, section 2; P21].
    QWEN: RMSNorm, SwiGLU, rotary positions, normalized queries and keys [C26; Q25].
    """

    SHORTFORMER = "shortformer"
    QWEN = "qwen"


@dataclass(frozen=True)
class Shape:
    """The dimensions of a decoder, and the constants that Qwen-style models may choose."""

    layers: int
    d_model: int  # width of the residual stream
    heads: int
    d_head: int
    mlp_width: int  # 0 in attention-only models
    style: Style = Style.SHORTFORMER
    rotary_base: float = 10_000.0  # [S21] [C26]; only for Qwen-style models
    norm_epsilon: float = 1e-6  # [Q25]; only for Qwen-style models

    @property
    def parameters_non_embedding(self) -> int:
        """N as defined in [H22]: the number of weights in all blocks, excluding embeddings and norm gains.

        N equals 12·layers·d_model² for the models in [H22].
        """
        attention = 4 * self.d_model * self.heads * self.d_head
        mlp = (3 if self.style is Style.QWEN else 2) * self.d_model * self.mlp_width
        return self.layers * (attention + mlp)

    def parameters_total(self, vocabulary: int) -> int:
        """Number of trained parameters, counted as in [C26]: N plus the untied embedding and unembedding and the norm gains."""
        norms = (2 if self.mlp_width else 1) * self.layers + 1
        head_norms = 2 * self.layers * self.d_head if self.style is Style.QWEN else 0
        return self.parameters_non_embedding + (2 * vocabulary + norms) * self.d_model + head_norms

    def training_flops_per_token(self, vocabulary: int, context: int) -> int:
        """Forward and backward FLOPs per token: 6 for each weight in a matrix product, plus causal attention.

        Multiplying queries by keys and attention patterns by values costs 2·2·heads·d_head FLOPs per layer and pair of
        positions. A position attends to (context + 1) / 2 positions on average. The backward pass costs twice as much as
        the forward pass.
        """
        products = self.parameters_non_embedding + vocabulary * self.d_model
        return 6 * products + 6 * self.layers * self.heads * self.d_head * (context + 1)


# (layers, d_model) of the models in [C26]. They are named after their total parameter counts with a vocabulary of 151,936.
# All have 32 heads of size 128, the Qwen3 default, and an MLP width of 8/3·d_model, rounded up to a multiple of 256. With
# these dimensions, the parameter counts match the names within 1%.
C26_SIZES = {"34M": (3, 96), "48M": (4, 128), "63M": (5, 160), "93M": (6, 224), "153M": (9, 320), "344M": (14, 576)}


def shape_of(name: str) -> Shape:
    """The shape of a model, given the name of its size.

    `4L`: a model from [H22, section 2] with 4 layers, d_model 4·128, heads of size 64, and MLP width 4·d_model.
    `2x64`: a small model with 2 layers, d_model 64, and heads of size 32 (16 if d_model is 16 or 32, and 8
    if it is 8).
    `2L-attn`, `2x64-attn`: the same models without MLPs [H22, fig. 7].
    `2L-qwen`, `2x64-qwen`: the same models with Qwen blocks. An MLP width of 8/3·d_model keeps the number of weights the same.
    `63M`: a model from [C26], named after its total parameter count.
    Raises InputError for any other name.
    """
    if name in C26_SIZES:
        layers, d_model = C26_SIZES[name]
        return Shape(layers, d_model, 32, 128, -(-(8 * d_model // 3) // 256) * 256, Style.QWEN)
    if match := re.fullmatch(r"([1-9]\d?)(?:L|x([1-9]\d{0,4}))(-attn|-qwen)?", name):
        layers, variant = int(match[1]), match[3]
        d_model = int(match[2] or 128 * layers)
        d_head = 8 if d_model == 8 else 16 if d_model <= 32 else 32 if match[2] else 64
        shape = Shape(layers, d_model, d_model // d_head, d_head, 0 if variant == "-attn" else 4 * d_model)
        if variant == "-qwen":
            shape = Shape(layers, d_model, shape.heads, d_head, 8 * d_model // 3, Style.QWEN)
        if d_model % d_head == 0:
            return shape
    raise InputError(
        f"model: unknown model size {name!r}; expected a name like `4L` (4 layers, d_model 4·128) or `2x64` (2 layers,"
        " d_model 64; d_model is 8, 16 or a multiple of 32), optionally with the suffix -attn (no MLPs) or -qwen, or one of"
        f" {', '.join(C26_SIZES)}"
    )
