"""Ours: a law of partial repetition, with an interior worst R that vanishes towards R = 1 and towards a tiny pool.

Two things happen to a pool. Its further passes teach less and less [M23], which by itself only ever makes loss rise with R. And it is
memorised: what that costs grows with how well the pool is known, which saturates with R, and is proportional to how much there is
to know, which falls as 1/R. The product has a peak between, for R_m passes or somewhat more.

In `LAW` three constants are held at what they are in theory or in print, which a free fit on `repeats_axis` gives back within its
intervals: with fewer constants it predicts better what it did not see. That was seen on those runs (results/LOG.md); `FREE` is
the form without it.
"""

import numpy as np

from analysis.laws import muennighoff
from analysis.laws.clean import DATA, FLOOR, SIZE
from analysis.laws.law import Constant, Constants, Law, held, seen
from analysis.laws.points import Floats, Points

# Cost in proportion to the pool's share; R_m as H22's band, whose edges fall with N^-0.56 and N^-0.50 [fig. 4 right]; M23's half-life.
HELD = {"kappa": 1.0, "a": -0.5, "R_D": muennighoff.PUBLISHED["R_D"]}


def memorised(constants: Constants, points: Points) -> Floats:
    """How well the pool is known, 0 to 1: 1 - exp(-((R - 1)/R_m)^s), R_m = k·N^a·f^c·T^b."""
    where = constants["k"] * points.params ** constants["a"] * points.tokens ** constants["b"]
    where = where * np.maximum(points.fraction, 1e-9) ** constants["c"]
    return -np.expm1(-(((points.repeats - 1) / where) ** constants["s"]))


def loss(constants: Constants, points: Points) -> Floats:
    """E + A/N^alpha + B/D'^beta + P·f^gamma·N^eta·memorised(R)/R^kappa, D' as in M23."""
    clean = constants["E"] + constants["A"] * points.params ** -constants["alpha"]
    data = constants["B"] * seen(points, constants["R_D"]) ** -constants["beta"]
    cost = constants["P"] * points.params ** constants["eta"] * np.maximum(points.fraction, 1e-9) ** constants["gamma"]
    return clean + data + cost * memorised(constants, points) * points.repeats ** -constants["kappa"]


FREE = Law(
    "partial_free",
    "this study's law of partial repetition, nothing held",
    (
        FLOOR,
        *SIZE,
        *DATA,
        Constant("R_D", (5.0, 15.0), 0.1, 1e4),
        Constant("P", (10.0, 300.0), 1e-4, 1e6, per=(("params", "eta", -1),)),
        Constant("eta", (-0.3,), -3.0, 3.0, positive=False),
        Constant("gamma", (1.0, 3.0), -2.0, 10.0, positive=False, varies="fraction", otherwise=0.0),
        Constant("kappa", (0.5, 1.0), 0.01, 3.0),
        Constant("s", (1.5, 3.0), 0.3, 8.0),
        Constant("k", (30.0, 100.0, 300.0), 1.0, 1e6, per=(("params", "a", -1), ("tokens", "b", -1))),
        Constant("a", (-0.5,), -3.0, 1.0, positive=False),
        Constant("b", (-0.4,), -3.0, 3.0, positive=False, varies="tokens"),
        Constant("c", (0.0,), -5.0, 5.0, positive=False, varies="fraction"),
    ),
    loss,
)
LAW = held(FREE, "partial", "this study's law of partial repetition", **HELD)
