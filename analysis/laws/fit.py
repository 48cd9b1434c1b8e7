"""Fit a law to runs, with intervals for its constants and its predictions.

The interval of a prediction has three sources: the uncertainty of the constants (including their priors), the scatter of the runs, and
the error of the formula. The third one is measured: the law is fitted without one group of sizes or one range of R at a time, and the
intervals are widened until they contain 95% of the runs that were left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.intervals import percentile_interval
from analysis.laws.estimate import STEP, CannotFit, Problem, check, covariance, solve
from analysis.laws.law import Constants, Domain, Law, domain_of
from analysis.laws.leave_out import OF_NEW_SIZES, Fold, folds
from analysis.laws.pairing import CleanLaw, clean_law, with_controls
from analysis.laws.points import Floats, Points, scaled, unscaled

__all__ = ["CannotFit", "FittedLaw", "fit"]

MOSTLY_PRIOR = 0.8  # a constant comes mostly from its prior if the runs leave at least this share of the prior's width
NOT_DETERMINED = "not determined: at a bound of the search"
RESAMPLES = 200
LEVEL = 0.95
NORMAL_95 = 1.96
SMALLEST_WIDTH = (
    2.5  # in standard deviations; a normal error needs 1.96, but errors of held-out runs have heavier tails
)
UNMEASURED_WIDTH = 4.0  # half-width in standard deviations if too few runs can be left out to measure it
MOST_SIZE_FOLDS = 4
NOISE_WIDTH = 2.0  # half-width in standard deviations for the scatter between runs
NOISE_SHARE = 0.4  # form error of small penalties, as a share of the scatter between runs
NEAR_BOUND = 1e-2  # in the units of theta, which are logarithms or exponents
SMALLEST_NOISE = 0.02  # on the scale of `points.scaled`
SMALL = 0.4  # tanh of a scaled penalty below which the scatter between runs dominates
FEWEST_TO_MEASURE = 5
NEAR = 2.0  # a point is near a run if its N, T, f and R differ by no more than this factor
SMALLEST_SHARE = 1e-9  # avoids log(0)

Progress = Callable[[float], None]  # called with the share of the work that is done, from 0 to 1
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Spread:
    """The error of predictions on the scale of `points.scaled`, apart from the uncertainty of the constants.

    noise: standard deviation for small penalties, which is the scatter between runs. relative: additional standard deviation for large
    penalties, as a relative error. widths: by kind of fold, the half-width of a 95% interval in standard deviations, measured by
    leaving runs out.
    """

    noise: float
    relative: float
    widths: dict[str, float]

    def half_width(self, width: Floats | float, predicted: Floats, distance: Floats, constants: Floats) -> Floats:
        """Half-width of the interval of predicted penalties on the scale of `points.scaled`.

        width: in standard deviations. distance: from the runs in the fit. constants: variance due to the constants. The scatter between
        runs is measured directly, so only the other terms are widened.
        """
        return np.sqrt(self._scatter(distance) + width**2 * self._uncertain(predicted, distance, constants))

    def standardized(self, error: Floats, predicted: Floats, distance: Floats, constants: Floats) -> Floats:
        """The `width` at which the interval just contains an error."""
        beyond = np.maximum(error**2 - self._scatter(distance), 0.0)
        return np.sqrt(beyond / self._uncertain(predicted, distance, constants))

    def _scatter(self, distance: Floats) -> Floats:
        return (NOISE_WIDTH * self.noise) ** 2 * np.ones_like(distance)

    def _uncertain(self, predicted: Floats, distance: Floats, constants: Floats) -> Floats:
        form = (self.relative * np.tanh(predicted)) ** 2 + (NOISE_SHARE * self.noise) ** 2
        return form * (1 + distance**2) + constants

    def width(self, new_size: Mask, new_repeats: Mask) -> Floats:
        """Half-width of a 95% interval in standard deviations.

        new_size: whether the fit contains no run of this size. new_repeats: whether it contains no run near this R. A wrong formula
        errs most there, and folds cannot measure it, because they leave out less.
        """
        measured = max([SMALLEST_WIDTH, *self.widths.values()]) if self.widths else UNMEASURED_WIDTH
        extrapolated = measured if OF_NEW_SIZES & self.widths.keys() else max(measured, UNMEASURED_WIDTH)
        return np.where(new_repeats, max(measured, UNMEASURED_WIDTH), np.where(new_size, extrapolated, measured))


@dataclass(frozen=True)
class SubsetFit:
    """A fit to some of a problem's runs, and the error of its predictions."""

    problem: Problem
    used: Mask
    theta: Floats
    covariance: Floats
    spread: Spread
    failed_starts: float

    @property
    def widened(self) -> float:
        """How much wider the intervals are than the constants and the scatter alone would make them."""
        return max([NORMAL_95, *self.spread.widths.values()]) / NORMAL_95

    def drawn(self, number: int, seed: int = 0) -> list[dict[str, float]]:
        """Constants drawn from their joint uncertainty."""
        # A Cholesky factor changes little if the covariance does. Singular vectors can change sign, and reports would not be reproducible.
        factor = np.linalg.cholesky(self.covariance + 1e-12 * np.eye(len(self.theta))) * self.widened
        normal = np.random.default_rng(seed).standard_normal((number, len(self.theta)))
        return [self.problem.numbers(row) for row in np.clip(self.theta + normal @ factor.T, *self.problem.bounds())]

    def penalty(self, points: Points) -> Floats:
        """Predicted penalty in nats."""
        return self.problem.penalty(self.theta, points)

    def interval(self, points: Points, clean: Floats) -> tuple[Floats, Floats]:
        """The ends of the 95% interval of the penalty that a new run would have, in nats. clean: loss of a clean run."""
        stepped = scaled(self.problem.penalty(steps(self.theta), points), clean)
        runs = self.problem.points[self.used]
        new_repeats = _beyond(points.repeats, runs[~runs.clean].repeats) > 0
        width = self.spread.width(~np.isin(points.params, runs.params), new_repeats)
        uncertain = prediction_variance(stepped, self.covariance)
        half = self.spread.half_width(width, stepped[0], distance(points, runs), uncertain)
        return unscaled(stepped[0] - half, clean), unscaled(stepped[0] + half, clean)


@dataclass(frozen=True)
class FittedLaw:
    """A law with its best-fitting constants."""

    law: Law
    fitted: SubsetFit
    constants: Constants
    resamples: tuple[Constants, ...]  # constants drawn from their joint uncertainty
    domain: Domain
    points: int
    error: float  # root mean square of predicted - measured penalty (loss, for a clean law), nats
    median_error: float  # median absolute difference, nats
    undetermined: tuple[str, ...] = ()  # names of the constants that stopped at a bound of the search
    clean: CleanLaw | None = None  # the law of the clean runs, if `law` does not describe them

    @property
    def free(self) -> tuple[str, ...]:
        """Names of the fitted constants."""
        return self.fitted.problem.names

    @property
    def mostly_prior(self) -> tuple[str, ...]:
        """Names of the constants whose standard deviation is at least MOSTLY_PRIOR of their prior's."""
        _, precision = self.fitted.problem.priors()
        share = np.sqrt(np.diag(self.fitted.covariance)) * precision  # 0 without a prior
        return tuple(name for name, each in zip(self.free, share, strict=True) if each >= MOSTLY_PRIOR)

    def clean_loss(self, points: Points) -> Floats:
        """Predicted loss of clean runs of the same size and tokens, in nats; NaN if there is no clean law."""
        if self.law.clean_loss:
            return self.fitted.problem.clean_loss(self.fitted.theta, points.as_clean())
        return np.full(points.params.shape, np.nan) if self.clean is None else self.clean.loss(points)

    def penalty(self, points: Points) -> Floats:
        """Predicted loss above a clean run of the same size and tokens, in nats."""
        return self.fitted.penalty(points)

    def penalty_interval(self, points: Points, clean: Floats | None = None) -> tuple[Floats, Floats]:
        """The ends of the 95% interval of the penalty that a new run would have. clean: loss of clean runs, if known; nats."""
        return self.fitted.interval(points, self.clean_loss(points) if clean is None else clean)

    def loss(self, points: Points) -> Floats:
        """Predicted loss in nats per token; NaN if there is no clean law."""
        return self.clean_loss(points) + self.penalty(points)

    def interval(self, name: str) -> tuple[float, float]:
        """95% interval of a constant; NaN without resamples."""
        return percentile_interval([constants[name] for constants in self.resamples])


def fit(
    law: Law, points: Points, resamples: int = RESAMPLES, seed: int = 0, progress: Progress | None = None
) -> FittedLaw:
    """Fit a law to these runs: a law of repetition to their penalties, a clean law to the losses of clean runs.

    Repeated runs without a control are compared with the clean runs of the same size and tokens, see `pairing.paired`.
    resamples: how many times to draw the constants from their joint uncertainty. With 0, runs are not left out to measure intervals.
    Raises CannotFit if the points do not determine the law.
    """
    report = progress or (lambda share: None)
    report(0.0)
    points = points[points.clean] if law.clean_only else with_controls(points)
    check(law, points)
    (fitted,) = fit_subsets(law, points, [np.ones(len(points), bool)], measure=resamples > 0)
    report(0.8)
    problem, theta = fitted.problem, fitted.theta
    drawn = fitted.drawn(resamples, seed)
    low, high = problem.bounds()
    errors = _errors(problem, theta)
    near = (theta - low < NEAR_BOUND) | (high - theta < NEAR_BOUND)
    result = FittedLaw(
        law,
        fitted,
        problem.numbers(theta),
        tuple(drawn),
        domain_of(points),
        len(points),
        float(np.sqrt(np.mean(errors**2))),
        float(np.median(np.abs(errors))),
        tuple(name for name, is_near in zip(problem.names, near, strict=True) if is_near),
        None if law.clean_loss else clean_law(points),
    )
    report(1.0)
    return result


def fit_subsets(law: Law, points: Points, subsets: Sequence[Mask], measure: bool = True) -> list[SubsetFit]:
    """Fit a law to several subsets of the runs. All fits run at the same time, including those that measure the intervals.

    points: repeated runs need controls. measure: whether to leave out runs of each subset to measure the width of intervals.
    """
    problem = Problem.of(law, points)
    weights = np.array(subsets, float)
    outer = solve(problem, weights)
    fits = []
    for row, used in enumerate(subsets):
        theta, sigma = outer.theta[row], float(outer.sigma[row])
        spread = Spread(sigma, 0.0, {}) if law.clean_only else scatter(problem, theta, sigma, used)
        if measure and not law.clean_only:
            spread = _measured(problem, theta, used, spread)
        uncertainty = covariance(problem, theta, sigma, weights[row])
        fits.append(SubsetFit(problem, used, theta, uncertainty, spread, float(outer.failed[row])))
    return fits


def scatter(problem: Problem, theta: Floats, sigma: float, used: Mask) -> Spread:
    """Split the scatter of the residuals into noise and a relative error. Outliers count as three standard deviations."""
    repeated = used & ~problem.points.clean
    runs = problem.points[repeated]
    assert runs.control is not None
    squares = np.minimum(np.abs(problem.residuals(theta[None])[0][repeated]), 3 * sigma) ** 2
    relative = np.tanh(np.abs(scaled(problem.penalty(theta, runs), runs.control)))
    small = relative < SMALL
    # If all penalties are large, the scatter between runs cannot be told from the error of the formula.
    noise = np.sqrt(squares[small].mean()) if small.sum() >= FEWEST_TO_MEASURE else np.sqrt(squares.mean()) / 2
    noise = max(float(noise), SMALLEST_NOISE)
    if (~small).sum() < FEWEST_TO_MEASURE:
        return Spread(noise, noise, {})
    excess = max(0.0, float(squares[~small].mean()) - noise**2)
    return Spread(noise, float(np.sqrt(excess / np.mean(relative[~small] ** 2))), {})


def _measured(problem: Problem, theta: Floats, used: Mask, spread: Spread) -> Spread:
    """Measure the widths: fit without each fold, predict it, and take the 95% quantile of the standardized errors."""
    chosen = np.flatnonzero(used)
    left_out: list[Fold] = folds(problem.points[used], MOST_SIZE_FOLDS)
    if not left_out:
        return spread
    weights = np.tile(used.astype(float), (len(left_out), 1))
    for row, fold in enumerate(left_out):
        weights[row, chosen[fold.dropped]] = 0.0
    solutions = solve(problem, weights, theta)
    errors: dict[str, list[Floats]] = {}
    for row, fold in enumerate(left_out):
        runs = problem.points[chosen[fold.test]]
        assert runs.control is not None
        stepped = scaled(problem.penalty(steps(solutions.theta[row]), runs), runs.control)
        constants = covariance(problem, solutions.theta[row], float(solutions.sigma[row]), weights[row])
        away = distance(runs, problem.points[weights[row] > 0])
        error = stepped[0] - scaled(runs.penalty, runs.control)
        width = spread.standardized(error, stepped[0], away, prediction_variance(stepped, constants))
        errors.setdefault(fold.kind, []).append(width)
    widths = {}
    for kind, listed in errors.items():
        together = np.concatenate(listed)
        widths[kind] = float(np.quantile(together, min(1.0, LEVEL * (1 + 1 / len(together)))))
    return Spread(spread.noise, spread.relative, widths)


def distance(points: Points, runs: Points) -> Floats:
    """How far each point is from the nearest repeated run in N, T, f and R, in factors of e beyond a factor of NEAR."""
    repeated = runs[~runs.clean]
    total = np.zeros(points.params.shape)
    for column in ("params", "tokens", "fraction", "repeats"):
        total += _beyond(getattr(points, column), getattr(repeated, column)) ** 2
    return np.sqrt(total)


def _beyond(asked: Floats, tried: Floats) -> Floats:
    """How far each value is from the nearest of `tried`, in factors of e beyond a factor of NEAR."""
    logs = np.log(np.unique(np.maximum(tried, SMALLEST_SHARE)))
    nearest = np.abs(np.log(np.maximum(asked, SMALLEST_SHARE))[..., None] - logs).min(-1)
    return np.maximum(nearest - np.log(NEAR), 0.0)


def steps(theta: Floats) -> Floats:
    """Theta, and theta with each parameter increased by STEP, [1 + free, free]."""
    return np.vstack([theta, theta + STEP * np.eye(len(theta))])


def prediction_variance(stepped: Floats, covariance_: Floats) -> Floats:
    """Variance of predictions due to the constants. stepped: predictions at `steps`, [1 + free, points]."""
    jacobian = (stepped[1:] - stepped[0]) / STEP
    return np.maximum(np.einsum("fp,fg,gp->p", jacobian, covariance_, jacobian), 0.0)


def _errors(problem: Problem, theta: Floats) -> Floats:
    """Predicted minus measured penalty of repeated runs, or loss for a clean law, in nats."""
    points = problem.points
    if problem.law.clean_only:
        return problem.clean_loss(theta, points) - points.loss
    repeated = points[~points.clean]
    return problem.penalty(theta, repeated) - repeated.penalty
