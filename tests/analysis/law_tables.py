"""Generate runs whose losses follow a law with known constants."""

from dataclasses import replace

import numpy as np

from analysis.laws import chudnovsky, clean, hernandez, lovelace, muennighoff, partial, powers
from analysis.laws.law import Constants, Law
from analysis.laws.points import Floats, Points, prediction_points

SIZES = [2e5, 1e6, 5e6, 3e7, 2e8]
REPEATS = [4, 12, 40, 120, 400, 1200]
TRUE: dict[str, tuple[Law, dict[str, float]]] = {
    "clean_size": (clean.IN_SIZE, {"E": 1.8, "A": 20.0, "alpha": 0.2}),
    "clean_compute": (clean.IN_COMPUTE, {"E": 1.8, "A": 2000.0, "alpha": 0.2}),
    "muennighoff": (muennighoff.LAW, muennighoff.CONSTANTS),
    "lovelace": (lovelace.LAW, {"P": 0.02, "delta": 0.8, "kappa": 0.4}),
    "hernandez": (
        hernandez.LAW,
        {"E": 1.8, "A": 20.0, "alpha": 0.2, "depth": 4.0, "gamma": 0.8, "k_left": 2e4, "a_left": -0.5}
        | {"k_right": 4e5, "a_right": -0.45},
    ),
    "chudnovsky": (
        chudnovsky.LAW,
        {"E": 1.8, "A": 2000.0, "alpha": 0.2, "odds": 0.05, "growth": 0.2, "k": 1e5, "a": -0.5, "sigma": 0.6},
    ),
    "powers": (
        powers.LAW,
        {
            "B": 60.0,
            "P": 2.0,
            "eta": -0.1,
            "gamma": 1.5,
            "rise": 2.0,
            "fall": 0.8,
            "k": 9e3,
            "a": -0.4,
            "b": 0.0,
            "c": -0.2,
        },
    ),
    "partial": (
        partial.LAW,
        {
            "B": 60.0,
            "P": 2.0,
            "eta": -0.1,
            "gamma": 1.5,
            "kappa": 0.8,
            "s": 2.5,
            "k": 9e3,
            "a": -0.4,
            "b": 0.0,
            "c": -0.2,
        },
    ),
}
# The clean law for laws of repetition without one of their own.
CLEAN = {"E": 1.8, "A": 20.0, "alpha": 0.2, "B": 20.0, "beta": 0.3}


def true_loss(law: Law, constants: Constants, points: Points) -> Floats:
    """The loss of runs that follow the law exactly."""
    if law.clean_loss:
        return law.loss(constants, points)
    return clean.by_size_and_tokens(CLEAN, points) + law.penalty(constants, points)


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
