"""Fit laws to runs by minimizing a Huber loss on log loss from several starting points [M23, section 6]; bootstrap intervals."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from analysis.intervals import percentile_interval
from analysis.laws.law import Constant, Constants, Domain, Law, domain_of
from analysis.laws.points import Floats, Points

HUBER_DELTA = 1e-3  # on log loss [M23]
BEST_STARTS = 4  # how many starting points the optimizer continues from
STEP = 1e-6  # step of the finite differences
MAX_LOG_LOSS = 10.0  # replaces log losses that overflow
NEAR_BOUND = 1e-2  # in the units of theta, which are logarithms or exponents
NOT_DETERMINED = "not determined: at a bound of the search"
BOOTSTRAP_STEPS = 30
RESAMPLES = 200

Progress = Callable[[float], None]  # called with the share of the work that is done, from 0 to 1


class CannotFit(Exception):
    """Raised if the points do not determine a law. The message gives the reason."""


@dataclass(frozen=True)
class FittedLaw:
    """A law with its best-fitting constants, and the constants fitted to every bootstrap resample."""

    law: Law
    constants: Constants
    resamples: tuple[Constants, ...]
    free: tuple[str, ...]  # names of the constants that were fitted
    domain: Domain
    points: int
    error: float  # root mean square of fitted - measured loss, nats
    undetermined: tuple[str, ...] = ()  # names of the constants that stopped at a bound of the search

    def loss(self, points: Points) -> Floats:
        """Predicted loss in nats per token."""
        return self.law.loss(self.constants, points)

    def interval(self, name: str) -> tuple[float, float]:
        """95% interval of a constant; NaN without resamples."""
        return percentile_interval([constants[name] for constants in self.resamples])


def fit(
    law: Law, points: Points, resamples: int = RESAMPLES, seed: int = 0, progress: Progress | None = None
) -> FittedLaw:
    """Fit a law to these points. A clean law is fitted to the clean points only.

    The bootstrap resamples the residuals in log loss. It keeps the grid of runs fixed, because the grid is not random. With n runs and
    p constants, the residuals are scaled by n/(n - p), because the fit passes through about p runs exactly, as a least-absolute-deviations
    fit does.
    Raises CannotFit if the points do not determine the law.
    """
    points = points[points.clean] if law.clean_only else points
    check(law, points)
    search = _Search.of(law, points)
    measured = np.log(points.loss)
    best = search.best(measured)
    fitted = search.predicted(best)
    residuals = measured - fitted
    surplus = len(points) - len(best)
    scale = len(points) / max(surplus, 1)
    random = np.random.default_rng(seed)
    resampled = []
    for number in range(resamples if surplus > 0 else 0):
        if progress:
            progress(number / resamples)
        losses = fitted + scale * random.choice(residuals, len(points))
        resampled.append(search.optimize(best, losses, BOOTSTRAP_STEPS)[0])
    if progress:
        progress(1.0)
    return FittedLaw(
        law,
        search.constants(best),
        tuple(map(search.constants, resampled)),
        tuple(constant.name for constant in search.free),
        domain_of(points),
        len(points),
        float(np.sqrt(np.mean((np.exp(fitted) - points.loss) ** 2))),
        search.at_bounds(best),
    )


def check(law: Law, points: Points) -> None:
    """Raise CannotFit if the points do not determine the law."""
    needed = len(free_constants(law, points))
    design = np.stack([points.params, points.tokens, points.fraction, points.repeats])
    distinct = np.unique(design, axis=1).shape[1] if len(points) else 0
    kind = "clean runs" if law.clean_only else "runs"
    if not points.clean.any():
        raise CannotFit("needs clean runs, found none")
    if distinct < needed:
        raise CannotFit(f"needs at least {needed} different {kind} for its {needed} constants, found {distinct}")
    sizes = len(np.unique(points.params[points.clean]))
    if sizes < 3:
        raise CannotFit(f"needs clean runs of at least three sizes, found {sizes}")
    if not law.clean_only and law.ignores_fraction and len(np.unique(points.fraction[~points.clean])) > 1:
        raise CannotFit("does not depend on the repeated fraction, but the runs have several fractions")
    if not law.clean_only and len(np.unique(points.repeats)) < 4:
        raise CannotFit(f"needs runs at three or more R above 1, found {len(np.unique(points.repeats[~points.clean]))}")


def free_constants(law: Law, points: Points) -> tuple[Constant, ...]:
    """The constants that these points can determine."""

    def varies(column: str) -> bool:
        values = getattr(points, column) if column != "fraction" else points.fraction[~points.clean]
        return len(np.unique(values)) > 1

    return tuple(constant for constant in law.constants if not constant.needs_several or varies(constant.needs_several))


@dataclass(frozen=True)
class _Search:
    """The optimization problem, in units that make every parameter of order one.

    theta: the fitted parameters, shape [free] or [rows, free]. A positive constant is replaced by its logarithm. A coefficient is
    first multiplied by its powers of N and T, evaluated at the geometric mean of the points.
    """

    law: Law
    points: Points
    free: tuple[Constant, ...]
    fixed: dict[str, float]
    mean: dict[str, float]  # geometric means of params and tokens

    @classmethod
    def of(cls, law: Law, points: Points) -> "_Search":
        free = free_constants(law, points)
        defaults = {constant.name: constant.default for constant in law.constants if constant not in free}
        mean = {name: float(np.exp(np.log(getattr(points, name)).mean())) for name in ("params", "tokens")}
        return cls(law, points, free, dict(law.fixed) | defaults, mean)

    def constants(self, theta: Floats) -> dict[str, Any]:
        """Convert theta to the law's constants: numbers for shape [free], columns [rows, 1] for shape [rows, free]."""
        columns = theta[..., None] if theta.ndim > 1 else theta
        values: dict[str, Any] = dict(self.fixed)
        for place, constant in enumerate(self.free):
            value = columns[:, place] if theta.ndim > 1 else columns[place]
            values[constant.name] = np.exp(value) if constant.positive else value
        for constant in self.free:
            for power in constant.multiplies:
                factor = self.mean[power.column] ** (-power.sign * values[power.exponent])
                values[constant.name] = values[constant.name] * factor
        return values

    def predicted(self, theta: Floats) -> Floats:
        """Predicted log loss, shape [points] or [rows, points]. Non-finite values are replaced with ±MAX_LOG_LOSS."""
        with np.errstate(all="ignore"):
            log_loss = np.log(self.law.loss(self.constants(theta), self.points))
        return np.nan_to_num(log_loss, nan=MAX_LOG_LOSS, posinf=MAX_LOG_LOSS, neginf=-MAX_LOG_LOSS)

    def jacobian(self, theta: Floats) -> Floats:
        """Derivatives of the predicted log loss, [points, free]. A single vectorized call for all columns keeps fits fast."""
        stepped = self.predicted(np.vstack([theta, theta + STEP * np.eye(len(theta))]))
        return (stepped[1:] - stepped[0]).T / STEP

    def optimize(self, start: Floats, measured: Floats, steps: int) -> tuple[Floats, float]:
        """Optimize from one starting point with at most `steps` evaluations. Returns the parameters and their cost."""
        low, high = self._bounds()
        result = least_squares(
            lambda theta: self.predicted(theta) - measured,
            np.clip(start, low + 1e-6, high - 1e-6),
            jac=self.jacobian,
            bounds=(low, high),
            loss="huber",
            f_scale=HUBER_DELTA,
            max_nfev=steps,
        )
        return result.x, float(result.cost)

    def best(self, measured: Floats) -> Floats:
        """Find the best fit. Evaluates a grid of starting points, optimizes the best few briefly, and continues from the best result."""
        grid = ([self._theta(constant, start) for start in constant.starts] for constant in self.free)
        starts = np.array(list(product(*grid)))
        cost = np.abs(self.predicted(starts) - measured).sum(axis=1)
        nearest = starts[np.argsort(cost, kind="stable")[:BEST_STARTS]]
        candidates = sorted((self.optimize(start, measured, 20) for start in nearest), key=lambda result: result[1])
        return self.optimize(candidates[0][0], measured, 400)[0]

    def at_bounds(self, theta: Floats) -> tuple[str, ...]:
        """Names of the constants that stopped at a bound."""
        low, high = self._bounds()
        near = (theta - low < NEAR_BOUND) | (high - theta < NEAR_BOUND)
        return tuple(constant.name for constant, is_near in zip(self.free, near, strict=True) if is_near)

    def _bounds(self) -> tuple[Floats, Floats]:
        low = np.array([self._theta(constant, constant.low) for constant in self.free])
        high = np.array([self._theta(constant, constant.high) for constant in self.free])
        return low, high

    @staticmethod
    def _theta(constant: Constant, value: float) -> float:
        return float(np.log(value)) if constant.positive else value
