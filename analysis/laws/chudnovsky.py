"""C26: repetition loses a share of the compute, a Gaussian in log R about a worst R that moves with size [C26]."""

import numpy as np

from analysis.laws import hernandez
from analysis.laws.clean import IN_COMPUTE
from analysis.laws.law import Constant, Constants, Domain, Law
from analysis.laws.points import Floats, Points
from analysis.published import (
    C26_CLEAN_LAW,
    C26_DATA_NOISE,
    C26_FRACTION,
    C26_LOST_COMPUTE,
    C26_NOISY_REPEATS,
    C26_SIZES,
    C26_TOKENS_PER_PARAMETER,
    C26_WORST_REPEATS,
)

PUBLISHED_DOMAIN = Domain(
    C26_SIZES,
    (C26_TOKENS_PER_PARAMETER * C26_SIZES[0], C26_TOKENS_PER_PARAMETER * C26_SIZES[1]),
    (C26_FRACTION, C26_FRACTION),
    (1.0, np.inf),
    (C26_TOKENS_PER_PARAMETER, C26_TOKENS_PER_PARAMETER),
)


def kept(logit_at_worst: Floats, repeats: Floats, worst: Floats, sigma: Floats | float) -> Floats:
    """CEG: the share of the compute that is not lost."""
    height = np.exp(-0.5 * ((np.log10(repeats) - np.log10(worst)) / sigma) ** 2)
    return 1 - np.where(repeats > 1, height, 0.0) / (1 + np.exp(-logit_at_worst))


def loss(constants: Constants, points: Points) -> Floats:
    """E + A/(CEG·C)^alpha, C = 6·N·T."""
    compute = 6 * points.params * points.tokens
    worst = constants["k"] * points.params ** constants["a"]
    logit = np.log(constants["odds"] * points.params ** constants["growth"])
    ceg = kept(logit, points.repeats, worst, constants["sigma"])
    return constants["E"] + constants["A"] * (ceg * compute) ** -constants["alpha"]


def published_kept(points: Points) -> Floats:
    """CEG by the paper's numbers: its logit at the worst R is a line in log N through the paper's six sizes. The paper gives no
    width: it is that of H22's band at the same size."""
    sizes, lost = (np.array(values) for values in zip(*C26_LOST_COMPUTE.items(), strict=True))
    slope, level = np.polyfit(np.log(sizes), np.log(lost / (1 - lost)), 1)
    left, right = hernandez.published_edges(points.params)
    sigma = np.log10(right / left) / 2 / np.sqrt(2 * np.log(2))
    worst = C26_WORST_REPEATS.at(points.params)
    return kept(slope * np.log(points.params) + level, points.repeats, worst, sigma)


def published_loss(points: Points) -> Floats:
    """The paper's clean law at the compute that is kept."""
    floor, coefficient, exponent = C26_CLEAN_LAW
    return floor + coefficient * (published_kept(points) * 6 * points.params * points.tokens) ** -exponent


def noise(repeats: float) -> float:
    """Nats by which two draws of the data differ."""
    return C26_DATA_NOISE[repeats > C26_NOISY_REPEATS]


LAW = Law(
    "chudnovsky",
    "Chudnovsky et al. 2026: a Gaussian share of compute lost",
    (
        *IN_COMPUTE.constants,
        Constant("odds", (0.5, 5.0), 1e-4, 1e6, per=(("params", "growth", -1),)),
        Constant("growth", (0.0,), -3.0, 3.0, positive=False),
        Constant("k", (30.0, 300.0), 1.0, 1e7, per=(("params", "a", -1),)),
        Constant("a", (-0.5,), -3.0, 1.0, positive=False),
        Constant("sigma", (0.4, 0.8), 0.05, 5.0),
    ),
    loss,
    one_fraction=True,
)
