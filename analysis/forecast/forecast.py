"""Forecast one planned run with one law: the penalty, its equivalent in model size and compute, and the harmful and safe ranges of R."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from analysis.forecast.predictors import Predictor
from analysis.intervals import NAN, UNKNOWN, Estimate, percentile_band, percentile_interval
from analysis.laws.points import Floats, Points, prediction_points

SAFE = 0.9  # R is safe if the effective size is at least this share of the actual size
SMALLEST_POOL = 1000.0  # tokens; the grid of R ends when the pool is this small
MOST_REPEATS = 1e6
GRID_PER_DECADE = 60
FADED_UP_TO = 2.0  # a law's jump at R = 1 is faded in from R = 1 to this R
JUST_ABOVE_1 = 1.0 + 1e-9
SIZE_SHARES = np.geomspace(1e-6, 1.0, 1201)  # candidates for the effective size, as shares of the actual size
SMALLEST_PENALTY = 1e-4  # nats; a curve that stays below this has no worst R
# The loss in nats of a uniform guess over 2^18 tokens, which is about as large as vocabularies get. No published law was fitted on higher
# losses.
LARGEST_LOSS = float(np.log(2**18))
OVERFLOW = 1e6  # nats; replaces losses that are larger or not finite

Loss = Callable[[Points], Floats]


@dataclass(frozen=True)
class Question:
    """A planned run. Without `repeats`, every law is evaluated at its own worst R.

    Either the fraction is the same for every R and the subset shrinks as R grows, or the subset has `subset_tokens` tokens for every R
    and the fraction f = R·D/T grows.
    """

    params: float
    tokens: float
    fraction: float = NAN  # NaN if it follows from subset_tokens
    repeats: float | None = None
    subset_tokens: float | None = None

    def fraction_at(self, repeats: npt.ArrayLike) -> npt.ArrayLike:
        """The repeated fraction f at each R."""
        if self.subset_tokens is None:
            return self.fraction
        return np.asarray(repeats, float) * self.subset_tokens / self.tokens

    @property
    def listed_repeats(self) -> list[float]:
        """The values of R to list for a subset of fixed size. The last one can exceed `most_repeats`."""
        if self.repeats is not None:
            return [self.repeats]
        decades = range(int(np.log10(MOST_REPEATS)) + 1)
        series = [float(digit * 10**decade) for decade in decades for digit in (1, 2, 5)]
        within = [repeats for repeats in series if repeats <= self.most_repeats]
        return [repeats for repeats in series[: len(within) + 1] if repeats <= MOST_REPEATS]

    @property
    def most_repeats(self) -> float:
        """The largest R on the grid."""
        if self.subset_tokens is not None:
            return min(MOST_REPEATS, self.tokens / self.subset_tokens)
        return max(2.0, self.repeats or 0.0, min(MOST_REPEATS, self.fraction * self.tokens / SMALLEST_POOL))


@dataclass(frozen=True)
class Curve:
    """Penalty in nats and size multiplier (effective size over size) on a grid of R."""

    repeats: Floats
    penalty: Floats
    multiplier: Floats

    @property
    def worst(self) -> int | None:
        """Index of the largest penalty; None if it is negligible, comes too early, or is not followed by a fall of more than 1%."""
        return int(self.penalty.argmax()) if self._has_peak and not self.peaks_too_early else None

    @property
    def peaks_too_early(self) -> bool:
        """Whether the peak is so close to R = 1, where the jump is faded in, that its location is meaningless."""
        return self._has_peak and float(self.repeats[int(self.penalty.argmax())]) <= 1.02 * FADED_UP_TO

    @property
    def _has_peak(self) -> bool:
        largest = self.penalty.max()
        return bool(self.penalty[-1] < 0.99 * largest and largest > SMALLEST_PENALTY)

    def harmful(self) -> tuple[float, float]:
        """The range of R around the worst R in which log(1/multiplier) is at least half its value at the worst R.

        If the range reaches the end of the grid, its upper end is infinite.
        """
        loss = -np.log(self.multiplier)
        peak = int(self.penalty.argmax())
        half = loss[peak] / 2
        below, above = np.flatnonzero(loss[:peak] < half), np.flatnonzero(loss[peak:] < half)
        low = self._crossing(loss, below[-1], half) if len(below) else 1.0
        return low, self._crossing(loss, peak + above[0] - 1, half) if len(above) else float("inf")

    def safe(self) -> tuple[float, float]:
        """Two values of R: the multiplier is at least SAFE up to the first, and again from the second on.

        If every R is safe, the values are infinity and 1. If the multiplier never recovers, the second is infinite.
        """
        loss, limit = -np.log(self.multiplier), -np.log(SAFE)
        unsafe = np.flatnonzero(loss > limit)
        if not len(unsafe):
            return float("inf"), 1.0
        last = unsafe[-1]
        safe_from = self._crossing(loss, last, limit) if last + 1 < len(loss) else float("inf")
        return self._crossing(loss, unsafe[0] - 1, limit) if unsafe[0] else 1.0, safe_from

    def _crossing(self, values: Floats, index: int, level: float) -> float:
        """The R at which `values` cross `level` after the grid point `index`, interpolated in log R."""
        share = (level - values[index]) / (values[index + 1] - values[index])
        return float(self.repeats[index] * (self.repeats[index + 1] / self.repeats[index]) ** share)


@dataclass(frozen=True)
class Forecast:
    """One law's forecast. Penalties are in nats; `worst` and `harmful` are NaN without an interior worst R."""

    predictor: Predictor
    repeats: float  # from the question, or the law's worst R
    clean_loss: float
    penalty: Estimate
    multiplier: Estimate
    # The smallest size that the law was fitted on, as a share of the planned size. A smaller multiplier is reported as a bound. 0 if
    # the planned size is no larger than that.
    smallest_multiplier: float
    lost_compute: float  # share of the compute; NaN if all runs in the fit have the same number of tokens
    worst: Estimate
    harmful: tuple[Estimate, Estimate]  # first and last R
    safe_up_to: Estimate
    safe_from: Estimate
    curve: Curve
    penalty_band: tuple[Floats, Floats] | None  # 95% interval along the curve
    outside: list[str]  # values in the question that are outside the range of the fit
    jump: float  # jump of the law just above R = 1 in nats, before it is faded in

    @property
    def limit(self) -> float:
        """The largest credible penalty in nats: a larger one would raise the loss above LARGEST_LOSS."""
        return max(0.0, LARGEST_LOSS - self.clean_loss)

    def is_beyond(self, penalty: float) -> bool:
        """Whether a penalty exceeds `limit` or is NaN."""
        return not self.clean_loss + penalty <= LARGEST_LOSS


def forecast(predictor: Predictor, question: Question) -> Forecast:
    """Forecast a planned run with one law. The 95% intervals come from the law's resamples or its noise."""
    top = question.most_repeats
    grid = np.geomspace(1.0, top, max(2, round(GRID_PER_DECADE * np.log10(top)) + 1))
    loss = _continuous(predictor.loss)
    resampled_losses = [_continuous(resampled) for resampled in predictor.resampled_losses]
    curve = _curve(loss, question, grid)
    resampled = [_curve(resampled_loss, question, grid) for resampled_loss in resampled_losses]
    repeats = question.repeats or float(grid[int(curve.penalty.argmax())])
    penalty, multiplier = penalty_at(predictor, question, repeats)

    def edges(edges_of: Callable[[Curve], tuple[float, float]]) -> tuple[Estimate, Estimate]:
        values, resamples = edges_of(curve), np.array([edges_of(resample) for resample in resampled]).reshape(-1, 2)
        low, high = (_estimate(values[edge], resamples[:, edge], keep_infinite=True) for edge in (0, 1))
        return low, high

    clean_loss = float(loss(prediction_points(question.params, question.tokens, 0.0, 1.0)))
    # A peak that is too high to be credible is an artifact of the formula.
    worst = None if clean_loss + curve.penalty.max() > LARGEST_LOSS else curve.worst
    safe_up_to, safe_from = edges(Curve.safe)
    smallest = predictor.domain.params[0] / question.params
    asked = np.array([repeats])
    if question.subset_tokens is not None:  # a run with R = 1 is clean for every f
        asked = np.array([each for each in question.listed_repeats if 1 < each <= top] or [repeats])
    just_above = prediction_points(question.params, question.tokens, question.fraction_at(JUST_ABOVE_1), JUST_ABOVE_1)
    return Forecast(
        predictor=predictor,
        repeats=repeats,
        clean_loss=clean_loss,
        penalty=penalty,
        multiplier=multiplier,
        smallest_multiplier=smallest if smallest < 1 else 0.0,
        lost_compute=_lost_compute(loss, question, repeats) if predictor.varied_tokens else float("nan"),
        worst=UNKNOWN
        if worst is None
        else _estimate(float(grid[worst]), [_worst_repeats(each) for each in resampled], True),
        harmful=(UNKNOWN, UNKNOWN) if worst is None else edges(Curve.harmful),
        safe_up_to=safe_up_to,
        safe_from=safe_from,
        curve=curve,
        penalty_band=_band(curve, resampled),
        outside=predictor.domain.outside(question.params, question.tokens, question.fraction_at(asked), asked),
        jump=float(_finite(predictor.loss(just_above))) - clean_loss,
    )


def penalty_at(predictor: Predictor, question: Question, repeats: float) -> tuple[Estimate, Estimate]:
    """The penalty in nats and the multiplier at one R. The 95% intervals come from the law's resamples or its noise."""
    loss = _continuous(predictor.loss)
    penalty, multiplier = _at(loss, question, repeats)
    if predictor.noise:
        around = [_at(_shifted(loss, sign * predictor.noise(repeats)), question, repeats) for sign in (-1, 1)]
    else:
        around = [_at(_continuous(resampled), question, repeats) for resampled in predictor.resampled_losses]
    return (
        _estimate(penalty, [penalty for penalty, _ in around]),
        _estimate(multiplier, [multiplier for _, multiplier in around]),
    )


def _estimate(value: float, resamples: npt.ArrayLike, keep_infinite: bool = False) -> Estimate:
    """A value with its percentile interval, which is widened if it does not contain the value."""
    low, high = percentile_interval(resamples, keep_infinite)
    return Estimate(value, min(low, value), max(high, value)) if low == low else Estimate(value)


def _band(curve: Curve, resampled: list[Curve]) -> tuple[Floats, Floats] | None:
    """95% interval of the penalty at every R, widened where it does not contain the curve; None without resamples."""
    if not resampled:
        return None
    low, high = percentile_band([resample.penalty for resample in resampled])
    return np.minimum(low, curve.penalty), np.maximum(high, curve.penalty)


def _worst_repeats(curve: Curve) -> float:
    """The worst R, or infinity if there is none. If many resamples have none, the interval has no finite upper end."""
    return float("inf") if curve.worst is None else float(curve.repeats[curve.worst])


def _finite(losses: Floats) -> Floats:
    """Losses capped at OVERFLOW, which also replaces non-finite values."""
    return np.minimum(np.nan_to_num(losses, nan=OVERFLOW, posinf=OVERFLOW), OVERFLOW)


def _continuous(loss: Loss) -> Loss:
    """Fade in the law's jump at R = 1 gradually, up to FADED_UP_TO. The jump exists because a Gaussian in log R is never 0."""

    def continuous(points: Points) -> Floats:
        losses = _finite(loss(points))
        fade = np.clip(1 - np.log(points.repeats) / np.log(FADED_UP_TO), 0.0, 1.0)
        if not fade.any() or points.clean.all():
            return losses
        just_above = replace(points, repeats=np.where(points.clean, 1.0, JUST_ABOVE_1))
        clean = _finite(loss(points.as_clean()))
        jump = _finite(loss(just_above)) - clean
        return np.maximum(losses - np.maximum(jump, 0.0) * fade, np.minimum(losses, clean))

    return continuous


def _curve(loss: Loss, question: Question, grid: Floats) -> Curve:
    points = prediction_points(question.params, question.tokens, question.fraction_at(grid), grid)
    losses, clean = loss(points), loss(points.as_clean())
    by_size = loss(prediction_points(question.params * SIZE_SHARES, question.tokens, 0.0, 1.0))
    # The clean loss falls with size, but np.interp needs increasing values.
    multiplier = np.exp(np.interp(losses, by_size[::-1], np.log(SIZE_SHARES)[::-1]))
    return Curve(grid, losses - clean, np.where(losses <= clean, 1.0, multiplier))


def _at(loss: Loss, question: Question, repeats: float) -> tuple[float, float]:
    """Penalty and multiplier at one R."""
    curve = _curve(loss, question, np.array([repeats]))
    return float(curve.penalty[0]), float(curve.multiplier[0])


def _shifted(loss: Loss, nats: float) -> Loss:
    """The same law with `nats` added to the loss of repeated runs."""
    return lambda points: loss(points) + nats * (points.repeats > 1)


def _lost_compute(law: Loss, question: Question, repeats: float) -> float:
    """The share of compute that a clean run with the same loss and the same number of tokens per parameter would save."""
    loss = float(law(prediction_points(question.params, question.tokens, question.fraction_at(repeats), repeats)))
    scaled = law(prediction_points(question.params * SIZE_SHARES, question.tokens * SIZE_SHARES, 0.0, 1.0))
    return 1 - float(np.exp(np.interp(loss, scaled[::-1], np.log(SIZE_SHARES)[::-1]))) ** 2
