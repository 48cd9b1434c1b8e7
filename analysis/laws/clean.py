"""Scaling laws for clean runs: a constant plus a power law in model size or compute [H22, section 2; C26]."""

from analysis.laws.law import Constant, Constants, Law, Power
from analysis.laws.points import Floats, Points

FLOOR = Constant("E", (0.3, 1.5, 3.0), 1e-6, 20.0)
ALPHA = Constant("alpha", (0.1, 0.3), 0.01, 2.0)
SIZE = (Constant("A", (0.3, 1.5), 1e-4, 100.0, multiplies=(Power("params", "alpha", -1),)), ALPHA)
# If all runs are clean and have the same number of tokens, a fit cannot separate this term from the floor E.
DATA = (
    Constant("B", (0.3, 1.5), 1e-6, 100.0, multiplies=(Power("tokens", "beta", -1),)),
    Constant("beta", (0.1, 0.3), 0.01, 2.0),
)
COMPUTE = (
    Constant("A", (0.3, 1.5), 1e-4, 100.0, multiplies=(Power("params", "alpha", -1), Power("tokens", "alpha", -1))),
    ALPHA,
)


def by_size(constants: Constants, points: Points) -> Floats:
    """E + A·N^-alpha."""
    return constants["E"] + constants["A"] * points.params ** -constants["alpha"]


def by_compute(constants: Constants, points: Points) -> Floats:
    """E + A·C^-alpha with compute C = 6·N·T."""
    return constants["E"] + constants["A"] * (6 * points.params * points.tokens) ** -constants["alpha"]


IN_SIZE = Law("clean_size", "clean law of size", "loss is E + A/N^alpha", (FLOOR, *SIZE), by_size, clean_only=True)
IN_COMPUTE = Law(
    "clean_compute", "clean law of compute", "loss is E + A/C^alpha", (FLOOR, *COMPUTE), by_compute, clean_only=True
)
LAWS = (IN_SIZE, IN_COMPUTE)
