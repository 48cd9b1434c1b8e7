"""Clean laws: loss as a power law of size or of compute plus a constant [H22 section 2; C26]."""

from analysis.laws.law import Constant, Constants, Law
from analysis.laws.points import Floats, Points

FLOOR = Constant("E", (0.3, 1.5, 3.0), 1e-6, 20.0)
SIZE = (
    Constant("A", (0.3, 1.5), 1e-4, 100.0, per=(("params", "alpha", 1),)),
    Constant("alpha", (0.1, 0.3), 0.01, 2.0),
)
DATA = (  # where all runs have the same tokens and none repeats, it cannot be told from the floor
    Constant("B", (0.3, 1.5), 1e-6, 100.0, per=(("tokens", "beta", 1),)),
    Constant("beta", (0.1, 0.3), 0.01, 2.0),
)


def by_size(constants: Constants, points: Points) -> Floats:
    """E + A·N^-alpha."""
    return constants["E"] + constants["A"] * points.params ** -constants["alpha"]


def by_compute(constants: Constants, points: Points) -> Floats:
    """E + A·C^-alpha, C = 6·N·T."""
    return constants["E"] + constants["A"] * (6 * points.params * points.tokens) ** -constants["alpha"]


IN_SIZE = Law("clean_size", "clean law in size, E + A/N^alpha", (FLOOR, *SIZE), by_size, only_clean=True)
IN_COMPUTE = Law(
    "clean_compute",
    "clean law in compute, E + A/C^alpha",
    (FLOOR, Constant("A", (0.3, 1.5), 1e-4, 100.0, per=(("params", "alpha", 1), ("tokens", "alpha", 1))), SIZE[1]),
    by_compute,
    only_clean=True,
)
