"""H22: a band of R, moving with size, in which a model acts like a smaller one [H22 fig. 4]."""

import numpy as np

from analysis.laws import muennighoff
from analysis.laws.clean import FLOOR, SIZE
from analysis.laws.law import Constant, Constants, Domain, Law
from analysis.laws.points import Floats, Points
from analysis.published import (
    H22_ACTS_LIKE,
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

# Bands are published for f = 10%, depths for an 800M model.
PUBLISHED_DOMAIN = Domain(H22_SIZES, (H22_TOKENS, H22_TOKENS), (H22_BAND_FRACTION, H22_BAND_FRACTION), (1.0, 1220.0))


def bump(repeats: Floats, left: Floats, right: Floats) -> Floats:
    """A Gaussian in log R, 1 in the middle of the edges and one half at them; 0 without repetition."""
    middle, half_width = np.log(left * right) / 2, np.log(right / left) / 2
    height = np.exp(-np.log(2) * ((np.log(repeats) - middle) / half_width) ** 2)
    return np.where(repeats > 1, height, 0.0)


def loss(constants: Constants, points: Points) -> Floats:
    """E + A/(m·N)^alpha with -ln m = depth·f^gamma·bump(R), the band's edges being powers of N."""
    left = constants["k_left"] * points.params ** constants["a_left"]
    right = np.maximum(constants["k_right"] * points.params ** constants["a_right"], 1.5 * left)
    depth = constants["depth"] * np.maximum(points.fraction, 1e-9) ** constants["gamma"]
    size = points.params * np.exp(-depth * bump(points.repeats, left, right))
    return constants["E"] + constants["A"] * size ** -constants["alpha"]


def published_edges(params: Floats) -> tuple[Floats, Floats]:
    """Left and right edge of the paper's band, in R."""
    return H22_LEFT_EDGE.at(params), H22_RIGHT_EDGE.at(params)


def _depth_at_10_percent(size: float) -> float:
    """-ln of the worst multiplier of an 800M model that acts like `size` at the R for which the paper says so."""
    here = bump(np.array(H22_ACTS_LIKE_REPEATS), *published_edges(np.array(H22_ACTS_LIKE_SIZE)))
    return float(np.log(H22_ACTS_LIKE_SIZE / size) / here)


# By f, at 800M; and by how much deeper or shallower the ends of the paper's range at f = 10% are.
PUBLISHED_DEPTHS = {f: -np.log(m) for f, m in H22_WORST_MULTIPLIER.items()} | {
    H22_BAND_FRACTION: _depth_at_10_percent(H22_ACTS_LIKE_MIDDLE)
}
PUBLISHED_SPREAD = tuple(
    _depth_at_10_percent(size) / _depth_at_10_percent(H22_ACTS_LIKE_MIDDLE) for size in H22_ACTS_LIKE
)


def published_multiplier(points: Points, deeper: float = 1.0) -> Floats:
    """Effective size over size by the paper's numbers: the depth at the worst R between the paper's fractions by powers of f,
    at every size as at 800M, for the paper gives no law of it; `deeper` scales it."""
    fractions, depths = zip(*sorted(PUBLISHED_DEPTHS.items()), strict=True)
    log_f = np.log(np.maximum(points.fraction, 1e-3))
    depth = np.exp(np.interp(log_f, np.log(fractions), np.log(depths)))
    left, right = published_edges(points.params)
    return np.exp(-deeper * depth * bump(points.repeats, left, right))


def published_loss(points: Points, deeper: float = 1.0) -> Floats:
    """The loss of the smaller model; the paper's own clean law has no published constants, so it is M23's."""
    smaller = points.params * published_multiplier(points, deeper)
    same = Points(smaller, points.tokens, points.fraction, points.repeats, points.loss)
    return muennighoff.clean_loss(muennighoff.PUBLISHED, same)


LAW = Law(
    "hernandez",
    "Hernandez et al. 2022: a band of R that costs model size",
    (
        FLOOR,
        *SIZE,
        Constant("depth", (1.0, 4.0), 1e-3, 50.0),
        Constant("gamma", (1.0,), -3.0, 10.0, positive=False, varies="fraction"),
        Constant("k_left", (10.0, 50.0), 1.0, 1e5, per=(("params", "a_left", -1),)),
        Constant("a_left", (-0.5,), -3.0, 1.0, positive=False),
        Constant("k_right", (300.0, 3000.0), 1.5, 1e7, per=(("params", "a_right", -1),)),
        Constant("a_right", (-0.5,), -3.0, 1.0, positive=False),
    ),
    loss,
)
