"""M23: repeated tokens lose their worth exponentially with every pass, and surplus parameters theirs [M23 section 5]."""

import numpy as np

from analysis.laws.clean import DATA, FLOOR, SIZE
from analysis.laws.law import Constant, Constants, Domain, Law, seen
from analysis.laws.points import Floats, Points

PUBLISHED = {
    "E": float(np.exp(0.6255)),
    "A": float(np.exp(6.2554)),
    "alpha": 0.35266,
    "B": float(np.exp(7.3050)),
    "beta": 0.35266,
    "R_D": 15.388,
    "R_N": 5.3097,
}
# Of its runs, which repeat the whole of their data; up to a few epochs beyond which it says itself that it errs.
PUBLISHED_DOMAIN = Domain((7e6, 8.7e9), (1e8, 9e11), (1.0, 1.0), (1.0, 44.0))


def loss(constants: Constants, points: Points) -> Floats:
    """E + A/N'^alpha + B/D'^beta, D' summed over the tokens seen once and the pool; N' counts what exceeds the size that
    the unique tokens are best spent on by the same law as passes beyond the first."""
    a, alpha, b, beta = (constants[name] for name in ("A", "alpha", "B", "beta"))
    # With compute 6·N·D the loss is least where alpha·A/N^alpha = beta·B/D^beta.
    best = (alpha * a / (beta * b) * points.unique**beta) ** (1 / alpha)
    useful = np.minimum(points.params, best)
    with np.errstate(over="ignore"):  # a search that goes astray: infinite surplus is worth what very much is
        surplus = points.params / useful - 1
    size = useful * (1 + constants["R_N"] * -np.expm1(-surplus / constants["R_N"]))
    return constants["E"] + a * size**-alpha + b * seen(points, constants["R_D"]) ** -beta


def clean_loss(constants: Constants, points: Points) -> Floats:
    """The same without repetition and for any size: E + A/N^alpha + B/T^beta, the law that it extends."""
    size, data = points.params ** -constants["alpha"], points.tokens ** -constants["beta"]
    return constants["E"] + constants["A"] * size + constants["B"] * data


LAW = Law(
    "muennighoff",
    "Muennighoff et al. 2023: passes lose their worth",
    (FLOOR, *SIZE, *DATA, Constant("R_D", (5.0, 20.0), 0.1, 1e4), Constant("R_N", (5.0,), 0.1, 1e4)),
    loss,
)
