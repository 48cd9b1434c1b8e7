"""Estimate the constants of a law from penalties and clean losses, for many subsets of the runs at the same time."""

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.laws.law import Constant, Law
from analysis.laws.points import SCALE, Floats, Points, scaled
from analysis.laws.search import minimize

STARTS = 4  # number of starting points that the optimizer continues from
STEP = 1e-5  # step of finite differences, in units of theta
ROBUST = 1.5  # residuals above this many standard deviations count linearly [M23, section 6]
FIRST_SIGMA = 0.2  # standard deviation of residuals before it is estimated
SIGMA = (0.05, 0.5)  # smallest and largest estimate; a smaller one would make priors meaningless
CLEAN_DELTA = 1e-3 / SCALE  # Huber delta for clean laws: 1e-3 on log loss [M23]
REFINEMENTS = 2  # how often the standard deviation is estimated anew
REFERENCE_FRACTION = 0.3
WORSE = 1.2  # a starting point failed if its cost after FIRST_STEPS exceeds the best one by this factor
FIRST_STEPS, LAST_STEPS = 40, 80
POLISHING_STEPS = 200
LARGEST_PENALTY = 1e3  # nats; replaces penalties that overflow


class CannotFit(Exception):
    """Raised if the points do not determine a law. The message gives the reason."""


@dataclass(frozen=True)
class Problem:
    """A law and the runs that it is fitted to, in units that make every parameter of order one.

    theta: the fitted parameters, shape [free] or [rows, free]. A positive constant is replaced by its logarithm. A coefficient is
    first multiplied by its powers of N, T and f, evaluated at the geometric means of N and T and at f = REFERENCE_FRACTION.
    """

    law: Law
    points: Points  # repeated runs have controls
    free: tuple[Constant, ...]
    held: dict[str, float]
    reference: dict[str, float]  # N, T and f at which coefficients are evaluated

    @classmethod
    def of(cls, law: Law, points: Points) -> "Problem":
        """The problem of fitting `law` to `points`."""
        free = tuple(
            constant for constant in law.constants if constant.prior or _varies(points, constant.needs_several)
        )
        held = {constant.name: constant.default for constant in law.constants if constant not in free}
        reference = {name: float(np.exp(np.log(getattr(points, name)).mean())) for name in ("params", "tokens")}
        return cls(law, points, free, held, reference | {"fraction": REFERENCE_FRACTION})

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the fitted constants, in the order of theta."""
        return tuple(constant.name for constant in self.free)

    def constants(self, theta: Floats) -> dict[str, Any]:
        """Convert theta to the law's constants: numbers for shape [free], columns [rows, 1] for shape [rows, free]."""
        columns = theta[..., None] if theta.ndim > 1 else theta
        values: dict[str, Any] = dict(self.held)
        for place, constant in enumerate(self.free):
            value = columns[:, place] if theta.ndim > 1 else columns[place]
            values[constant.name] = np.exp(value) if constant.positive else value
        for constant in self.free:
            for power in constant.multiplies:
                exponent = values[power.exponent] if isinstance(power.exponent, str) else power.exponent
                values[constant.name] = values[constant.name] * self.reference[power.column] ** (-power.sign * exponent)
        return values

    def numbers(self, theta: Floats) -> dict[str, float]:
        """Convert one theta, shape [free], to the law's constants."""
        return {name: float(value) for name, value in self.constants(theta).items()}

    def penalty(self, theta: Floats, points: Points) -> Floats:
        """Predicted penalty in nats, shape [points] or [rows, points]. Non-finite values are replaced with LARGEST_PENALTY."""
        with np.errstate(all="ignore"):
            values = self.law.penalty(self.constants(theta), points)
        limited = np.clip(values, -LARGEST_PENALTY, LARGEST_PENALTY)
        return np.nan_to_num(limited, nan=LARGEST_PENALTY)

    def clean_loss(self, theta: Floats, points: Points) -> Floats:
        """Predicted loss of clean runs in nats, shape [points] or [rows, points]."""
        assert self.law.clean_loss
        with np.errstate(all="ignore"):
            values = self.law.clean_loss(self.constants(theta), points)
        return np.nan_to_num(np.clip(values, 1e-9, LARGEST_PENALTY), nan=LARGEST_PENALTY)

    def residuals(self, theta: Floats) -> Floats:
        """Predicted minus measured, on the scale of `points.scaled`, [rows, points]. 0 for clean runs that the law does not predict."""
        clean = self._is_clean
        result = np.zeros((len(theta), len(self.points)))
        if len(repeated := self._repeated):
            assert repeated.control is not None
            result[:, ~clean] = scaled(self.penalty(theta, repeated), repeated.control) - self._measured
        if self.law.clean_loss and len(runs := self._clean):
            result[:, clean] = np.log(self.clean_loss(theta, runs) / runs.loss) / SCALE
        return result

    # Cached because a search evaluates the residuals thousands of times.
    @cached_property
    def _is_clean(self) -> npt.NDArray[np.bool_]:
        return self.points.clean

    @cached_property
    def _clean(self) -> Points:
        return self.points[self._is_clean]

    @cached_property
    def _repeated(self) -> Points:
        return self.points[~self._is_clean]

    @cached_property
    def _measured(self) -> Floats:
        """The measured penalties of the repeated runs, on the scale of `points.scaled`."""
        assert self._repeated.control is not None
        return scaled(self._repeated.penalty, self._repeated.control)

    def prior_residuals(self, theta: Floats) -> Floats:
        """Distance of each parameter from its prior mean in standard deviations, [rows, free]; 0 without a prior."""
        center, precision = self._priors
        return (theta - center) * precision

    @cached_property
    def _priors(self) -> tuple[Floats, Floats]:
        return self.priors()

    def priors(self) -> tuple[Floats, Floats]:
        """Prior means and inverse standard deviations (0 without a prior), each [free]."""
        center = np.array([self._theta(each, each.prior[0]) if each.prior else 0.0 for each in self.free])
        return center, np.array([1 / each.prior[1] if each.prior else 0.0 for each in self.free])

    def bounds(self) -> tuple[Floats, Floats]:
        """Smallest and largest theta of the search."""
        low = np.array([self._theta(constant, constant.low) for constant in self.free])
        high = np.array([self._theta(constant, constant.high) for constant in self.free])
        return low, high

    def starts(self) -> Floats:
        """All combinations of the constants' starting points, [starts, free]."""
        return np.array(list(product(*([self._theta(each, start) for start in each.starts] for each in self.free))))

    @staticmethod
    def _theta(constant: Constant, value: float) -> float:
        return float(np.log(value)) if constant.positive else value


@dataclass(frozen=True)
class Solutions:
    """Fits to several subsets of the runs.

    theta: [rows, free]. sigma: standard deviation of the residuals on the scale of `points.scaled`, [rows]. failed: share of starting
    points that led to a clearly worse fit than the best one, [rows].
    """

    theta: Floats
    sigma: Floats
    failed: Floats


def solve(problem: Problem, weights: Floats, start: Floats | None = None) -> Solutions:
    """Fit the law to every subset: minimize a Huber loss plus the priors from several starting points.

    weights: 1 for the runs in a subset and 0 for those left out, [rows, points]. start: a starting point for all rows, which replaces the
    law's own.
    """
    low, high = problem.bounds()
    rows = len(weights)
    starts = _best_starts(problem) if start is None else start[None]
    of_start = np.repeat(np.arange(rows), len(starts))
    weights_and_priors = np.hstack([weights, np.ones((rows, len(problem.free)))])
    clean_only = problem.law.clean_only
    delta = CLEAN_DELTA if clean_only else ROBUST

    def fitted(begin: Floats, row: npt.NDArray[np.int64], sigma: Floats, steps: int, polish: bool = False) -> Any:
        def residuals(theta: Floats, which: npt.NDArray[np.int64]) -> Floats:
            return np.hstack([problem.residuals(theta) / sigma[row[which], None], problem.prior_residuals(theta)])

        return minimize(residuals, begin, weights_and_priors[row], delta, low, high, steps, polish)

    sigma = np.ones(rows) if clean_only else np.full(rows, FIRST_SIGMA)
    tried = fitted(np.tile(starts, (rows, 1)), of_start, sigma, FIRST_STEPS)
    cost = tried.cost.reshape(rows, len(starts))
    best = cost.argmin(1)
    failed = (cost > WORSE * cost.min(1, keepdims=True) + 1e-6).mean(1)
    every = np.arange(rows)
    theta = fitted(tried.theta[every * len(starts) + best], every, sigma, LAST_STEPS).theta
    used = weights.sum(1)
    surplus = np.maximum(used - np.minimum(len(problem.free), used / 2), 1)
    for _ in range(0 if clean_only else REFINEMENTS):
        squares = np.minimum(np.abs(problem.residuals(theta)), 3 * sigma[:, None]) ** 2
        sigma = np.clip(np.sqrt((weights * squares).sum(1) / surplus), *SIGMA)
        theta = fitted(theta, every, sigma, LAST_STEPS).theta
    # The rounding errors of linear algebra vary. They hardly matter in a fit that has converged, so reports of the same runs are identical.
    theta = (
        _polished(problem, theta, weights) if clean_only else fitted(theta, every, sigma, POLISHING_STEPS, True).theta
    )
    if clean_only:
        sigma = np.sqrt((weights * problem.residuals(theta) ** 2).sum(1) / surplus)
    return Solutions(theta, sigma, failed)


def _polished(problem: Problem, theta: Floats, weights: Floats) -> Floats:
    """Converge fits of a clean law. Its Huber loss is almost an absolute deviation, for which `minimize` converges too slowly."""
    from scipy.optimize import least_squares  # evaluating laws does not need scipy

    low, high = problem.bounds()

    def converged(start: Floats, used: Floats) -> Any:
        return least_squares(
            lambda row: problem.residuals(row[None])[0] * used,
            np.clip(start, low + 1e-6, high - 1e-6),
            bounds=(low, high),
            loss="huber",
            f_scale=CLEAN_DELTA,
            max_nfev=400,
        ).x

    return np.array([converged(start, used) for start, used in zip(theta, weights, strict=True)])


def covariance(problem: Problem, theta: Floats, sigma: float, weights: Floats) -> Floats:
    """Covariance of theta from the curvature of the cost, [free, free]. theta: [free]. weights: [points]."""
    stepped = problem.residuals(np.vstack([theta, theta + STEP * np.eye(len(theta))]))
    jacobian = (stepped[1:] - stepped[0]) / STEP  # [free, points]
    information = (jacobian * weights) @ jacobian.T / max(sigma, 1e-9) ** 2 + np.diag(problem.priors()[1] ** 2)
    low, high = problem.bounds()
    # Without data or prior, a parameter is as uncertain as the range of its search.
    information += np.diag(12 / (high - low) ** 2) * (problem.priors()[1] == 0)
    # With a small Huber delta, a clean law minimizes absolute deviations, whose estimates have pi/2 times the variance.
    return np.linalg.inv(information) * (np.pi / 2 if problem.law.clean_only else 1.0)


def check(law: Law, points: Points) -> None:
    """Raise CannotFit if the points do not determine the law."""
    kind = "clean runs" if law.clean_only else "runs"
    if law.clean_loss and not points.clean.any():
        raise CannotFit("needs clean runs, found none")
    fewest = 3 if law.clean_only else 2  # laws of repetition have priors for the clean constants
    if law.clean_loss and (sizes := len(np.unique(points.params[points.clean]))) < fewest:
        raise CannotFit(f"needs clean runs of at least {'three' if fewest == 3 else 'two'} sizes, found {sizes}")
    repeated = points[~points.clean]
    if not law.clean_only and not len(repeated):
        raise CannotFit("needs repeated runs that can be compared with clean runs, found none")
    used = points if law.clean_loss else repeated
    needed = sum(1 for constant in law.constants if constant.prior is None and _varies(points, constant.needs_several))
    design = np.stack([used.params, used.tokens, used.fraction, used.repeats])
    if (distinct := np.unique(design, axis=1).shape[1]) < max(needed, 3):
        raise CannotFit(
            f"needs at least {max(needed, 3)} different {kind} for its {needed} constants, found {distinct}"
        )
    if not law.clean_only and law.ignores_fraction and len(np.unique(repeated.fraction)) > 1:
        raise CannotFit("does not depend on the repeated fraction, but the runs have several fractions")
    if not law.clean_only and (found := len(np.unique(repeated.repeats))) < 2:
        raise CannotFit(f"needs runs at two or more R above 1, found {found}")


def _varies(points: Points, column: str) -> bool:
    if not column:
        return True
    values = getattr(points, column) if column != "fraction" else points.fraction[~points.clean]
    return len(np.unique(values)) > 1


def _best_starts(problem: Problem) -> Floats:
    starts = problem.starts()
    cost = np.abs(problem.residuals(starts)).sum(1)
    return starts[np.argsort(cost, kind="stable")[:STARTS]]
