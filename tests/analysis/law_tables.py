"""Generate runs whose losses follow a law with known constants."""

from dataclasses import replace

import numpy as np

from analysis.laws import muennighoff
from analysis.laws.law import Law
from analysis.laws.points import Points, prediction_points
from analysis.laws.simulate import TRUE, true_loss

__all__ = ["TRUE", "table", "true_loss"]

SIZES = [2e5, 1e6, 5e6, 3e7, 2e8]
REPEATS = [4, 12, 40, 120, 400, 1200]


def table(law: Law, constants: dict[str, float], noise: float, seed: int) -> Points:
    """Runs of five sizes with two numbers of tokens, two fractions, six R and two seeds. Noise is added to the log of the loss."""
    fractions = [0.9] if law.ignores_fraction else [0.5, 0.9]
    grid = [(n, t * n**0.5, f, r) for n in SIZES for t in (2e4, 2e5) for f in fractions for r in [1, *REPEATS]]
    if law is muennighoff.LAW:  # like the paper's runs: few passes over all of the data
        grid = [(n, t, 1.0, r) for n in (1e7, 1e8, 1e9, 5e9) for t in (1e9, 1e10, 1e11) for r in (1, 2, 5, 15, 40)]
    if law.clean_only:
        grid = [(n * scale, t * n**0.5, 0.0, 1) for n in SIZES for scale in (1, 2) for t in (2e4,)]
    points = prediction_points(*np.array(grid * 2, float).T)
    random = np.random.default_rng(seed)
    return replace(points, loss=true_loss(law, constants, points) * np.exp(noise * random.standard_normal(len(points))))
