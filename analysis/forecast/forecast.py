"""Forecast one planned run with one law: the penalty, its equivalent in model size and compute, and the harmful and safe ranges of R."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from analysis.forecast.predictors import Penalty, Predictor
from analysis.forecast.question import Question
from analysis.formatting import short_count, short_repeats
from analysis.intervals import NAN, UNKNOWN, Estimate, percentile_interval
from analysis.laws.points import Floats, Points, prediction_points

SAFE = 0.9  # R is safe if the effective size is at least this share of the actual size
GRID_PER_DECADE = 60
FADED_UP_TO = 2.0  # a law's jump at R = 1 is faded in from R = 1 to this R
JUST_ABOVE_1 = 1.0 + 1e-9
SIZE_SHARES = np.geomspace(1e-6, 1.0, 1201)  # candidates for the effective size, as shares of the actual size
SMALLEST_PENALTY = 1e-4  # nats; a curve that stays below this has no worst R
# The loss in nats of a uniform guess over 2^18 tokens, which is about as large as vocabularies get. No published law was fitted on higher
# losses.
LARGEST_LOSS = float(np.log(2**18))
OVERFLOW = 1e6  # nats; replaces losses that are larger or not finite
ALL_REPEATED = 0.999  # a larger repeated fraction leaves no fresh tokens to recover with
FAR = 10.0  # a law gives no number for a quantity that is this many times outside the range of its runs


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
        low = self.crossing(loss, below[-1], half) if len(below) else 1.0
        return low, self.crossing(loss, peak + above[0] - 1, half) if len(above) else float("inf")

    def safe(self) -> tuple[float, float]:
        """Two values of R: the multiplier is at least SAFE up to the first, and again from the second on.

        If every R is safe, the values are infinity and 1. If the multiplier never recovers, the second is infinite.
        """
        loss, limit = -np.log(self.multiplier), -np.log(SAFE)
        unsafe = np.flatnonzero(loss > limit)
        if not len(unsafe):
            return float("inf"), 1.0
        last = unsafe[-1]
        safe_from = self.crossing(loss, last, limit) if last + 1 < len(loss) else float("inf")
        return self.crossing(loss, unsafe[0] - 1, limit) if unsafe[0] else 1.0, safe_from

    def crossing(self, values: Floats, index: int, level: float) -> float:
        """The R at which `values` cross `level` after the grid point `index`, interpolated in log R."""
        share = (level - values[index]) / (values[index + 1] - values[index])
        return float(self.repeats[index] * (self.repeats[index + 1] / self.repeats[index]) ** share)


@dataclass(frozen=True)
class Cost:
    """What one R costs. penalty: nats. share: penalty as a share of the clean loss. multiplier: effective size over size."""

    repeats: float
    fraction: float
    penalty: Estimate
    share: Estimate
    multiplier: Estimate


@dataclass(frozen=True)
class Forecast:
    """One law's forecast. Penalties are in nats; `worst` and `harmful` are NaN without an interior worst R."""

    predictor: Predictor
    question: Question
    repeats: float  # from the question, or the law's worst R
    clean_loss: float
    cost: Cost  # at `repeats`
    lost_compute: float  # share of the compute; NaN if all runs in the fit have the same number of tokens
    worst: Estimate
    harmful: tuple[float, float]  # first and last R
    safe_up_to: Estimate
    safe_from: float
    curve: Curve  # up to the largest R for which the law gives a number
    band: tuple[Floats, Floats] | None  # 95% interval of the penalty along the curve
    outside: list[str]  # values in the question that are outside the range of the fit
    too_far: str  # why the law gives no number for this plan; empty if it does
    jump: float  # jump of the law just above R = 1 in nats, before it is faded in

    @property
    def limit(self) -> float:
        """The largest credible penalty in nats: a larger one would raise the loss above LARGEST_LOSS."""
        return max(0.0, LARGEST_LOSS - self.clean_loss)

    def is_beyond(self, penalty: float) -> bool:
        """Whether a penalty exceeds `limit` or is NaN."""
        return not self.clean_loss + penalty <= LARGEST_LOSS

    @property
    def has_number(self) -> bool:
        """Whether the law gives a credible penalty for this plan."""
        return not self.too_far and not self.is_beyond(self.cost.penalty.value)

    def cost_at(self, repeats: float) -> Cost:
        """What another R costs."""
        return cost_at(self.predictor, self.question, repeats)

    def too_far_at(self, repeats: float) -> str:
        """Why the law gives no number for another R; empty if it does."""
        return too_far(self.predictor, self.question, repeats) or _past_peak(
            self.predictor, self.question, self.curve, repeats
        )


def forecast(predictor: Predictor, question: Question) -> Forecast:
    """Forecast a planned run with one law."""
    top = question.most_repeats
    grid = np.geomspace(1.0, top, max(2, round(GRID_PER_DECADE * np.log10(top)) + 1))
    numbered = [place for place, each in enumerate(grid) if not too_far(predictor, question, float(each))]
    grid = grid[: max(2, numbered[-1] + 1)] if numbered else grid
    penalty = _continuous(predictor.penalty)
    curve = _curve(predictor, penalty, question, grid)
    if _all_repeated(predictor, question) and curve.penalty[-1] < 0.99 * curve.penalty.max():
        grid = grid[: max(2, int(curve.penalty.argmax()) + 1)]
        curve = _curve(predictor, penalty, question, grid)
    drawn = [_curve(predictor, _continuous(draw), question, grid) for draw in predictor.draws]
    repeats = question.repeats or float(grid[int(curve.penalty.argmax())])
    clean_point = prediction_points(question.params, question.tokens, 0.0, 1.0)
    clean_loss = float(_finite(predictor.clean_loss(clean_point)))
    # A peak that is too high to be credible is an artifact of the formula.
    worst = None if clean_loss + curve.penalty.max() > LARGEST_LOSS else curve.worst
    safe_up_to, safe_from = curve.safe()
    asked = np.array([repeats])
    if question.repeats is None and question.subset_tokens is not None:
        asked = np.array([each for each in question.listed_repeats if 1 < each <= top] or [repeats])
    just_above = prediction_points(question.params, question.tokens, question.fraction_at(JUST_ABOVE_1), JUST_ABOVE_1)
    return Forecast(
        predictor=predictor,
        question=question,
        repeats=repeats,
        clean_loss=clean_loss,
        cost=cost_at(predictor, question, repeats),
        lost_compute=_lost_compute(predictor, penalty, question, repeats) if predictor.varied_tokens else NAN,
        worst=UNKNOWN if worst is None else _estimate(float(grid[worst]), [_worst_repeats(each) for each in drawn]),
        harmful=(NAN, NAN) if worst is None else curve.harmful(),
        safe_up_to=_estimate(safe_up_to, [each.safe()[0] for each in drawn]),
        safe_from=safe_from,
        curve=curve,
        band=_interval(predictor, question, grid, curve.penalty),
        outside=predictor.domain.outside(question.params, question.tokens, question.fraction_at(asked), asked),
        too_far=too_far(predictor, question, repeats) or _past_peak(predictor, question, curve, repeats),
        jump=float(_finite(predictor.penalty(just_above))),
    )


def cost_at(predictor: Predictor, question: Question, repeats: float) -> Cost:
    """What one R costs, with 95% intervals if the law has any."""
    grid = np.array([repeats])
    curve = _curve(predictor, _continuous(predictor.penalty), question, grid)
    clean = float(_finite(predictor.clean_loss(prediction_points(question.params, question.tokens, 0.0, 1.0))))
    value, low, high = float(curve.penalty[0]), NAN, NAN
    if ends := _interval(predictor, question, grid, curve.penalty):
        low, high = float(ends[0][0]), float(ends[1][0])
    penalty = Estimate(value, low, high)
    sizes = multipliers(predictor, question, np.array([high, low]))
    fraction = float(np.asarray(question.fraction_at(repeats)))
    return Cost(
        repeats,
        fraction,
        penalty,
        Estimate(value / clean, low / clean, high / clean),
        Estimate(float(curve.multiplier[0]), float(sizes[0]), float(sizes[1])),
    )


def distance(predictor: Predictor, question: Question, repeats: float) -> float:
    """How far the plan is from the runs that the law was fitted on, in factors of e over all quantities."""
    factors = _factors(predictor, question, repeats).values()
    return float(np.sqrt(sum(np.log(factor) ** 2 for factor in factors)))


def _factors(predictor: Predictor, question: Question, repeats: float) -> dict[str, float]:
    """By how much each quantity of the plan exceeds the range of the law's runs, as a factor of at least 1."""
    domain = predictor.domain
    fraction = float(np.asarray(question.fraction_at(repeats)))
    ranges = {
        "params": (question.params, domain.params),
        "tokens": (question.tokens, domain.tokens),
        "fraction": (fraction, domain.fraction),
        "repeats": (repeats, domain.repeats),
    }
    return {name: max(1.0, low / value, value / high) for name, (value, (low, high)) in ranges.items()}


def too_far(predictor: Predictor, question: Question, repeats: float) -> str:
    """Why a law gives no number for a plan. Published laws are always evaluated, with a note about their range."""
    if predictor.interval is None:
        return ""
    names = {"params": "parameters", "tokens": "tokens", "fraction": "repeated fraction", "repeats": "repeats"}
    clauses = []
    for name, factor in _factors(predictor, question, repeats).items():
        if factor > FAR:
            low, high = getattr(predictor.domain, name)
            form = short_repeats if name == "repeats" else short_count if name != "fraction" else "{:.3g}".format
            clauses.append(f"{names[name]} {short_count(factor)} times outside {form(low)} to {form(high)}")
    return f"the plan is too far from the runs in the fit ({', '.join(clauses)})" if clauses else ""


def _all_repeated(predictor: Predictor, question: Question) -> bool:
    """Whether all tokens of the plan are repeated and the law is not only a published formula, which is always evaluated."""
    return predictor.interval is not None and question.subset_tokens is None and question.fraction > ALL_REPEATED


def _past_peak(predictor: Predictor, question: Question, curve: Curve, repeats: float) -> str:
    """Why a law gives no number past its peak if all tokens are repeated; empty before the peak."""
    end = float(curve.repeats[-1])
    if not _all_repeated(predictor, question) or repeats <= end * (1 + 1e-9):
        return ""
    return f"without fresh tokens, a smaller subset cannot cost less, but the law predicts that it does beyond R = {short_repeats(end)}"


def multipliers(predictor: Predictor, question: Question, penalties: Floats) -> Floats:
    """Effective size over size for penalties in nats; 1 without a penalty."""
    by_size = _finite(predictor.clean_loss(prediction_points(question.params * SIZE_SHARES, question.tokens, 0.0, 1.0)))
    # The clean loss falls with size, but np.interp needs increasing values.
    shares = np.exp(np.interp(by_size[-1] + penalties, by_size[::-1], np.log(SIZE_SHARES)[::-1]))
    return np.where(np.isnan(penalties), np.nan, np.where(penalties <= 0, 1.0, shares))


def _interval(predictor: Predictor, question: Question, grid: Floats, penalty: Floats) -> tuple[Floats, Floats] | None:
    """95% interval of the penalty at every R; None if the law has none. A run at R = 1 is clean."""
    if predictor.interval is None:
        return None
    points = prediction_points(question.params, question.tokens, question.fraction_at(grid), grid)
    low, high = predictor.interval(points, _finite(predictor.clean_loss(points)))
    clean = grid == 1
    return np.where(clean, 0.0, np.minimum(low, penalty)), np.where(clean, 0.0, np.maximum(high, penalty))


def _estimate(value: float, resamples: npt.ArrayLike) -> Estimate:
    """A value with its percentile interval, which is widened if it does not contain the value."""
    low, high = percentile_interval(resamples, keep_infinite=True)
    return Estimate(value, min(low, value), max(high, value)) if low == low else Estimate(value)


def _worst_repeats(curve: Curve) -> float:
    """The worst R, or infinity if there is none. If many resamples have none, the interval has no finite upper end."""
    return float("inf") if curve.worst is None else float(curve.repeats[curve.worst])


def _finite(losses: Floats) -> Floats:
    """Losses capped at OVERFLOW, which also replaces non-finite values."""
    return np.minimum(np.nan_to_num(losses, nan=OVERFLOW, posinf=OVERFLOW), OVERFLOW)


def _continuous(penalty: Penalty) -> Callable[[Points], Floats]:
    """Fade in the law's jump at R = 1 gradually, up to FADED_UP_TO. The jump exists because a Gaussian in log R is never 0."""

    def continuous(points: Points) -> Floats:
        penalties = _finite(penalty(points))
        fade = np.clip(1 - np.log(points.repeats) / np.log(FADED_UP_TO), 0.0, 1.0)
        if not fade.any() or points.clean.all():
            return penalties
        just_above = replace(points, repeats=np.where(points.clean, 1.0, JUST_ABOVE_1))
        jump = _finite(penalty(just_above))
        return np.maximum(penalties - np.maximum(jump, 0.0) * fade, np.minimum(penalties, 0.0))

    return continuous


def _curve(predictor: Predictor, penalty: Penalty, question: Question, grid: Floats) -> Curve:
    points = prediction_points(question.params, question.tokens, question.fraction_at(grid), grid)
    penalties = np.where(points.clean, 0.0, penalty(points))
    return Curve(grid, penalties, multipliers(predictor, question, penalties))


def _lost_compute(predictor: Predictor, penalty: Penalty, question: Question, repeats: float) -> float:
    """The share of compute that a clean run with the same loss and the same number of tokens per parameter would save."""
    point = prediction_points(question.params, question.tokens, question.fraction_at(repeats), repeats)
    shares = prediction_points(question.params * SIZE_SHARES, question.tokens * SIZE_SHARES, 0.0, 1.0)
    scaled = _finite(predictor.clean_loss(shares))
    loss = float(scaled[-1] + penalty(point))
    return 1 - float(np.exp(np.interp(loss, scaled[::-1], np.log(SIZE_SHARES)[::-1]))) ** 2
