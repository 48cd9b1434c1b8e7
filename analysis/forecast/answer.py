"""Answer the question of a planned run in sentences: what it costs, how sure that is, and what else could be done."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from analysis.forecast.forecast import Cost, Forecast, distance, too_far
from analysis.forecast.predictors import POOLED
from analysis.forecast.question import Question
from analysis.formatting import short_count, short_repeats
from analysis.intervals import Estimate, percentile_interval
from analysis.laws.points import prediction_points

CHEAP = 0.002  # share of the clean loss; the answer says up to which R repetition costs less
USELESS_ABOVE = 0.1  # share of the clean loss; a smaller upper end is useful even if the prediction is tiny
USELESS_TIMES = 10.0  # an upper end above USELESS_ABOVE and this many times the prediction is not printed
RULE_OF_THUMB = 4.0  # "at most 4 epochs" [M23]
NO_USEFUL_INTERVAL = "no useful interval"
WHY_NOT_USEFUL = (
    "Upper ends above the whole loss, or above"
    f" {USELESS_ABOVE:.0%} of it and {USELESS_TIMES:g} times the prediction, are not printed: such a prediction is a guess."
)
PARTIAL = "partial"  # the law that answers; the others are listed beside it


@dataclass(frozen=True)
class Limit:
    """The largest R up to which repetition costs at most a share of the clean loss.

    expected: by the prediction itself. sure: by the upper end of its 95% interval; 1 if not even the smallest R above 1 qualifies. NaN
    without intervals. Infinite if every R qualifies.
    """

    share: float
    expected: float
    sure: float


def primary(forecasts: Sequence[Forecast]) -> Forecast | None:
    """The forecast that answers: our law with the constants from runs nearest to the plan; None if our law gives no number."""
    ours = [each for each in forecasts if each.predictor.name == PARTIAL and each.has_number]
    # The user's own runs count as nearer if they are as near.
    return min(reversed(ours), key=_distance) if ours else None


def nearest(forecasts: Sequence[Forecast]) -> Forecast:
    """The forecast of the law that was fitted nearest to the plan."""
    return min(forecasts, key=_distance)


def _distance(forecast: Forecast) -> float:
    return distance(forecast.predictor, forecast.question, forecast.repeats)


def limit(forecast: Forecast, share: float) -> Limit:
    """The largest R, counted from R = 1 without gaps, that costs at most a share of the clean loss."""
    most = share * forecast.clean_loss
    sure = _first_above(forecast, forecast.band[1], most) if forecast.band else float("nan")
    return Limit(share, _first_above(forecast, forecast.curve.penalty, most), sure)


def _first_above(forecast: Forecast, penalties: np.ndarray, most: float) -> float:
    above = np.flatnonzero(penalties > most)
    if not len(above):
        return float("inf")
    return forecast.curve.crossing(penalties, above[0] - 1, most) if above[0] else 1.0


def indistinguishable(forecast: Forecast) -> tuple[float, float]:
    """The range of listed R around the forecast's R whose penalty differs from its penalty by less than the uncertainty of the difference.

    The difference is uncertain because of the constants and because of the scatter between two runs. Both ends are the forecast's R if no
    neighboring R belongs to the range or if the law has no intervals.
    """
    question, repeats = forecast.question, forecast.repeats
    if not forecast.predictor.draws or forecast.band is None:
        return repeats, repeats
    listed_repeats = [each for each in question.listed_repeats if each > 1 and not forecast.too_far_at(each)]
    asked = np.array([*listed_repeats, repeats])
    points = prediction_points(question.params, question.tokens, question.fraction_at(asked), asked)
    drawn = np.array([draw(points) for draw in forecast.predictor.draws])
    scatter = forecast.predictor.scatter * forecast.clean_loss * 2**0.5
    alike = {}
    for place, each in enumerate(listed_repeats):
        low, high = percentile_interval(drawn[:, place] - drawn[:, -1])
        alike[each] = low - 2 * scatter <= 0 <= high + 2 * scatter
    below = takewhile(alike.__getitem__, sorted((each for each in listed_repeats if each <= repeats), reverse=True))
    above = takewhile(alike.__getitem__, sorted(each for each in listed_repeats if each >= repeats))
    return min(below, default=repeats), max(above, default=repeats)


def sentence(forecast: Forecast) -> str:
    """The answer in one sentence; in two if the plan names no R."""
    question, cost = forecast.question, forecast.cost
    cheap = _cheap(limit(forecast, CHEAP), question)
    costs = f"in this run raises the loss by {share_with_interval(cost.share)} compared with fresh tokens"
    if cost.share.value > CHEAP:
        size = cost.multiplier if has_upper_end(cost.share) else Estimate(cost.multiplier.value)
        costs += f", like training a model of {size_with_interval(size)} of the size"
    subset = f"a {short_count(question.subset_at(forecast.repeats))}-token subset"
    times = f"{short_repeats(forecast.repeats)} times"
    if question.repeats is not None:
        return f"Repeating {subset} {times} {costs}; {cheap}."
    interior = forecast.worst.value == forecast.worst.value
    most = "the worst R" if interior else "the largest R here"
    return f"{cheap[0].upper()}{cheap[1:]} of the loss. Repeating {subset} {times} ({most}) {costs}."


def share_with_interval(share: Estimate) -> str:
    """A cost as a share of the loss, such as "0.8% (0.3 to 1.9%)", with the interval as in `interval_words`."""
    value = "less than 0.01" if 0 < share.value < 5e-5 else _percent(share.value)
    if share.low != share.low:
        return f"{value}%"
    return f"{value}% ({interval_words(share)})"


def has_upper_end(share: Estimate) -> bool:
    """Whether the upper end of a cost's interval is small enough to be useful; also true without an interval."""
    return not (share.high > 1 or share.high > max(USELESS_ABOVE, USELESS_TIMES * share.value))


def interval_words(share: Estimate) -> str:
    """The interval of a cost in percent: "0.3 to 1.9%", or "at most 1.9%" if it includes 0.

    Without a useful upper end, it is "at least 0.3%", or NO_USEFUL_INTERVAL if it includes 0.
    """
    if not has_upper_end(share):
        return f"at least {_percent(share.low)}%" if share.low > 0 else NO_USEFUL_INTERVAL
    high = f"{_percent(share.high)}%"
    return f"at most {high}" if share.low <= 0 else f"{_percent(share.low)} to {high}"


def size_with_interval(multiplier: Estimate) -> str:
    """An effective size as a share of the actual size, with the interval in parentheses."""
    if multiplier.low != multiplier.low:
        return f"{multiplier.value:.2g}"
    low, high = f"{multiplier.low:.2g}", f"{multiplier.high:.2g}"
    return f"{multiplier.value:.2g} ({low} to {high})"


def _percent(share: float) -> str:
    """A share in percent with two significant digits, but no more than two decimals."""
    value = 100 * share
    return f"{value:.2f}" if abs(value) < 0.1 else f"{float(f'{value:.2g}'):g}"


def _cheap(cheap: Limit, question: Question) -> str:
    percent = f"{100 * cheap.share:g}%"
    if np.isinf(cheap.expected):
        return f"no number of repeats is expected to cost more than {percent}"
    if cheap.expected < 2:
        return f"even 2 repeats are expected to cost more than {percent}"
    repeats = float(np.floor(cheap.expected))
    if question.subset_tokens is None:  # the subset shrinks as R grows
        needed = f"at the same fraction, a subset of {short_count(question.subset_at(repeats))} tokens or more"
        return f"{needed} (up to {short_repeats(repeats)} repeats) is expected to cost less than {percent}"
    return f"up to {short_repeats(repeats)} repeats are expected to cost less than {percent}"


def confidence(forecast: Forecast, with_cost: bool = True) -> str:
    """Sentences that say which law answered and how sure the answer is. with_cost: whether the answer gives the forecast's cost."""
    predictor = forecast.predictor
    text = f"The answer comes from our law, {predictor.label}."
    if forecast.band:
        text += f" The 95% interval is in parentheses; such intervals {predictor.interval_holds}."
    if forecast.outside:
        text += f" That was not tested for this plan, which is outside the range of the runs: {', '.join(forecast.outside)}."
    if with_cost and not has_upper_end(forecast.cost.share):
        text += (
            " The runs rule out neither zero nor a far higher cost, so do not rely on this number."
            if forecast.cost.share.low <= 0
            else " The runs do not rule out a far higher cost."
        )
    elif with_cost and forecast.cost.share.low <= 0:
        text += " The interval includes 0: repetition may cost nothing here."
    if predictor.origin == POOLED:
        text += " Adding your own runs (--study, --csv) usually narrows the interval."
    return text


def rule_of_thumb(forecast: Forecast) -> tuple[Cost, str]:
    """What stopping at RULE_OF_THUMB epochs costs, and a sentence about it."""
    cost = forecast.cost_at(min(RULE_OF_THUMB, forecast.question.most_repeats))
    subset = short_count(forecast.question.subset_at(cost.repeats))
    rule = f'The rule of thumb "at most {RULE_OF_THUMB:g} epochs":'
    raises = f"the loss by {share_with_interval(cost.share)}"
    if forecast.question.subset_tokens is None:  # 4 epochs of the same share of the run need another subset
        return cost, (
            f"{rule} at the same fraction, {cost.repeats:g} repeats require a {subset}-token subset and raise {raises}."
        )
    return cost, f"{rule} repeating the {subset}-token subset {cost.repeats:g} times raises {raises}."


def limit_sentence(forecast: Forecast, share: float) -> str:
    """The largest R that costs at most a share of the loss."""
    found = limit(forecast, share)
    percent = f"{100 * share:g}% of the loss"
    if np.isinf(found.expected):
        expected = (
            f"Every R up to {short_repeats(float(forecast.curve.repeats[-1]))} is expected to cost at most {percent}"
        )
    else:
        largest = float(np.floor(found.expected))
        size = forecast.cost_at(largest).multiplier.value
        expected = f"The largest R that is expected to cost at most {percent} is {short_repeats(largest)}"
        expected += f", like training a model of {size:.2g} of the size" if largest > 1 else ""
    if found.sure != found.sure:
        return f"{expected}."
    if np.isinf(found.sure):
        return f"{expected}, even at the upper end of the interval."
    if found.sure < 2:
        smallest = forecast.cost_at(2.0).share
        why = f" (at most {_percent(smallest.high)}%): runs differ by chance, so such small costs cannot be resolved"
        return f"{expected}; at the upper end of the interval, even 2 repeats may cost more{why}."
    return f"{expected}; at the upper end of the interval, it is {short_repeats(np.floor(found.sure))}."


def indistinguishable_sentence(forecast: Forecast) -> str:
    """Which listed R cannot be told apart from the forecast's R; empty if there are none."""
    low, high = indistinguishable(forecast)
    if low == high:
        return ""
    return (
        f"By their predicted cost, R from {low:,.6g} to {high:,.6g} cannot be told apart from"
        f" R = {short_repeats(forecast.repeats)}."
    )


def disagreement(forecasts: Sequence[Forecast]) -> str:
    """Sentences about where the laws disagree, and which was fitted nearest to the plan."""
    given = [each for each in forecasts if each.has_number]
    sentences = []
    repeats = forecasts[0].question.repeats
    if len(given) > 1:
        shares = sorted(each.cost.share.value for each in given)
        place = f"At R = {short_repeats(repeats)}" if repeats else "At their own worst R"
        sentences.append(
            f"{place}, the laws predict costs of {_percent(shares[0])}% to {_percent(shares[-1])}% of the loss."
        )
    worst = [each.worst.value for each in forecasts if each.worst.value == each.worst.value]
    if len(worst) > 1:
        sentences.append(f"Their worst R ranges from {short_repeats(min(worst))} to {short_repeats(max(worst))}.")
    missing = [each.predictor.label for each in forecasts if not each.has_number and not each.too_far]
    if missing:
        sentences.append(f"The cost is not credible for {', '.join(missing)}.")
    if len(forecasts) > 1:
        sentences.append(f"The law fitted nearest to the plan is {nearest(forecasts).predictor.label}.")
    return " ".join(sentences)


def refusal(forecasts: Sequence[Forecast]) -> str:
    """Why our law gives no number."""
    ours = [each for each in forecasts if each.predictor.name == PARTIAL]
    if not ours:
        return "Our law was not asked, so there is no answer with an interval; the laws below have none."
    reasons = dict.fromkeys(each.too_far or "its prediction is not credible" for each in ours)
    far = any(too_far(each.predictor, each.question, each.repeats) for each in ours)
    hint = " A small study of your own would give one: repeat-study run, then predict --study." if far else ""
    return f"No number: {'; '.join(reasons)}.{hint}"
