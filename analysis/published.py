"""Published numbers to compare ours with, each with its place in the paper; read off figures if the text gives none."""

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
        """The value at one size, or at an array of sizes."""
        return self.coefficient * size**self.exponent


# Hernandez et al. 2022 [H22]. N is without embeddings; every size is trained on 100B tokens. The edges bound the R at which the
# degradation is at least half its maximum, at f = 10% [H22, fig. 4 right].
H22_TOKENS = 100e9
H22_BAND_FRACTION = 0.1
H22_SIZES = (1.57e6, 805e6)
H22_LEFT_EDGE = PowerOfSize(4.2e6, -0.56, *H22_SIZES)
H22_RIGHT_EDGE = PowerOfSize(5.1e7, -0.50, *H22_SIZES)
# Effective size over size of an 800M model at the worst R, by f. 3%: "at most 1.15x" smaller [H22, fig. 5]; 50% and 90%: 10x and
# 73x smaller [H22, section 2]. For 10% the paper gives one R: with 0.1% of the data seen 100 times, an 800M model acts like one of
# 340M to 400M [H22, fig. 2 left].
H22_WORST_MULTIPLIER = {0.03: 1 / 1.15, 0.5: 1 / 10, 0.9: 1 / 73}
H22_ACTS_LIKE_SIZE = 800e6
H22_ACTS_LIKE = (340e6, 400e6)
H22_ACTS_LIKE_MIDDLE = sum(H22_ACTS_LIKE) / 2
H22_ACTS_LIKE_REPEATS = 100.0
H22_COPYING_MULTIPLIER = 1 / 3  # f = 3%, worst R, "up to" [H22, fig. 5]
H22_PREFIX_MATCHING_MULTIPLIER = 1 / 1.47  # f = 3%, worst R [H22, fig. 6]; the text also says 2x
# Effective parameters from scratch over those after fine-tuning from a repeated model [H22, figs. 12, 15].
H22_OSSIFICATION = 1.6
H22_OUT_OF_DISTRIBUTION = {0.5: 0.84, 0.9: 0.75}  # of text models, by their loss on Python [H22, fig. 10]

# Chudnovsky et al. 2026 [C26]. N counts all parameters, tokens are 20·OT·N with overtraining OT, f = 10%, compute C = 6·N·T.
C26_FRACTION = 0.1
C26_TOKENS_PER_PARAMETER = 20.0  # at overtraining 1
C26_SIZES = (34e6, 344e6)
C26_CLEAN_LAW = (2.365, 6.647e5, 0.317)  # L(C) = E + A·C^-alpha at overtraining 1
C26_WORST_REPEATS = PowerOfSize(2.31e10, -0.96, *C26_SIZES)
C26_WORST_POOL = PowerOfSize(7.58e-10, 1.84, *C26_SIZES)  # tokens; with R·D_r = f·T, the two exponents disagree by 0.12
C26_LOST_COMPUTE = {
    34e6: 0.19,
    48e6: 0.19,
    63e6: 0.21,
    93e6: 0.21,
    153e6: 0.26,
    344e6: 0.33,
}  # compute-equivalent loss at the worst R
C26_DATA_NOISE = (0.006, 0.018)  # nats between two runs on different data, up to R = 719 and above it
C26_NOISY_REPEATS = 719
