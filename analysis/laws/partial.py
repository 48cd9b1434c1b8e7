"""Our law of partial repetition. The harm peaks at an interior R and vanishes at R = 1 and for tiny pools.

Repeating a pool costs two things. First, every additional pass over the pool teaches the model less [M23]. Second, the model spends
capacity on memorizing the pool. This cost is a product of two factors: how well the model knows the pool, which grows with R until it
saturates, and how much there is to memorize, which falls as a power of R. The product peaks near R = R_m.

The priors of the constants are the same for every table of runs. They were chosen by cross-validation over several tables
(results/LOG.md). The half-life of a repeated token and the exponent of data are held.
"""

import numpy as np

from analysis.laws.law import Constant, Constants, Law, Power
from analysis.laws.points import Floats, Points

HALF_LIFE = 15.4  # passes until a repeated token is worth 1/e of a fresh one [M23]
DATA_EXPONENT = 0.3
SMALLEST_FRACTION = 1e-9


def reuse(constants: Constants, points: Points) -> Floats:
    """B·(D'^-0.3 - T^-0.3), where D' counts the passes over the pool with decreasing value [M23]."""
    worth = 1 + HALF_LIFE * -np.expm1(-(points.repeats - 1) / HALF_LIFE)
    share = 1 - points.fraction + points.fraction / points.repeats * worth  # D'/T
    return constants["B"] * points.tokens**-DATA_EXPONENT * (share**-DATA_EXPONENT - 1)


def memorizing_repeats(constants: Constants, points: Points) -> Floats:
    """R_m = k·N^a·T^b·f^c, the R at which the model begins to know the pool."""
    fraction = np.maximum(points.fraction, SMALLEST_FRACTION)
    powers = points.params ** constants["a"] * points.tokens ** constants["b"] * fraction ** constants["c"]
    return constants["k"] * powers


def height(constants: Constants, points: Points) -> Floats:
    """P·f^gamma·N^eta, the scale of the cost of memorizing in nats per token."""
    fraction = np.maximum(points.fraction, SMALLEST_FRACTION)
    return constants["P"] * points.params ** constants["eta"] * fraction ** constants["gamma"]


def penalty(constants: Constants, points: Points) -> Floats:
    """`reuse` plus `height` times (1 - exp(-((R-1)/R_m)^s))/(R/R_m)^kappa, in nats per token; 0 for clean runs."""
    start = memorizing_repeats(constants, points)
    with np.errstate(over="ignore"):
        memorized = -np.expm1(-(((points.repeats - 1) / start) ** constants["s"]))
    falling = (points.repeats / start) ** -constants["kappa"]
    return reuse(constants, points) + height(constants, points) * memorized * falling


LAW = Law(
    "partial",
    "partial repetition",
    "this tool's own law: repeated tokens are worth less, and memorizing the pool costs most at an intermediate R",
    (
        Constant("B", (0.05, 0.4), 1e-3, 50.0, multiplies=(Power("tokens", DATA_EXPONENT, -1),), prior=(0.14, 2.0)),
        Constant(
            "P",
            (0.14, 1.0),
            1e-5,
            100.0,
            multiplies=(Power("params", "eta", 1), Power("fraction", "gamma", 1)),
            prior=(0.4, 2.0),
        ),
        Constant("eta", (0.0,), -3.0, 3.0, positive=False, needs_several="params", prior=(0.0, 0.3)),
        Constant("gamma", (1.5,), -2.0, 10.0, positive=False, needs_several="fraction", default=1.5, prior=(1.5, 0.7)),
        Constant("kappa", (0.7,), 0.02, 3.0, prior=(0.7, 0.5)),
        Constant("s", (2.0,), 0.3, 7.0, prior=(2.0, 0.4)),
        Constant(
            "k",
            (20.0, 66.0, 245.0),
            1.0,
            1e6,
            multiplies=(Power("params", "a", 1), Power("tokens", "b", 1), Power("fraction", "c", 1)),
            prior=(66.0, 2.0),
        ),
        Constant("a", (-0.5,), -3.0, 1.0, positive=False, needs_several="params", default=-0.5, prior=(-0.5, 0.15)),
        Constant("b", (0.0,), -3.0, 3.0, positive=False, needs_several="tokens", prior=(0.0, 0.5)),
        Constant("c", (0.0,), -5.0, 5.0, positive=False, needs_several="fraction", prior=(0.0, 0.5)),
    ),
    penalty,
)
LAWS = (LAW,)
