"""Another form of our law, kept for comparison: the cost of memorizing rises and falls as powers of R, and its peak is a constant.

On simulated runs at f = 10%, it predicts held-out runs better than `partial`; on most tables of real runs, worse (results/LOG.md).
"""

import numpy as np

from analysis.laws import partial
from analysis.laws.law import Constant, Constants, Law
from analysis.laws.points import Floats, Points


def peak(repeats: Floats, worst: Floats, rise: Floats | float, fall: Floats | float) -> Floats:
    """A curve that rises as R^rise, is 1 at the worst R and falls as R^-fall."""
    x = np.clip(np.log(repeats / worst), -200, 200)
    with np.errstate(over="ignore"):
        return (rise + fall) / (fall * np.exp(-rise * x) + rise * np.exp(fall * x))


def penalty(constants: Constants, points: Points) -> Floats:
    """`partial.reuse` plus `partial.height` times `peak` times (1 - 1/R), in nats per token; 0 for clean runs."""
    at = peak(points.repeats, partial.memorizing_repeats(constants, points), constants["rise"], constants["fall"])
    cost = partial.height(constants, points) * at * (1 - 1 / points.repeats)
    return partial.reuse(constants, points) + cost


_KEPT = tuple(constant for constant in partial.LAW.constants if constant.name not in ("kappa", "s"))
LAW = Law(
    "powers",
    "partial repetition (powers of R)",
    "the cost of memorizing rises and falls as powers of R",
    (
        *_KEPT,
        Constant("rise", (1.8,), 0.15, 12.0, prior=(1.8, 0.4)),
        Constant("fall", (0.7,), 0.05, 7.0, prior=(0.7, 0.5)),
    ),
    penalty,
)
