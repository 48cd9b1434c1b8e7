"""Model sizes by name, with parameter and FLOP counts."""

import re
from dataclasses import dataclass

from data_prep.errors import InputError

MLP_RATIO = 4  # [H22 section 2]


@dataclass(frozen=True)
class Shape:
    """The dimensions of a decoder: layers, width of the residual stream, heads."""

    layers: int
    d_model: int
    heads: int

    @property
    def d_head(self) -> int:
        """Width of one head."""
        return self.d_model // self.heads

    @property
    def parameters_non_embedding(self) -> int:
        """N, H22's axis: the blocks' matrices, 12·L·d_model²; embeddings, unembedding and norm gains left out."""
        return self.layers * (4 + 2 * MLP_RATIO) * self.d_model**2

    def parameters_total(self, vocabulary: int) -> int:
        """Every trained number: N, embedding and unembedding (untied), and 2·L + 1 norm gains [C26 counts all]."""
        return self.parameters_non_embedding + 2 * vocabulary * self.d_model + (2 * self.layers + 1) * self.d_model

    def training_flops_per_token(self, vocabulary: int, context: int) -> int:
        """Forward and backward FLOPs of one token: 6 per weight of a matrix product, and causal attention.

        Attention multiplies queries with keys and patterns with values, 2·2·d_model per pair of positions and
        layer, over (context + 1) / 2 earlier positions on average; the backward pass costs twice the forward one.
        """
        products = self.parameters_non_embedding + vocabulary * self.d_model
        return 6 * products + 6 * self.layers * self.d_model * (context + 1)


def shape_of(name: str) -> Shape:
    """The shape a size name stands for.

    `4L`: the H22 family, L layers of d_model 128·L with heads of 64 [H22 section 2].
    `2x64`: the micro family for laptops, layers x d_model with heads of 32 (of 16 where d_model is 32 or less).
    Raises InputError for any other name.
    """
    if match := re.fullmatch(r"([1-9]\d?)L", name):
        layers = int(match[1])
        return Shape(layers, 128 * layers, 2 * layers)
    if match := re.fullmatch(r"([1-9]\d?)x([1-9]\d{0,4})", name):
        layers, d_model = int(match[1]), int(match[2])
        d_head = 32 if d_model > 32 else 16
        if d_model % d_head == 0:
            return Shape(layers, d_model, d_model // d_head)
    raise InputError(
        f"model: {name!r} is no size; accepted are `4L` (H22: layers, d_model 128·L) and `2x64`"
        " (layers x d_model, d_model a multiple of 32, or 16)"
    )
