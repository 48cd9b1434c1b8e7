"""Our law of partial repetition. The harm peaks at an interior R and vanishes at R = 1 and for tiny pools.

Repeating a pool has two effects. First, every additional pass teaches the model less [M23], which makes the loss rise with R. Second,
the model memorizes the pool. The cost of memorization is a product of two factors: how well the model knows the pool, which grows with
R until it saturates, and how much there is to memorize, which falls as 1/R. The product peaks near R = R_m.

`LAW` fixes three constants at theoretical or published values, which lie within the 95% intervals of a free fit to `repeats_axis`. Fixing
them improves predictions of held-out runs. The values were chosen after seeing those runs (results/LOG.md). `FREE` leaves all constants
free.
"""

from dataclasses import replace

import numpy as np

from analysis.laws import muennighoff
from analysis.laws.clean import DATA, FLOOR, SIZE
from analysis.laws.law import Constant, Constants, Law, Power, with_fixed
from analysis.laws.muennighoff import effective_tokens
from analysis.laws.points import Floats, Points

# kappa = 1: the cost of memorization is proportional to the size of the pool. a = -0.5: R_m falls with model size like the edges of
# the H22 band, which fall as N^-0.56 and N^-0.50 [H22, fig. 4 right]. R_D is the half-life of M23.
FIXED = {"kappa": 1.0, "a": -0.5, "R_D": muennighoff.CONSTANTS["R_D"]}


def memorized(constants: Constants, points: Points) -> Floats:
    """How well the model knows the pool, from 0 to 1: 1 - exp(-((R - 1)/R_m)^s) with R_m = k·N^a·f^c·T^b."""
    passes = constants["k"] * points.params ** constants["a"] * points.tokens ** constants["b"]
    passes = passes * np.maximum(points.fraction, 1e-9) ** constants["c"]
    return -np.expm1(-(((points.repeats - 1) / passes) ** constants["s"]))


def loss(constants: Constants, points: Points) -> Floats:
    """E + A/N^alpha + B/D'^beta + P·f^gamma·N^eta·memorized(R)/R^kappa, where D' is `effective_tokens`."""
    clean = constants["E"] + constants["A"] * points.params ** -constants["alpha"]
    data = constants["B"] * effective_tokens(points, constants["R_D"]) ** -constants["beta"]
    cost = constants["P"] * points.params ** constants["eta"] * np.maximum(points.fraction, 1e-9) ** constants["gamma"]
    return clean + data + cost * memorized(constants, points) * points.repeats ** -constants["kappa"]


FREE = Law(
    "partial_free",
    "partial repetition (all constants free)",
    "memorizing a pool costs most at an intermediate R",
    (
        FLOOR,
        *SIZE,
        *DATA,
        Constant("R_D", (5.0, 15.0), 0.1, 1e4),
        Constant("P", (10.0, 300.0), 1e-4, 1e6, multiplies=(Power("params", "eta", 1),)),
        Constant("eta", (-0.3,), -3.0, 3.0, positive=False),
        Constant("gamma", (1.0, 3.0), -2.0, 10.0, positive=False, needs_several="fraction", default=0.0),
        Constant("kappa", (0.5, 1.0), 0.01, 3.0),
        Constant("s", (1.5, 3.0), 0.3, 8.0),
        Constant("k", (30.0, 100.0, 300.0), 1.0, 1e6, multiplies=(Power("params", "a", 1), Power("tokens", "b", 1))),
        Constant("a", (-0.5,), -3.0, 1.0, positive=False),
        Constant("b", (-0.4,), -3.0, 3.0, positive=False, needs_several="tokens"),
        Constant("c", (0.0,), -5.0, 5.0, positive=False, needs_several="fraction"),
    ),
    loss,
)
LAW = replace(
    with_fixed(FREE, "partial", "partial repetition", **FIXED),
    variants=(FREE,),
    caveat=(
        "The fixed constants of the partial-repetition law were chosen after seeing the runs of repeats_axis, so a comparison on those"
        " runs favors it. This does not apply to the variants with free or published constants. results/LOG.md reports errors on"
        " runs trained after these constants were chosen."
    ),
)
LAWS = (LAW,)
