"""The law of Muennighoff et al. 2023, in which every additional pass over the data is worth less [M23, section 5].

The value of repeated tokens decays exponentially with the number of passes. The value of parameters beyond the compute-optimal size
decays in the same way.
"""

import numpy as np

from analysis.laws.clean import DATA_WITH_PRIORS, FLOOR_WITH_PRIOR, SIZE_WITH_PRIORS
from analysis.laws.law import Constant, Constants, Domain, Law, Published
from analysis.laws.points import Floats, Points

CONSTANTS = {
    "E": float(np.exp(0.6255)),
    "A": float(np.exp(6.2554)),
    "alpha": 0.35266,
    "B": float(np.exp(7.3050)),
    "beta": 0.35266,
    "R_D": 15.388,
    "R_N": 5.3097,
}
# The paper's runs repeat all of their data. The authors report larger errors beyond a few epochs.
PUBLISHED_DOMAIN = Domain((7e6, 8.7e9), (1e8, 9e11), (1.0, 1.0), (1.0, 44.0))


def effective_tokens(points: Points, half_life: float) -> Floats:
    """The number of unique tokens that would be worth as much as all of a run's training tokens.

    Tokens outside the pool are seen once and count fully. A pool of U tokens counts as U + U·R*·(1 - exp(-r/R*)), where r = R - 1 is
    the number of additional passes and R* is `half_life` [M23].
    """
    return (1 - points.fraction) * points.tokens + points.pool * (
        1 + half_life * -np.expm1(-(points.repeats - 1) / half_life)
    )


def _useful_size(constants: Constants, points: Points) -> Floats:
    """N', in which parameters beyond the size that is compute-optimal for the unique tokens count less."""
    a, alpha, b, beta = (constants[name] for name in ("A", "alpha", "B", "beta"))
    # At a given compute 6·N·D, the loss is smallest where alpha·A/N^alpha = beta·B/D^beta.
    optimal = (alpha * a / (beta * b) * points.unique**beta) ** (1 / alpha)
    useful = np.minimum(points.params, optimal)
    # Far from the best fit, `useful` can underflow to 0. The surplus is then infinite and is discounted like any large surplus.
    with np.errstate(over="ignore", divide="ignore"):
        surplus = points.params / useful - 1
    return useful * (1 + constants["R_N"] * -np.expm1(-surplus / constants["R_N"]))


def loss(constants: Constants, points: Points) -> Floats:
    """E + A/N'^alpha + B/D'^beta.

    D' is `effective_tokens`, which discounts passes beyond the first. In the same way, N' discounts parameters beyond the
    size that is compute-optimal for the unique tokens.
    """
    size = _useful_size(constants, points) ** -constants["alpha"]
    data = effective_tokens(points, constants["R_D"]) ** -constants["beta"]
    return constants["E"] + constants["A"] * size + constants["B"] * data


def penalty(constants: Constants, points: Points) -> Floats:
    """The loss above that of a clean run. In both, parameters beyond the compute-optimal size count less."""
    return loss(constants, points) - loss(constants, points.as_clean())


def clean_loss(constants: Constants, points: Points) -> Floats:
    """The law without repetition or surplus parameters: E + A/N^alpha + B/T^beta."""
    size, data = points.params ** -constants["alpha"], points.tokens ** -constants["beta"]
    return constants["E"] + constants["A"] * size + constants["B"] * data


LAW = Law(
    "muennighoff",
    "Muennighoff et al.",
    "every additional pass is worth less",
    (
        FLOOR_WITH_PRIOR,
        *SIZE_WITH_PRIORS,
        *DATA_WITH_PRIORS,
        Constant("R_D", (15.0,), 0.1, 1e4, prior=(CONSTANTS["R_D"], 0.8)),
        Constant("R_N", (5.0,), 0.1, 1e4, prior=(CONSTANTS["R_N"], 0.8)),
    ),
    penalty,
    lambda constants, points: loss(constants, points.as_clean()),
    published=Published(
        lambda points: loss(CONSTANTS, points),
        PUBLISHED_DOMAIN,
        notes=(
            "the law was fitted on runs that repeat their whole data set. For partial repetition, the tokens seen once are added to the"
            " effective tokens of the pool. The law has no worst R",
        ),
    ),
)
LAWS = (LAW,)
