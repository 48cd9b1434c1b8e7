"""The batched optimizer agrees with scipy, row by row."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from analysis.laws.search import minimize

TIMES = np.linspace(0.0, 3.0, 25)
LOW, HIGH = np.array([-5.0, -5.0, 0.1]), np.array([5.0, 5.0, 5.0])
DELTA = 0.05


def curve(theta: np.ndarray) -> np.ndarray:
    level, height, rate = (theta[..., place, None] for place in range(3))
    return np.asarray(level + height * np.exp(-rate * TIMES))


def test_every_row_reaches_the_minimum_that_scipy_finds() -> None:
    random = np.random.default_rng(0)
    true = np.array([[1.0, 2.0, 1.0], [0.5, -1.0, 2.5], [2.0, 1.0, 0.3]])
    measured = curve(true) + 0.02 * random.standard_normal((3, 25))
    measured[0, 3] += 2.0  # an outlier, which a Huber loss ignores
    weights = np.ones((3, 25))
    weights[1, ::4] = 0.0
    found = minimize(
        lambda theta, rows: curve(theta) - measured[rows],
        np.tile([0.0, 1.0, 1.0], (3, 1)),
        weights,
        DELTA,
        LOW,
        HIGH,
        100,
    )
    for row in range(3):
        used = weights[row] > 0
        reference = least_squares(
            lambda theta, row=row, used=used: (curve(theta) - measured[row])[used],
            [0.0, 1.0, 1.0],
            bounds=(LOW, HIGH),
            loss="huber",
            f_scale=DELTA,
        )
        assert found.cost[row] <= reference.cost * (1 + 1e-4)
        assert found.theta[row] == pytest.approx(reference.x, abs=5e-3)


def test_the_search_stays_within_its_bounds() -> None:
    measured = curve(np.array([[1.0, 2.0, 8.0]]))
    found = minimize(
        lambda theta, rows: curve(theta) - measured[rows],
        np.array([[0.0, 1.0, 1.0]]),
        np.ones((1, 25)),
        1.0,
        LOW,
        HIGH,
        200,
    )
    assert found.theta[0, 2] == HIGH[2] and (found.theta >= LOW).all() and (found.theta <= HIGH).all()
