"""What a law says about one plan: the penalty, the smaller model or lost compute that it amounts to, dangerous and safe R."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from analysis.forecast.predictors import Predictor
from analysis.intervals import UNKNOWN, Estimate, percentile_band, percentile_interval
from analysis.laws.points import Floats, Points, ask

SAFE = 0.9  # an effective size of at least this share of the size
SMALLEST_POOL = 1000.0  # tokens; R is looked at up to the one that leaves so small a pool
MOST_REPEATS = 1e6
PER_DECADE = 60
SMALLER = np.geomspace(1e-6, 1.0, 1201)  # effective sizes as shares of the size
NOTHING_LOST = 1e-4  # nats, below which there is no worst R


@dataclass(frozen=True)
class Question:
    """A run that is planned: sizes in parameters and tokens; no `repeats` asks about each law's worst R."""

    params: float
    tokens: float
    fraction: float
    repeats: float | None = None

    @property
    def most_repeats(self) -> float:
        """The largest R that is looked at."""
        return max(2.0, self.repeats or 0.0, min(MOST_REPEATS, self.fraction * self.tokens / SMALLEST_POOL))


@dataclass(frozen=True)
class Curve:
    """Penalty in nats and effective size over size, for every R of a grid."""

    repeats: Floats
    penalty: Floats
    multiplier: Floats

    @property
    def worst(self) -> int | None:
        """Place of the largest penalty; None where it is at the end, or falls by under 1% from there on, or is nothing."""
        place = int(self.penalty.argmax())
        return place if self.penalty[-1] < 0.99 * self.penalty[place] and self.penalty[place] > NOTHING_LOST else None

    def band(self) -> tuple[float, float]:
        """The R about the worst one at which at least half as much size is lost, by its logarithm; infinite where there is no
        upper end."""
        lost = -np.log(self.multiplier)
        place = int(self.penalty.argmax())
        below, above = np.flatnonzero(lost[:place] < lost[place] / 2), np.flatnonzero(lost[place:] < lost[place] / 2)
        low = self._crossing(lost, below[-1], lost[place] / 2) if len(below) else 1.0
        return low, self._crossing(lost, place + above[0] - 1, lost[place] / 2) if len(above) else float("inf")

    def safe(self) -> tuple[float, float]:
        """Up to which R, and from which on, the effective size is at least SAFE of the size; infinite where never again."""
        lost, most = -np.log(self.multiplier), -np.log(SAFE)
        costs = np.flatnonzero(lost > most)
        if not len(costs):
            return float("inf"), 1.0
        last = costs[-1]
        after = self._crossing(lost, last, most) if last + 1 < len(lost) else float("inf")
        return self._crossing(lost, costs[0] - 1, most) if costs[0] else 1.0, after

    def _crossing(self, values: Floats, place: int, level: float) -> float:
        """R between this place and the next at which the values cross a level, by a line in log R."""
        share = (level - values[place]) / (values[place + 1] - values[place])
        return float(self.repeats[place] * (self.repeats[place + 1] / self.repeats[place]) ** share)


@dataclass(frozen=True)
class Forecast:
    """What one law says. Penalty in nats; sizes as shares. `worst` and `band` are NaN where harm only grows with R."""

    predictor: Predictor
    repeats: float  # asked for, or the worst one
    clean_loss: float
    penalty: Estimate
    multiplier: Estimate
    floor: (
        float  # the smallest size that the law was fitted on, as a share; below it the multiplier is a bound. 0 outside
    )
    lost_compute: float  # NaN where the law cannot say
    worst: Estimate
    band: tuple[Estimate, Estimate]
    safe_up_to: Estimate
    safe_from: Estimate
    curve: Curve
    spread: tuple[Floats, Floats] | None  # 95% interval of the curve's penalty
    outside: list[str]  # what of the question lies outside of what the law was fitted on


def answer(predictor: Predictor, question: Question) -> Forecast:
    """Ask one law. R is looked at on a grid of 60 values per decade."""
    top = question.most_repeats
    grid = np.geomspace(1.0, top, max(2, round(PER_DECADE * np.log10(top)) + 1))
    curve = _curve(predictor.loss, question, grid)
    drawn = [_curve(loss, question, grid) for loss in predictor.draws]
    place = curve.worst
    repeats = question.repeats or float(grid[int(curve.penalty.argmax())])
    here, *around = (_at(loss, question, repeats) for loss in (predictor.loss, *predictor.draws))
    if predictor.noise:
        around = [_shifted(predictor, question, repeats, sign * predictor.noise(repeats)) for sign in (-1, 1)]
    worst = [float(grid[one.worst]) if one.worst is not None else float("nan") for one in drawn]

    def edges(which: Callable[[Curve], tuple[float, float]]) -> tuple[Estimate, Estimate]:
        found, others = which(curve), np.array([which(one) for one in drawn]).reshape(-1, 2)
        low, high = (
            Estimate(found[side], *percentile_interval(others[:, side], keep_infinite=True)) for side in (0, 1)
        )
        return low, high

    safe_up_to, safe_from = edges(Curve.safe)
    return Forecast(
        predictor,
        repeats,
        float(predictor.loss(ask(question.params, question.tokens, 0.0, 1.0))),
        Estimate(here[0], *percentile_interval([one[0] for one in around])),
        Estimate(here[1], *percentile_interval([one[1] for one in around])),
        floor if (floor := predictor.domain.params[0] / question.params) < 1 else 0.0,
        _lost_compute(predictor, question, repeats) if predictor.knows_tokens else float("nan"),
        Estimate(float(grid[place]) if place is not None else float("nan"), *percentile_interval(worst)),
        edges(Curve.band) if place is not None else (UNKNOWN, UNKNOWN),
        safe_up_to,
        safe_from,
        curve,
        percentile_band([one.penalty for one in drawn]) if drawn else None,
        predictor.domain.outside(question.params, question.tokens, question.fraction, repeats),
    )


def _curve(loss: Callable[[Points], Floats], question: Question, grid: Floats) -> Curve:
    points = ask(question.params, question.tokens, question.fraction, grid)
    losses, clean = loss(points), loss(points.as_clean())
    sizes = ask(question.params * SMALLER, question.tokens, 0.0, 1.0)
    by_size = loss(sizes)  # falls with size: turned round for interp, which takes rising values
    multiplier = np.exp(np.interp(losses, by_size[::-1], np.log(SMALLER)[::-1]))
    return Curve(grid, losses - clean, np.where(losses <= clean, 1.0, multiplier))


def _at(loss: Callable[[Points], Floats], question: Question, repeats: float) -> tuple[float, float]:
    """Penalty and multiplier at one R."""
    curve = _curve(loss, question, np.array([repeats]))
    return float(curve.penalty[0]), float(curve.multiplier[0])


def _shifted(predictor: Predictor, question: Question, repeats: float, nats: float) -> tuple[float, float]:
    """Penalty and multiplier of a run whose loss is by so much another."""
    return _at(lambda points: predictor.loss(points) + nats * (points.repeats > 1), question, repeats)


def _lost_compute(predictor: Predictor, question: Question, repeats: float) -> float:
    """CEL: the share of the compute that a clean run with as many tokens per parameter does without at the same loss."""
    loss = float(predictor.loss(ask(question.params, question.tokens, question.fraction, repeats)))
    scaled = predictor.loss(ask(question.params * SMALLER, question.tokens * SMALLER, 0.0, 1.0))
    return 1 - float(np.exp(np.interp(loss, scaled[::-1], np.log(SMALLER)[::-1]))) ** 2


def record(found: Forecast) -> dict[str, object]:
    """Every number of an answer, for JSON; infinities and what is not known as None."""

    def plain(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    def whole(value: Estimate) -> dict[str, float | None]:
        return {"value": plain(value.value), "low": plain(value.low), "high": plain(value.high)}

    return {
        "law": found.predictor.name,
        "origin": found.predictor.origin,
        "repeats": plain(found.repeats),
        "clean_loss": plain(found.clean_loss),
        "penalty_nats": whole(found.penalty),
        "size_multiplier": whole(found.multiplier),
        "size_multiplier_at_most": plain(found.floor) if found.multiplier.value < found.floor else None,
        "lost_compute": plain(found.lost_compute),
        "worst_repeats": whole(found.worst),
        "dangerous_from": whole(found.band[0]),
        "dangerous_up_to": whole(found.band[1]),
        "safe_up_to": whole(found.safe_up_to),
        "safe_from": whole(found.safe_from),
        "safe_at_every_repeats": bool(np.isinf(found.safe_up_to.value)),
        "looked_at_up_to_repeats": plain(found.curve.repeats[-1]),
        "outside_of_what_it_was_fitted_on": found.outside,
        "notes": list(found.predictor.notes),
        "curve": {
            "repeats": [plain(value) for value in found.curve.repeats],
            "penalty_nats": [plain(value) for value in found.curve.penalty],
            "size_multiplier": [plain(value) for value in found.curve.multiplier],
        },
    }
