"""What a law predicts for one planned run: the penalty, its worth in model size or compute, dangerous and safe R."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from analysis.forecast.predictors import Predictor
from analysis.intervals import UNKNOWN, Estimate, percentile_band, percentile_interval
from analysis.laws.points import Floats, Points, prediction_points

SAFE = 0.9  # R is safe if the effective size is at least this share of the size
SMALLEST_POOL = 1000.0  # tokens; the grid of R ends where the pool gets this small
MOST_REPEATS = 1e6
GRID_PER_DECADE = 60
SIZE_SHARES = np.geomspace(1e-6, 1.0, 1201)  # candidate effective sizes, as shares of the size
SMALLEST_PENALTY = 1e-4  # nats; a curve that stays below has no worst R


@dataclass(frozen=True)
class Question:
    """A planned run: sizes in parameters and tokens. Without `repeats`, each law is asked about its worst R."""

    params: float
    tokens: float
    fraction: float
    repeats: float | None = None

    @property
    def most_repeats(self) -> float:
        """The largest R of the grid."""
        return max(2.0, self.repeats or 0.0, min(MOST_REPEATS, self.fraction * self.tokens / SMALLEST_POOL))


@dataclass(frozen=True)
class Curve:
    """Penalty in nats and size multiplier (effective size over size) on a grid of R."""

    repeats: Floats
    penalty: Floats
    multiplier: Floats

    @property
    def worst(self) -> int | None:
        """Index of the largest penalty; None if it is negligible or not followed by a fall of at least 1%."""
        peak = int(self.penalty.argmax())
        is_interior = self.penalty[-1] < 0.99 * self.penalty[peak]
        return peak if is_interior and self.penalty[peak] > SMALLEST_PENALTY else None

    def dangerous(self) -> tuple[float, float]:
        """Range of R around the worst one with at least half of the largest log size loss; infinite if it never ends."""
        loss = -np.log(self.multiplier)
        peak = int(self.penalty.argmax())
        half = loss[peak] / 2
        below, above = np.flatnonzero(loss[:peak] < half), np.flatnonzero(loss[peak:] < half)
        low = self._crossing(loss, below[-1], half) if len(below) else 1.0
        return low, self._crossing(loss, peak + above[0] - 1, half) if len(above) else float("inf")

    def safe(self) -> tuple[float, float]:
        """R up to which, and R from which, the multiplier is at least SAFE; infinite for never (again)."""
        loss, limit = -np.log(self.multiplier), -np.log(SAFE)
        unsafe = np.flatnonzero(loss > limit)
        if not len(unsafe):
            return float("inf"), 1.0
        last = unsafe[-1]
        safe_from = self._crossing(loss, last, limit) if last + 1 < len(loss) else float("inf")
        return self._crossing(loss, unsafe[0] - 1, limit) if unsafe[0] else 1.0, safe_from

    def _crossing(self, values: Floats, index: int, level: float) -> float:
        """R between this grid point and the next where the values cross a level, interpolated in log R."""
        share = (level - values[index]) / (values[index + 1] - values[index])
        return float(self.repeats[index] * (self.repeats[index + 1] / self.repeats[index]) ** share)


@dataclass(frozen=True)
class Forecast:
    """What one law predicts. Penalties in nats, sizes as shares; `worst` and `dangerous` are NaN without an interior worst R."""

    predictor: Predictor
    repeats: float  # of the question, or the worst one
    clean_loss: float
    penalty: Estimate
    multiplier: Estimate
    # The smallest size that the law was fitted on, as a share of the size; a smaller multiplier is only a bound. 0 if the
    # size itself is smaller.
    smallest_multiplier: float
    lost_compute: float  # share of the compute; NaN if the law cannot tell
    worst: Estimate
    dangerous: tuple[Estimate, Estimate]  # first and last R
    safe_up_to: Estimate
    safe_from: Estimate
    curve: Curve
    penalty_band: tuple[Floats, Floats] | None  # 95% interval along the curve
    outside: list[str]  # parts of the question outside the range that the law was fitted on


def forecast(predictor: Predictor, question: Question) -> Forecast:
    """What a law predicts for a question, with 95% intervals from its resamples or its noise."""
    top = question.most_repeats
    grid = np.geomspace(1.0, top, max(2, round(GRID_PER_DECADE * np.log10(top)) + 1))
    curve = _curve(predictor.loss, question, grid)
    resampled = [_curve(loss, question, grid) for loss in predictor.resampled_losses]
    worst = curve.worst
    repeats = question.repeats or float(grid[int(curve.penalty.argmax())])
    penalty, multiplier = _at(predictor.loss, question, repeats)
    if predictor.noise:
        around = [_shifted(predictor, question, repeats, sign * predictor.noise(repeats)) for sign in (-1, 1)]
    else:
        around = [_at(loss, question, repeats) for loss in predictor.resampled_losses]
    resampled_worst = [float("nan") if curve.worst is None else float(grid[curve.worst]) for curve in resampled]

    def edges(edges_of: Callable[[Curve], tuple[float, float]]) -> tuple[Estimate, Estimate]:
        values, resamples = edges_of(curve), np.array([edges_of(one) for one in resampled]).reshape(-1, 2)
        low, high = (
            Estimate(values[side], *percentile_interval(resamples[:, side], keep_infinite=True)) for side in (0, 1)
        )
        return low, high

    safe_up_to, safe_from = edges(Curve.safe)
    smallest = predictor.domain.params[0] / question.params
    return Forecast(
        predictor=predictor,
        repeats=repeats,
        clean_loss=float(predictor.loss(prediction_points(question.params, question.tokens, 0.0, 1.0))),
        penalty=Estimate(penalty, *percentile_interval([penalty for penalty, _ in around])),
        multiplier=Estimate(multiplier, *percentile_interval([multiplier for _, multiplier in around])),
        smallest_multiplier=smallest if smallest < 1 else 0.0,
        lost_compute=_lost_compute(predictor, question, repeats) if predictor.knows_tokens else float("nan"),
        worst=Estimate(float("nan") if worst is None else float(grid[worst]), *percentile_interval(resampled_worst)),
        dangerous=(UNKNOWN, UNKNOWN) if worst is None else edges(Curve.dangerous),
        safe_up_to=safe_up_to,
        safe_from=safe_from,
        curve=curve,
        penalty_band=percentile_band([curve.penalty for curve in resampled]) if resampled else None,
        outside=predictor.domain.outside(question.params, question.tokens, question.fraction, repeats),
    )


def _curve(loss: Callable[[Points], Floats], question: Question, grid: Floats) -> Curve:
    points = prediction_points(question.params, question.tokens, question.fraction, grid)
    losses, clean = loss(points), loss(points.as_clean())
    by_size = loss(prediction_points(question.params * SIZE_SHARES, question.tokens, 0.0, 1.0))
    # The clean loss falls with size; np.interp needs rising values.
    multiplier = np.exp(np.interp(losses, by_size[::-1], np.log(SIZE_SHARES)[::-1]))
    return Curve(grid, losses - clean, np.where(losses <= clean, 1.0, multiplier))


def _at(loss: Callable[[Points], Floats], question: Question, repeats: float) -> tuple[float, float]:
    """Penalty and multiplier at one R."""
    curve = _curve(loss, question, np.array([repeats]))
    return float(curve.penalty[0]), float(curve.multiplier[0])


def _shifted(predictor: Predictor, question: Question, repeats: float, nats: float) -> tuple[float, float]:
    """Penalty and multiplier of a repeated run with a loss higher by `nats`."""
    return _at(lambda points: predictor.loss(points) + nats * (points.repeats > 1), question, repeats)


def _lost_compute(predictor: Predictor, question: Question, repeats: float) -> float:
    """Compute saved by a clean run with the same loss and tokens per parameter, as a share of the question's compute."""
    loss = float(predictor.loss(prediction_points(question.params, question.tokens, question.fraction, repeats)))
    scaled = predictor.loss(prediction_points(question.params * SIZE_SHARES, question.tokens * SIZE_SHARES, 0.0, 1.0))
    return 1 - float(np.exp(np.interp(loss, scaled[::-1], np.log(SIZE_SHARES)[::-1]))) ** 2


def as_record(forecast: Forecast) -> dict[str, object]:
    """Every number of a forecast for JSON; None for infinite and unknown numbers."""

    def number(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    def estimate(value: Estimate) -> dict[str, float | None]:
        return {"value": number(value.value), "low": number(value.low), "high": number(value.high)}

    curve, smallest = forecast.curve, forecast.smallest_multiplier
    return {
        "law": forecast.predictor.name,
        "origin": forecast.predictor.origin,
        "repeats": number(forecast.repeats),
        "clean_loss": number(forecast.clean_loss),
        "penalty_nats": estimate(forecast.penalty),
        "size_multiplier": estimate(forecast.multiplier),
        "size_multiplier_at_most": number(smallest) if forecast.multiplier.value < smallest else None,
        "lost_compute": number(forecast.lost_compute),
        "worst_repeats": estimate(forecast.worst),
        "dangerous_from": estimate(forecast.dangerous[0]),
        "dangerous_up_to": estimate(forecast.dangerous[1]),
        "safe_up_to": estimate(forecast.safe_up_to),
        "safe_from": estimate(forecast.safe_from),
        "safe_at_every_repeats": bool(np.isinf(forecast.safe_up_to.value)),
        "largest_repeats": number(curve.repeats[-1]),
        "outside_fitted_range": forecast.outside,
        "notes": list(forecast.predictor.notes),
        "curve": {
            "repeats": [number(value) for value in curve.repeats],
            "penalty_nats": [number(value) for value in curve.penalty],
            "size_multiplier": [number(value) for value in curve.multiplier],
        },
    }
