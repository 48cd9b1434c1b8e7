"""The law of Hernandez et al. 2022: within a band of R, a model performs like a smaller one [H22, fig. 4].

The edges of the band follow power laws in model size.
"""

from dataclasses import replace

import numpy as np

from analysis.laws import muennighoff
from analysis.laws.clean import FLOOR_WITH_PRIOR, SIZE_WITH_PRIORS, by_size
from analysis.laws.law import Constant, Constants, Domain, Law, Power, Published
from analysis.laws.points import Floats, Points
from analysis.published import (
    H22_ACTS_LIKE_MIDDLE,
    H22_ACTS_LIKE_REPEATS,
    H22_ACTS_LIKE_SIZE,
    H22_BAND_FRACTION,
    H22_LEFT_EDGE,
    H22_RIGHT_EDGE,
    H22_SIZES,
    H22_TOKENS,
    H22_WORST_MULTIPLIER,
)

# The paper reports bands at f = 10% and depths for an 800M model.
PUBLISHED_DOMAIN = Domain(H22_SIZES, (H22_TOKENS, H22_TOKENS), (H22_BAND_FRACTION, H22_BAND_FRACTION), (1.0, 1220.0))


def bump(repeats: Floats, left: Floats, right: Floats) -> Floats:
    """A Gaussian in log R that is 1 in the middle of the band and 1/2 at its edges; 0 for clean runs."""
    middle, half_width = np.log(left * right) / 2, np.log(right / left) / 2
    height = np.exp(-np.log(2) * ((np.log(repeats) - middle) / half_width) ** 2)
    return np.where(repeats > 1, height, 0.0)


def penalty(constants: Constants, points: Points) -> Floats:
    """A/(m·N)^alpha - A/N^alpha with -ln m = depth·f^gamma·bump(R); the edges of the band follow power laws in N."""
    left = constants["k_left"] * points.params ** constants["a_left"]
    right = np.maximum(constants["k_right"] * points.params ** constants["a_right"], 1.5 * left)
    depth = constants["depth"] * np.maximum(points.fraction, 1e-9) ** constants["gamma"]
    lost = depth * bump(points.repeats, left, right)
    return constants["A"] * points.params ** -constants["alpha"] * np.expm1(constants["alpha"] * lost)


def published_edges(params: Floats) -> tuple[Floats, Floats]:
    """The left and right edges of the published band, in R."""
    return H22_LEFT_EDGE.at(params), H22_RIGHT_EDGE.at(params)


def _depth_at_10_percent(size: float) -> float:
    """Depth of the band, -ln m at the worst R, if an 800M model at R = 100 performs like a model with `size` parameters."""
    height = bump(np.array(H22_ACTS_LIKE_REPEATS), *published_edges(np.array(H22_ACTS_LIKE_SIZE)))
    return float(np.log(H22_ACTS_LIKE_SIZE / size) / height)


# Depth of the band by f, for an 800M model.
PUBLISHED_DEPTHS = {f: -np.log(m) for f, m in H22_WORST_MULTIPLIER.items()} | {
    H22_BAND_FRACTION: _depth_at_10_percent(H22_ACTS_LIKE_MIDDLE)
}


def published_multiplier(points: Points) -> Floats:
    """Effective size divided by actual size, computed from the published numbers.

    The depth is interpolated between the paper's fractions, linearly in log depth and log f. The paper reports depths for 800M
    models only, so these depths are used for all sizes.
    """
    fractions, depths = zip(*sorted(PUBLISHED_DEPTHS.items()), strict=True)
    log_f = np.log(np.maximum(points.fraction, 1e-3))
    depth = np.exp(np.interp(log_f, np.log(fractions), np.log(depths)))
    left, right = published_edges(points.params)
    return np.exp(-depth * bump(points.repeats, left, right))


def published_loss(points: Points) -> Floats:
    """Loss of a clean model of the effective size. The clean law comes from M23, because H22 publishes no constants."""
    smaller = replace(points, params=points.params * published_multiplier(points))
    return muennighoff.clean_loss(muennighoff.CONSTANTS, smaller)


LAW = Law(
    "hernandez",
    "Hernandez et al.",
    "within a band of R, a model performs like a smaller one",
    (
        FLOOR_WITH_PRIOR,
        *SIZE_WITH_PRIORS,
        Constant("depth", (0.3, 2.0), 1e-3, 50.0, multiplies=(Power("fraction", "gamma", 1),), prior=(1.0, 2.0)),
        Constant("gamma", (1.0,), -3.0, 10.0, positive=False, needs_several="fraction", default=1.0, prior=(1.0, 0.5)),
        Constant("k_left", (10.0, 50.0), 1.0, 1e5, multiplies=(Power("params", "a_left", 1),), prior=(30.0, 3.0)),
        Constant("a_left", (-0.5,), -3.0, 1.0, positive=False, prior=(H22_LEFT_EDGE.exponent, 0.15)),
        Constant("k_right", (300.0, 3000.0), 1.5, 1e7, multiplies=(Power("params", "a_right", 1),), prior=(700.0, 3.0)),
        Constant("a_right", (-0.5,), -3.0, 1.0, positive=False, prior=(H22_RIGHT_EDGE.exponent, 0.15)),
    ),
    penalty,
    by_size,
    published=Published(
        published_loss,
        PUBLISHED_DOMAIN,
        notes=(
            "Hernandez et al. publish effective sizes but no constants, so the clean law of Muennighoff et al. converts them to"
            " nats. The depth measured at 800M parameters is used for all sizes",
        ),
    ),
)
LAWS = (LAW,)
