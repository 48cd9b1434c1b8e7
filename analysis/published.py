"""The papers' numbers that ours are set beside, each with where it stands; from figures where the text gives none."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Number = TypeVar("Number", float, npt.NDArray[np.float64])


@dataclass(frozen=True)
class PowerOfSize:
    """coefficient · N^exponent, over sizes from `smallest` to `largest` (parameters)."""

    coefficient: float
    exponent: float
    smallest: float
    largest: float

    def at(self, size: Number) -> Number:
        """The value at one size, or at several."""
        return self.coefficient * size**self.exponent


# Hernandez et al. 2022: N without embeddings, 100B tokens for every size. Edges in R of the region with at least half of the
# largest degradation, f = 10% [fig. 4 right].
H22_TOKENS = 100e9
H22_BAND_FRACTION = 0.1
H22_SIZES = (1.57e6, 805e6)
H22_LEFT_EDGE = PowerOfSize(4.2e6, -0.56, *H22_SIZES)
H22_RIGHT_EDGE = PowerOfSize(5.1e7, -0.50, *H22_SIZES)
# Effective size over size of an 800M model at the worst R, by f. 3%: "at most 1.15x" smaller [fig. 5]; 50% and 90%: 10x and 73x
# smaller [section 2]. At 10% the paper has it at one R: with 0.1% of the data seen 100 times, 800M acts like this [fig. 2 left].
H22_WORST_MULTIPLIER = {0.03: 1 / 1.15, 0.5: 1 / 10, 0.9: 1 / 73}
H22_ACTS_LIKE_SIZE = 800e6
H22_ACTS_LIKE = (340e6, 400e6)
H22_ACTS_LIKE_MIDDLE = sum(H22_ACTS_LIKE) / 2
H22_ACTS_LIKE_REPEATS = 100.0
H22_COPYING_MULTIPLIER = 1 / 3  # f = 3%, worst R, "up to" [fig. 5]
H22_PREFIX_MATCHING_MULTIPLIER = 1 / 1.47  # f = 3%, worst R [fig. 6]; the text also says 2x
H22_OSSIFICATION = (
    1.6  # times fewer effective parameters when fine-tuned from a repeated model than from scratch [figs. 12, 15]
)
H22_OUT_OF_DISTRIBUTION = {0.5: 0.84, 0.9: 0.75}  # multiplier of the loss on Python of text models [fig. 10]

# Chudnovsky et al. 2026: N with embeddings, tokens = 20·OT·N, f = 10%, compute C = 6·N·T.
C26_FRACTION = 0.1
C26_TOKENS_PER_PARAMETER = 20.0  # at overtraining 1
C26_SIZES = (34e6, 344e6)
C26_CLEAN_LAW = (2.365, 6.647e5, 0.317)  # L(C) = E + A·C^-alpha at overtraining 1
C26_WORST_REPEATS = PowerOfSize(2.31e10, -0.96, *C26_SIZES)
C26_WORST_POOL = PowerOfSize(7.58e-10, 1.84, *C26_SIZES)  # tokens; the exponents disagree by 0.12
C26_LOST_COMPUTE = {34e6: 0.19, 48e6: 0.19, 63e6: 0.21, 93e6: 0.21, 153e6: 0.26, 344e6: 0.33}  # CEL at the worst R
C26_DATA_NOISE = (0.006, 0.018)  # nats between two draws of the data: up to R = 719, and the most above
C26_NOISY_REPEATS = 719
