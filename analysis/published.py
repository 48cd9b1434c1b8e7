"""Published numbers to compare with this study, and where they appear in the papers. Some had to be read off figures."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Number = TypeVar("Number", float, npt.NDArray[np.float64])


@dataclass(frozen=True)
class PowerOfSize:
    """The power law coefficient · N^exponent, valid for N from `smallest` to `largest` parameters."""

    coefficient: float
    exponent: float
    smallest: float
    largest: float

    def at(self, size: Number) -> Number:
        """The value at one size, or at an array of sizes."""
        return self.coefficient * size**self.exponent


# Hernandez et al. 2022 [H22]. N excludes embeddings, and every model is trained on 100B tokens. For R between the two edges, the
# degradation is at least half its maximum, at f = 10% [H22, fig. 4 right].
H22_TOKENS = 100e9
H22_BAND_FRACTION = 0.1
H22_SIZES = (1.57e6, 805e6)
H22_LEFT_EDGE = PowerOfSize(4.2e6, -0.56, *H22_SIZES)
H22_RIGHT_EDGE = PowerOfSize(5.1e7, -0.50, *H22_SIZES)
# Effective size divided by actual size for an 800M model at the worst R, by f. At 3%, the model is "at most 1.15x" smaller
# [H22, fig. 5]; at 50% and 90%, it is 10x and 73x smaller [H22, section 2]. At 10%, the paper reports a single R: with 0.1% of the
# data repeated 100 times, an 800M model performs like a model with 340M to 400M parameters [H22, fig. 2 left].
H22_WORST_MULTIPLIER = {0.03: 1 / 1.15, 0.5: 1 / 10, 0.9: 1 / 73}
H22_ACTS_LIKE_SIZE = 800e6
H22_ACTS_LIKE = (340e6, 400e6)
H22_ACTS_LIKE_MIDDLE = sum(H22_ACTS_LIKE) / 2
H22_ACTS_LIKE_REPEATS = 100.0
H22_COPYING_MULTIPLIER = 1 / 3  # "up to" 3x smaller, at f = 3% and the worst R [H22, fig. 5]
H22_PREFIX_MATCHING_MULTIPLIER = 1 / 1.47  # at f = 3% and the worst R [H22, fig. 6]; the text also mentions 2x
# The factor by which the effective size is smaller after fine-tuning a repeated model than after training from scratch
# [H22, figs. 12, 15].
H22_OSSIFICATION = 1.6
# Size multipliers by f, for English models tested on Python [H22, fig. 10].
H22_OUT_OF_DISTRIBUTION = {0.5: 0.84, 0.9: 0.75}

# Chudnovsky et al. 2026 [C26]. N counts all parameters, and compute is C = 6·N·T. The runs have f = 10% and 20·OT·N tokens, where
# OT is the overtraining factor.
C26_FRACTION = 0.1
C26_TOKENS_PER_PARAMETER = 20.0  # at overtraining 1
C26_SIZES = (34e6, 344e6)
C26_CLEAN_LAW = (2.365, 6.647e5, 0.317)  # L(C) = E + A·C^-alpha at overtraining 1
C26_WORST_REPEATS = PowerOfSize(2.31e10, -0.96, *C26_SIZES)
# In tokens. R·D_r = f·T is proportional to N, so the two published exponents are inconsistent by 0.12.
C26_WORST_POOL = PowerOfSize(7.58e-10, 1.84, *C26_SIZES)
# Compute-equivalent loss at the worst R, by N.
C26_LOST_COMPUTE = {34e6: 0.19, 48e6: 0.19, 63e6: 0.21, 93e6: 0.21, 153e6: 0.26, 344e6: 0.33}
