"""Format forecasts for the console: table rows, sentences about where the laws agree, and curves plotted as text."""

import math

import numpy as np

from analysis.forecast.forecast import FADED_UP_TO, LARGEST_LOSS, SAFE, Forecast, Question
from analysis.formatting import NOTHING, bracketed, short_count, short_repeats, span

HEADINGS = (
    "law",
    "origin",
    "at R",
    "penalty (nats)",
    "acts like",
    "compute lost",
    "worst R",
    "harmful R",
    f"R with ≥ {SAFE:.0%} of the size",
)
NOT_CREDIBLE = "not credible"  # printed instead of a number if the predicted loss exceeds LARGEST_LOSS
SAME_CLEAN_LOSS = 0.02  # nats; a smaller difference between laws is not worth a sentence
NOTABLE_JUMP = 0.05  # share of the largest penalty; a smaller jump at R = 1 is not worth a note
BLOCKS = " ▁▂▃▄▅▆▇█"
CURVE_WIDTH = 72  # maximum width of a curve in characters


def table_row(forecast: Forecast, question: Question) -> tuple[str, ...]:
    """The table cells for one forecast, in the order of HEADINGS, with intervals in brackets."""
    penalty, lost = forecast.penalty.value, forecast.lost_compute
    return (
        forecast.predictor.title,
        forecast.predictor.origin,
        short_repeats(forecast.repeats),
        _penalty(forecast),
        NOTHING if forecast.is_beyond(penalty) else _effective_size(forecast, question),
        NOTHING if math.isnan(lost) or forecast.is_beyond(penalty) else f"{lost:.0%}",
        _worst(forecast),
        _harmful(forecast),
        safe_range(forecast),
    )


def notes(forecast: Forecast) -> list[str]:
    """Reasons for caution about a forecast, one line each."""
    predictor = forecast.predictor
    lines = (
        [f"the planned run is outside the range of the fit: {', '.join(forecast.outside)}"] if forecast.outside else []
    )
    if not predictor.varied_tokens:
        lines.append(
            "all runs in the fit have the same number of tokens, so the law cannot estimate lost compute, and other token counts are"
            " extrapolations"
        )
    if forecast.jump > NOTABLE_JUMP * float(forecast.curve.penalty.max()):
        lines.append(
            f"the formula jumps by {forecast.jump:.2g} nats just above R = 1, although a run at R = 1 is clean; here the jump is faded in"
            f" from R = 1 to {FADED_UP_TO:g}"
        )
    if forecast.is_beyond(float(forecast.curve.penalty.max())):
        lines.append(
            f"the predicted loss exceeds {LARGEST_LOSS:.3g} nats per token, which is worse than random guessing; the law does not"
            " apply to such runs, so no worst R is given"
        )
    return [f"{predictor.label}: {line}" for line in [*lines, *predictor.notes]]


def agreement(forecasts: list[Forecast], question: Question) -> str:
    """Sentences about where the laws agree and where they differ."""
    if len(forecasts) < 2:
        return "Only one law was used; compare several to see how well they agree."
    beyond = [forecast.predictor.label for forecast in forecasts if forecast.is_beyond(forecast.penalty.value)]
    penalties = [forecast.penalty.value for forecast in forecasts if not forecast.is_beyond(forecast.penalty.value)]
    place = f"At R = {short_repeats(question.repeats)}" if question.repeats else "At their own worst R"
    sentences = []
    if penalties:
        sentences.append(f"{place}, the laws predict penalties of {span(penalties, lambda nats: f'{nats:.2g}')} nats.")
    if beyond:
        sentences.append(f"The penalty is {NOT_CREDIBLE} for {', '.join(beyond)}.")
    with_worst = [forecast for forecast in forecasts if not math.isnan(forecast.worst.value)]
    worst = [forecast.worst.value for forecast in with_worst]
    if len(worst) > 1:
        sentences.append(
            f"Their worst R ranges from {short_repeats(min(worst))} to {short_repeats(max(worst))},"
            f" a factor of {max(worst) / min(worst):.2g}."
        )
    not_reached = [forecast for forecast in forecasts if math.isnan(forecast.worst.value)]
    if labels := ", ".join(each.predictor.label for each in not_reached if _no_worst(each).startswith("none")):
        sentences.append(f"There is no worst R up to {short_repeats(forecasts[0].curve.repeats[-1])} for {labels}.")
    if question.repeats and with_worst:
        inside = sum(
            forecast.harmful[0].value <= question.repeats <= forecast.harmful[1].value for forecast in with_worst
        )
        sentences.append(
            f"R = {short_repeats(question.repeats)} is in the harmful range of {inside} of {len(with_worst)} laws."
        )
    return " ".join(sentences)


def clean_losses(forecasts: list[Forecast]) -> str:
    """Sentences that compare the laws' clean losses; empty if these agree."""
    losses = [forecast.clean_loss for forecast in forecasts]
    if max(losses) - min(losses) < SAME_CLEAN_LOSS:
        return ""
    by_loss: dict[str, list[str]] = {}
    for forecast in forecasts:
        clean = f"above {LARGEST_LOSS:.3g}" if forecast.is_beyond(0.0) else f"{forecast.clean_loss:.2f}"
        by_loss.setdefault(clean, []).append(forecast.predictor.label)
    listed = "; ".join(f"{clean} for {', '.join(labels)}" for clean, labels in by_loss.items())
    return (
        f"The laws predict different losses in nats for the same run without repetition: {listed}. They were fitted on different text"
        " or have different formulas, so compare effective sizes and worst R rather than nats."
    )


def curves_title(forecasts: list[Forecast]) -> str:
    """The title for `curves`, which gives the scale."""
    scale = _scale(forecasts)
    return "penalty against R, all curves on the same scale" + (f", █ = {scale:.3g} nats" if scale else "")


def curves(forecasts: list[Forecast], width: int) -> list[str]:
    """Plot penalty against log R as text, at most `width` characters wide: one line per law, all on the same scale, and an axis."""
    titles_width = max(len(forecast.predictor.title) for forecast in forecasts)
    ends = [_end(forecast) for forecast in forecasts]
    curve_width = max(10, min(CURVE_WIDTH, width - titles_width - 1 - max(map(len, ends))))
    top, scale = forecasts[0].curve.repeats[-1], _scale(forecasts)
    grid = np.geomspace(1.0, top, curve_width)
    lines = []
    for forecast, end in zip(forecasts, ends, strict=True):
        curve = forecast.curve
        heights = np.interp(np.log(grid), np.log(curve.repeats), np.minimum(curve.penalty, forecast.limit))
        blocks = "".join(BLOCKS[_level(float(height) / (scale or 1.0))] for height in heights)
        lines.append(f"{forecast.predictor.title:>{titles_width}} {blocks}{end}")
    return [*lines, f"{'R':>{titles_width}} {_axis(float(top), curve_width)}"]


def _scale(forecasts: list[Forecast]) -> float:
    """The largest penalty of any law in nats, where each law's penalties are capped at its `limit`."""
    return max(min(float(forecast.curve.penalty.max()), forecast.limit) for forecast in forecasts)


def _level(height: float) -> int:
    """Index of the block for a height from 0 to 1. The lowest block starts at 1/32, which keeps low curves visible."""
    level = round(height * (len(BLOCKS) - 1))
    return min(max(level, 1 if height >= 1 / 32 else 0), len(BLOCKS) - 1)


def _end(forecast: Forecast) -> str:
    """The text at the end of a curve's line, which gives its largest penalty."""
    largest = float(forecast.curve.penalty.max())
    return f" {NOT_CREDIBLE}" if forecast.is_beyond(largest) else f" up to {largest:.3g} nats"


def _axis(top: float, width: int) -> str:
    """Labels for the decades from 1 to `top`, except for those that would overlap."""
    axis = ""
    for decade in range(int(math.log10(top)) + 1):
        position = round(decade / math.log10(top) * (width - 1))
        if not axis or position > len(axis):
            axis = axis.ljust(position) + f"{10**decade:,}"
    return axis


def _penalty(forecast: Forecast) -> str:
    def nats(value: float) -> str:
        return NOT_CREDIBLE if forecast.is_beyond(value) else f"{value:.3g}"

    penalty = forecast.penalty
    if forecast.is_beyond(penalty.value):
        return f"> {forecast.limit:.3g}, {NOT_CREDIBLE}" if forecast.limit else NOT_CREDIBLE
    return nats(penalty.value) + bracketed(penalty.low, penalty.high, nats)


def _no_worst(forecast: Forecast) -> str:
    """Why there is no worst R: the penalty is not credible, peaks where the jump at R = 1 is faded in, or never falls."""
    curve = forecast.curve
    if forecast.is_beyond(float(curve.penalty.max())):
        return NOT_CREDIBLE
    return f"≤ {FADED_UP_TO:g}" if curve.peaks_too_early else f"none up to {short_repeats(curve.repeats[-1])}"


def _effective_size(forecast: Forecast, question: Question) -> str:
    multiplier, smallest = forecast.multiplier, forecast.smallest_multiplier
    if multiplier.value < smallest:  # the clean law is not extrapolated
        return f"≤ {short_count(smallest * question.params)}, ≤ {smallest:.2g}×"
    interval = bracketed(multiplier.low, multiplier.high, lambda share: short_count(share * question.params))
    return f"{short_count(multiplier.value * question.params)}{interval}, {multiplier.value:.2g}×"


def _worst(forecast: Forecast) -> str:
    worst = forecast.worst
    if math.isnan(worst.value):
        return _no_worst(forecast)
    return short_repeats(worst.value) + bracketed(worst.low, worst.high, short_repeats)


def _harmful(forecast: Forecast) -> str:
    low, high = (edge.value for edge in forecast.harmful)
    if math.isnan(low):
        return NOTHING
    return f"from {short_repeats(low)}" if math.isinf(high) else f"{short_repeats(low)} to {short_repeats(high)}"


def safe_range(forecast: Forecast) -> str:
    """The ranges of R in which the effective size is at least SAFE of the actual size, with the interval of the first range's end."""
    up_to, safe_from = forecast.safe_up_to, forecast.safe_from.value
    if math.isinf(up_to.value):
        return "all"
    first = f"up to {short_repeats(up_to.value)}{bracketed(up_to.low, up_to.high, short_repeats)}"
    return first if math.isinf(safe_from) else f"{first}, or from {short_repeats(safe_from)}"
