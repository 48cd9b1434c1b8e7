"""Ours: a law of partial repetition, with an interior worst R that vanishes towards R = 1 and towards a tiny pool.

Two things happen to a pool. Its further passes teach less and less [M23], which by itself only ever makes loss rise with R. And it is
memorised: what that costs grows with how well the pool is known, which saturates with R, and with how much there is to know,
its share of what the model sees for the first time, which falls as 1/R. The product has a peak between.
"""

import numpy as np

from analysis.laws.clean import DATA, FLOOR, SIZE
from analysis.laws.form import Constant, Constants, Law, seen
from analysis.laws.points import Floats, Points


def memorised(constants: Constants, points: Points) -> Floats:
    """How well the pool is known, 0 to 1: 1 - exp(-((R - 1)/R_m)^s), R_m = k·N^a·f^c·T^b."""
    where = constants["k"] * points.params ** constants["a"] * points.tokens ** constants["b"]
    where = where * np.maximum(points.fraction, 1e-9) ** constants["c"]
    return -np.expm1(-(((points.repeats - 1) / where) ** constants["s"]))


def loss(constants: Constants, points: Points) -> Floats:
    """E + A/N^alpha + B/D'^beta + P·f^gamma·N^eta·memorised(R)·R^-kappa, D' as in M23."""
    clean = constants["E"] + constants["A"] * points.params ** -constants["alpha"]
    data = constants["B"] * seen(points, constants["R_D"]) ** -constants["beta"]
    cost = constants["P"] * points.params ** constants["eta"] * np.maximum(points.fraction, 1e-9) ** constants["gamma"]
    return clean + data + cost * memorised(constants, points) * points.repeats ** -constants["kappa"]


LAW = Law(
    "partial",
    "this study's law of partial repetition",
    "repeat-study",
    (
        FLOOR,
        *SIZE,
        *DATA,
        Constant("R_D", (5.0, 15.0), 0.1, 1e4),
        Constant("P", (1.0, 10.0), 1e-4, 1e4, per=(("params", "eta", -1),)),
        Constant("eta", (0.0,), -3.0, 3.0, positive=False),
        Constant("gamma", (1.0, 3.0), -2.0, 10.0, positive=False, varies="fraction", otherwise=0.0),
        Constant("kappa", (0.3, 1.0), 0.01, 3.0),
        Constant("s", (1.0, 2.0), 0.3, 8.0),
        Constant("k", (30.0, 100.0), 1.0, 1e6, per=(("params", "a", -1), ("tokens", "b", -1))),
        Constant("a", (-0.5,), -3.0, 1.0, positive=False),
        Constant("b", (-0.4,), -3.0, 3.0, positive=False, varies="tokens"),
        Constant("c", (0.0,), -5.0, 5.0, positive=False, varies="fraction"),
    ),
    loss,
)
