"""The law of Chudnovsky et al. 2026: the share of compute that repetition wastes is a Gaussian in log R [C26].

The worst R, at the center of the Gaussian, follows a power law in model size.
"""

import numpy as np

from analysis.laws import hernandez
from analysis.laws.clean import COMPUTE_WITH_PRIORS, FLOOR_WITH_PRIOR, by_compute
from analysis.laws.law import Constant, Constants, Domain, Law, Power, Published
from analysis.laws.points import Floats, Points
from analysis.published import (
    C26_CLEAN_LAW,
    C26_FRACTION,
    C26_LOST_COMPUTE,
    C26_SIZES,
    C26_TOKENS_PER_PARAMETER,
    C26_WORST_REPEATS,
)

PUBLISHED_DOMAIN = Domain(
    params=C26_SIZES,
    tokens=(C26_TOKENS_PER_PARAMETER * C26_SIZES[0], C26_TOKENS_PER_PARAMETER * C26_SIZES[1]),
    fraction=(C26_FRACTION, C26_FRACTION),
    repeats=(1.0, np.inf),
    tokens_per_param=(C26_TOKENS_PER_PARAMETER, C26_TOKENS_PER_PARAMETER),
)


def compute_kept(logit_at_worst: Floats, repeats: Floats, worst: Floats, sigma: Floats | float) -> Floats:
    """The share of compute that repetition does not waste, called CEG in the paper.

    logit_at_worst: logit of the wasted share at the worst R. sigma: width of the Gaussian in decades of R.
    """
    height = np.exp(-0.5 * ((np.log10(repeats) - np.log10(worst)) / sigma) ** 2)
    return 1 - np.where(repeats > 1, height, 0.0) / (1 + np.exp(-logit_at_worst))


def penalty(constants: Constants, points: Points) -> Floats:
    """A/(CEG·C)^alpha - A/C^alpha with compute C = 6·N·T."""
    compute = 6 * points.params * points.tokens
    worst = constants["k"] * points.params ** constants["a"]
    logit = np.log(constants["odds"] * points.params ** constants["growth"])
    kept = compute_kept(logit, points.repeats, worst, constants["sigma"])
    return constants["A"] * compute ** -constants["alpha"] * (kept ** -constants["alpha"] - 1)


def published_compute_kept(points: Points) -> Floats:
    """CEG computed from the published numbers.

    The logit of the wasted share at the worst R is a linear function of log N, fitted to the paper's six sizes. The paper does not
    report a width, so the Gaussian is as wide as the H22 band at the same model size.
    """
    sizes, lost = (np.array(values) for values in zip(*C26_LOST_COMPUTE.items(), strict=True))
    slope, level = np.polyfit(np.log(sizes), np.log(lost / (1 - lost)), 1)
    left, right = hernandez.published_edges(points.params)
    sigma = np.log10(right / left) / 2 / np.sqrt(2 * np.log(2))
    worst = C26_WORST_REPEATS.at(points.params)
    return compute_kept(slope * np.log(points.params) + level, points.repeats, worst, sigma)


def published_loss(points: Points) -> Floats:
    """The published clean law, evaluated at the compute that is not wasted."""
    floor, coefficient, exponent = C26_CLEAN_LAW
    return floor + coefficient * (published_compute_kept(points) * 6 * points.params * points.tokens) ** -exponent


LAW = Law(
    "chudnovsky",
    "Chudnovsky et al.",
    "the share of compute that repetition wastes is a Gaussian in log R",
    (
        FLOOR_WITH_PRIOR,
        *COMPUTE_WITH_PRIORS,
        Constant("odds", (0.5, 5.0), 1e-4, 1e6, multiplies=(Power("params", "growth", 1),), prior=(1.0, 3.0)),
        Constant("growth", (0.2,), -3.0, 3.0, positive=False, prior=(0.3, 0.4)),
        Constant("k", (30.0, 100.0, 400.0), 1.0, 1e7, multiplies=(Power("params", "a", 1),), prior=(100.0, 3.0)),
        Constant("a", (-0.7,), -3.0, 1.0, positive=False, prior=(-0.7, 0.3)),
        Constant("sigma", (0.5,), 0.05, 5.0, prior=(0.5, 0.5)),
    ),
    penalty,
    by_compute,
    ignores_fraction=True,
    published=Published(
        published_loss,
        PUBLISHED_DOMAIN,
        notes=(
            "the law's parameter counts include embeddings. Chudnovsky et al. do not publish the width of the peak, so the width comes from"
            " Hernandez et al.'s figures",
        ),
    ),
)
LAWS = (LAW,)
