"""Scaling laws for clean runs: a constant plus power laws in model size, tokens or compute [H22, section 2; C26; M23]."""

from dataclasses import replace

import numpy as np

from analysis.laws.law import Constant, Constants, Law, Power, no_penalty
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


# In a law of repetition, the constants of the clean law have priors, because penalties alone hardly determine them.
FLOOR_WITH_PRIOR = replace(FLOOR, prior=(2.0, 0.5))
SIZE_WITH_PRIORS = (replace(SIZE[0], prior=(1.0, 1.5)), replace(ALPHA, prior=(0.3, 0.4)))
DATA_WITH_PRIORS = (replace(DATA[0], prior=(1.0, 1.5)), replace(DATA[1], prior=(0.3, 0.4)))
COMPUTE_WITH_PRIORS = (replace(COMPUTE[0], prior=(1.0, 1.5)), replace(ALPHA, prior=(0.2, 0.4)))
COLLINEAR = 0.98  # correlation of log N and log T above which a fit cannot separate their effects
SIMILAR_TOKENS = 1.05  # ratio of token counts up to which runs count as equally long


def by_size(constants: Constants, points: Points) -> Floats:
    """E + A·N^-alpha."""
    return constants["E"] + constants["A"] * points.params ** -constants["alpha"]


def by_compute(constants: Constants, points: Points) -> Floats:
    """E + A·C^-alpha with compute C = 6·N·T."""
    return constants["E"] + constants["A"] * (6 * points.params * points.tokens) ** -constants["alpha"]


def by_size_and_tokens(constants: Constants, points: Points) -> Floats:
    """E + A·N^-alpha + B·T^-beta."""
    return by_size(constants, points) + constants["B"] * points.tokens ** -constants["beta"]


IN_SIZE = Law(
    "clean_size", "clean law of size", "loss is E + A/N^alpha", (FLOOR, *SIZE), no_penalty, by_size, clean_only=True
)
IN_COMPUTE = Law(
    "clean_compute",
    "clean law of compute",
    "loss is E + A/C^alpha",
    (FLOOR, *COMPUTE),
    no_penalty,
    by_compute,
    clean_only=True,
)
IN_SIZE_AND_TOKENS = Law(
    "clean_size_tokens",
    "clean law of size and tokens",
    "loss is E + A/N^alpha + B/T^beta",
    (FLOOR, *SIZE, *DATA),
    no_penalty,
    by_size_and_tokens,
    clean_only=True,
)
LAWS = (IN_SIZE, IN_COMPUTE)


def suitable(points: Points) -> Law:
    """The clean law whose constants these runs can determine: of size, of compute, or of size and tokens."""
    clean = points[points.clean]
    if clean.tokens.max() / clean.tokens.min() < SIMILAR_TOKENS:
        return IN_SIZE
    size, tokens = np.log(clean.params), np.log(clean.tokens)
    if size.std() > 0 and abs(np.corrcoef(size, tokens)[0, 1]) > COLLINEAR:
        return IN_COMPUTE
    return IN_SIZE_AND_TOKENS
