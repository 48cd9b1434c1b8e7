"""Ours: a law of partial repetition, with an interior worst R that vanishes towards R = 1 and towards a tiny pool.

Two things happen to a pool. Its further passes teach less and less [M23], which by itself only ever makes loss rise with R. And it is
memorised: what that costs grows with how well the pool is known, which saturates with R, and is proportional to how much there is
to know, which falls as 1/R. The product has a peak between, for R_m passes or somewhat more.

Three exponents that a free fit gives back within its intervals are held at what they are in theory or in print, for a law with fewer
constants predicts better what it did not see (results/LOG.md).
"""

import numpy as np

from analysis.laws import muennighoff
from analysis.laws.clean import DATA, FLOOR, SIZE
from analysis.laws.form import Constant, Constants, Law, seen
from analysis.laws.points import Floats, Points

OF_SIZE = -0.5  # exponent of N in R_m: H22's band moves with N^-0.56 and N^-0.50 [fig. 4 right]; freely fitted -0.49
HALF_LIFE = muennighoff.PUBLISHED["R_D"]  # passes, 15.4; freely fitted 17


def memorised(constants: Constants, points: Points) -> Floats:
    """How well the pool is known, 0 to 1: 1 - exp(-((R - 1)/R_m)^s), R_m = k·N^-0.5·f^c·T^b."""
    where = constants["k"] * points.params**OF_SIZE * points.tokens ** constants["b"]
    where = where * np.maximum(points.fraction, 1e-9) ** constants["c"]
    return -np.expm1(-(((points.repeats - 1) / where) ** constants["s"]))


def loss(constants: Constants, points: Points) -> Floats:
    """E + A/N^alpha + B/D'^beta + P·f^gamma·N^eta·memorised(R)/R, D' as in M23."""
    clean = constants["E"] + constants["A"] * points.params ** -constants["alpha"]
    data = constants["B"] * seen(points, HALF_LIFE) ** -constants["beta"]
    cost = constants["P"] * points.params ** constants["eta"] * np.maximum(points.fraction, 1e-9) ** constants["gamma"]
    return clean + data + cost * memorised(constants, points) / points.repeats


LAW = Law(
    "partial",
    "this study's law of partial repetition",
    "repeat-study",
    (
        FLOOR,
        *SIZE,
        *DATA,
        Constant("P", (10.0, 300.0), 1e-4, 1e6, per=(("params", "eta", -1),)),
        Constant("eta", (-0.3,), -3.0, 3.0, positive=False),
        Constant("gamma", (1.0, 3.0), -2.0, 10.0, positive=False, varies="fraction", otherwise=0.0),
        Constant("s", (1.5, 3.0), 0.3, 8.0),
        Constant("k", (3e3, 3e4, 3e5), 1.0, 1e9, per=(("tokens", "b", -1),)),
        Constant("b", (-0.4,), -3.0, 3.0, positive=False, varies="tokens"),
        Constant("c", (0.0,), -5.0, 5.0, positive=False, varies="fraction"),
    ),
    loss,
)
