"""Fit our law to the tables of several laboratories at the same time, and leave out one laboratory at a time.

The constants in `pooled` come from this module. They predict a run for which nobody has run a study yet.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.laws import chudnovsky, hernandez, partial
from analysis.laws.cross_validation import NO_HARM, Prediction, score
from analysis.laws.estimate import Problem, Solutions, covariance, solve
from analysis.laws.fit import (
    FEWEST_TO_MEASURE,
    LEVEL,
    SMALL,
    Spread,
    SubsetFit,
    distance,
    prediction_variance,
    scatter,
    steps,
)
from analysis.laws.law import Law
from analysis.laws.leave_out import LABORATORY
from analysis.laws.pairing import with_controls
from analysis.laws.points import Floats, Points, prediction_points, scaled
from analysis.laws.registry import LAWS

PUBLISHED_IN_LAW = "published constants"
LARGEST_WEIGHT_OF_LABORATORY = 40.0  # in runs, so that the largest table does not decide alone
LARGEST_PUBLISHED_PENALTY = 3.0  # nats; the published laws give larger ones only outside the range of the papers' runs


@dataclass(frozen=True)
class Pool:
    """Repeated runs with controls, and the laboratory of each."""

    points: Points
    laboratory: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The laboratories."""
        return list(dict.fromkeys(self.laboratory))

    def of(self, name: str) -> np.ndarray:
        """A mask that selects the runs of one laboratory."""
        return np.array(self.laboratory) == name

    @property
    def weights(self) -> Floats:
        """Weight of every run: 1, or less in large tables."""
        counts = {name: float(self.of(name).sum()) for name in self.names}
        return np.array([min(1.0, LARGEST_WEIGHT_OF_LABORATORY / counts[name]) for name in self.laboratory])


def published_points() -> dict[str, Points]:
    """Penalties computed from the published numbers of H22 and C26, within the ranges that they report."""
    sizes = {"H22": (1.57e6, 12.6e6, 101e6, 800e6), "C26": (34e6, 63e6, 153e6, 344e6)}
    h22 = [(n, 1e11, f, r) for n in sizes["H22"] for f in (0.03, 0.1, 0.5, 0.9) for r in (10, 30, 100, 300, 1000, 3000)]
    c26 = [(n, 20 * n, 0.1, r) for n in sizes["C26"] for r in (4, 16, 64, 128, 256, 512, 1024, 2048, 4096)]
    tables = {}
    for name, law, grid in (("H22", hernandez.published_loss, h22), ("C26", chudnovsky.published_loss, c26)):
        points = prediction_points(*np.array(grid, float).T)
        clean, loss = law(points.as_clean()), law(points)
        kept = loss - clean < LARGEST_PUBLISHED_PENALTY
        tables[name] = Points(points.params, points.tokens, points.fraction, points.repeats, loss, clean)[kept]
    return tables


def pooled(tables: Mapping[str, Points]) -> Pool:
    """Combine tables, given by laboratory, with the published numbers."""
    listed = {name: with_controls(points) for name, points in (tables | published_points()).items()}  # type: ignore[operator]
    repeated = {name: points[~points.clean] for name, points in listed.items()}
    columns = ("params", "tokens", "fraction", "repeats", "loss", "control")
    together = [np.concatenate([getattr(points, column) for points in repeated.values()]) for column in columns]
    return Pool(Points(*together), tuple(name for name, points in repeated.items() for _ in range(len(points))))


def fit_pool(pool: Pool, law: Law = partial.LAW, without: str = "") -> SubsetFit:
    """Fit a law to all laboratories but `without`. Its intervals are measured by leaving out the others, one at a time."""
    problem = Problem.of(law, pool.points)
    used = ~pool.of(without)
    others = [name for name in pool.names if name != without]
    weights = np.array([pool.weights * used, *(pool.weights * (used & ~pool.of(name)) for name in others)])
    fits = solve(problem, weights)
    spread = scatter(problem, fits.theta[0], float(fits.sigma[0]), used)
    spread = Spread(_noise(pool, problem, fits.theta[0], used), spread.relative, {})
    spread = _measured(pool, problem, fits, weights, others, spread)
    uncertainty = covariance(problem, fits.theta[0], float(fits.sigma[0]), weights[0])
    return SubsetFit(problem, used, fits.theta[0], uncertainty, spread, float(fits.failed[0]))


def _noise(pool: Pool, problem: Problem, theta: Floats, used: np.ndarray) -> float:
    """The scatter of small penalties in a typical laboratory: the median over laboratories of their median absolute deviations."""
    residuals = problem.residuals(theta[None])[0]
    assert pool.points.control is not None
    small = np.tanh(np.abs(scaled(problem.penalty(theta, pool.points), pool.points.control))) < SMALL
    runs = [residuals[used & small & pool.of(name)] for name in pool.names]
    return float(
        np.median(
            [np.median(np.abs(values - np.median(values))) for values in runs if len(values) >= FEWEST_TO_MEASURE]
        )
        * 1.48
    )


def _measured(
    pool: Pool, problem: Problem, fits: Solutions, weights: Floats, others: list[str], spread: Spread
) -> Spread:
    """Choose the width of intervals so that they contain 95% of the runs of a new laboratory, with equal weights for all laboratories."""
    errors, shares = [], []
    for row, name in enumerate(others, start=1):
        runs = pool.points[pool.of(name)]
        assert runs.control is not None
        stepped = scaled(problem.penalty(steps(fits.theta[row]), runs), runs.control)
        constants = covariance(problem, fits.theta[row], float(fits.sigma[row]), weights[row])
        away = distance(runs, pool.points[weights[row] > 0])
        error = stepped[0] - scaled(runs.penalty, runs.control)
        errors.append(spread.standardized(error, stepped[0], away, prediction_variance(stepped, constants)))
        shares.append(np.full(len(runs), 1 / len(runs)))
    error, share = np.concatenate(errors), np.concatenate(shares)
    order = np.argsort(error)
    reached = int(np.searchsorted(np.cumsum(share[order]) / share.sum(), LEVEL))
    return Spread(spread.noise, spread.relative, {LABORATORY: float(error[order][min(reached, len(error) - 1)])})


def leave_laboratories_out(pool: Pool, laws: tuple[Law, ...] = (partial.LAW,)) -> pd.DataFrame:
    """Predict every laboratory with laws fitted to the others, with published laws and with no law; columns as in `cross_validate`."""
    rows = []
    for name in pool.names:
        runs = pool.points[pool.of(name)]
        predictions = {}
        for law in laws:
            fitted = fit_pool(pool, law, without=name)
            predictions[law.name] = Prediction(fitted.penalty, fitted.interval)
        for law in LAWS:
            if (published := law.published) and not _is_source(law, name):
                loss = published.loss
                predictions[f"{law.name}: {PUBLISHED_IN_LAW}"] = Prediction(
                    lambda points, loss=loss: loss(points) - loss(points.as_clean())  # type: ignore[misc]
                )
        predictions[NO_HARM] = Prediction(lambda points: np.zeros(len(points.params)))
        for label, prediction in predictions.items():
            row = {"kind": LABORATORY, "held_out": name, "law": label, "runs": len(runs), "coverage": np.nan}
            rows.append(row | score(prediction, runs, peaks=False) | {"worst_repeats": np.nan, "reason": ""})
    return pd.DataFrame(rows)


def _is_source(law: Law, laboratory: str) -> bool:
    """Whether the points of this laboratory were computed from the law."""
    return (law.name, laboratory) in {("hernandez", "H22"), ("chudnovsky", "C26")}
