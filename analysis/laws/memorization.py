"""An earlier form of our law, kept for comparison: memorizing saturates with R, and what there is to memorize falls with R.

The penalty is `partial.reuse` plus P·f^gamma·N^eta·(1 - exp(-((R-1)/R_m)^s))/(R/R_m)^kappa with R_m = k·N^a·T^b·f^c. In
cross-validation over several tables, `partial` predicts held-out runs better (results/LOG.md).
"""

import numpy as np

from analysis.laws import partial
from analysis.laws.law import Constant, Constants, Law
from analysis.laws.points import Floats, Points


def penalty(constants: Constants, points: Points) -> Floats:
    """The penalty in nats per token; 0 for clean runs."""
    height = constants["P"] * points.params ** constants["eta"]
    height = height * np.maximum(points.fraction, partial.SMALLEST_FRACTION) ** constants["gamma"]
    x = points.repeats / partial.worst_repeats(constants, points)
    with np.errstate(over="ignore"):
        memorized = -np.expm1(-((x * (1 - 1 / points.repeats)) ** constants["s"]))
    return partial.reuse(constants, points) + height * memorized * x ** -constants["kappa"]


_KEPT = tuple(constant for constant in partial.LAW.constants if constant.name not in ("rise", "fall"))
LAW = Law(
    "memorization",
    "partial repetition (saturating)",
    "memorizing the pool saturates with R, and the pool shrinks with R",
    (
        *_KEPT,
        Constant("kappa", (0.7,), 0.02, 3.0, prior=(0.7, 0.5)),
        Constant("s", (2.0,), 0.3, 7.0, prior=(2.0, 0.4)),
    ),
    penalty,
)
