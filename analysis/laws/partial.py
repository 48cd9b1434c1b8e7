"""Our law of partial repetition. The harm peaks at an interior R, the worst R, and vanishes at R = 1 and for tiny pools.

Repeating a pool costs two things. First, every additional pass over the pool teaches the model less [M23]. Second, the model spends
capacity on memorizing the pool. This cost rises as a power of R while the model still learns the pool, and falls as a power of R once
the pool is small enough to be memorized early.

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


def worst_repeats(constants: Constants, points: Points) -> Floats:
    """R* = k·N^a·T^b·f^c, where memorizing costs most."""
    fraction = np.maximum(points.fraction, SMALLEST_FRACTION)
    powers = points.params ** constants["a"] * points.tokens ** constants["b"] * fraction ** constants["c"]
    return constants["k"] * powers


def peak(repeats: Floats, worst: Floats, rise: Floats | float, fall: Floats | float) -> Floats:
    """A curve that rises as R^rise, is 1 at the worst R and falls as R^-fall."""
    x = np.clip(np.log(repeats / worst), -200, 200)
    with np.errstate(over="ignore"):
        return (rise + fall) / (fall * np.exp(-rise * x) + rise * np.exp(fall * x))


def penalty(constants: Constants, points: Points) -> Floats:
    """`reuse` plus P·f^gamma·N^eta·`peak`(R/R*), in nats per token; 0 for clean runs."""
    height = constants["P"] * points.params ** constants["eta"]
    height = height * np.maximum(points.fraction, SMALLEST_FRACTION) ** constants["gamma"]
    at = peak(points.repeats, worst_repeats(constants, points), constants["rise"], constants["fall"])
    return reuse(constants, points) + height * at * (1 - 1 / points.repeats)


LAW = Law(
    "partial",
    "partial repetition",
    "repeated tokens are worth less, and memorizing the pool costs most at an intermediate R",
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
        Constant("rise", (1.8,), 0.15, 12.0, prior=(1.8, 0.4)),
        Constant("fall", (0.7,), 0.05, 7.0, prior=(0.7, 0.5)),
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
