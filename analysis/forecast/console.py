"""Forecasts for the console: table rows, a summary of where laws agree, and curves drawn with characters."""

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
BEYOND = "beyond the law"  # in place of numbers that a law cannot know
SAME_CLEAN_LOSS = 0.02  # nats; a smaller difference between laws is not worth a sentence
NOTABLE_JUMP = 0.05  # share of the largest penalty; a smaller jump at R = 1 is not worth a note
BLOCKS = " ▁▂▃▄▅▆▇█"
CURVE_WIDTH = 72  # characters, if there is room


def table_row(forecast: Forecast, question: Question) -> tuple[str, ...]:
    """The cells of a forecast under HEADINGS; intervals in brackets."""
    penalty, lost = forecast.penalty.value, forecast.lost_compute
    return (
        forecast.predictor.name,
        forecast.predictor.origin,
        short_repeats(forecast.repeats),
        _penalty(forecast),
        NOTHING if forecast.is_beyond(penalty) else _effective_size(forecast, question),
        NOTHING if math.isnan(lost) or forecast.is_beyond(penalty) else f"{lost:.0%}",
        _worst(forecast),
        _harmful(forecast),
        _safe(forecast),
    )


def notes(forecast: Forecast) -> list[str]:
    """What to know before trusting a forecast, one line each."""
    predictor = forecast.predictor
    lines = [f"outside the range it was fitted on: {', '.join(forecast.outside)}"] if forecast.outside else []
    if not predictor.knows_tokens:
        lines.append(
            "its runs all have the same number of tokens, so it cannot estimate lost compute, and other token counts are extrapolations"
        )
    if forecast.jump > NOTABLE_JUMP * float(forecast.curve.penalty.max()):
        lines.append(
            f"its form costs {forecast.jump:.2g} nats just above R = 1, where a run is clean; here this fades in from R = 1 to"
            f" {FADED_UP_TO:g}"
        )
    if forecast.is_beyond(float(forecast.curve.penalty.max())):
        lines.append(
            f"its loss passes {LARGEST_LOSS:.3g} nats per token, more than a blind guess costs; it says nothing about such"
            " runs, and its worst R is not given"
        )
    return [f"{predictor.name} ({predictor.origin}): {line}" for line in [*lines, *predictor.notes]]


def agreement(forecasts: list[Forecast], question: Question) -> str:
    """Where the laws agree and where they differ, in one sentence."""
    if len(forecasts) < 2:
        return "Only one law was used; compare several to see how well they agree."
    beyond = [forecast.predictor.name for forecast in forecasts if forecast.is_beyond(forecast.penalty.value)]
    penalties = [forecast.penalty.value for forecast in forecasts if forecast.predictor.name not in beyond]
    place = f"At R = {short_repeats(question.repeats)}" if question.repeats else "Each at its own worst R,"
    clauses = []
    if penalties:
        clauses.append(f"{place} the laws predict penalties of {span(penalties, lambda nats: f'{nats:.2g}')} nats")
    if beyond:
        clauses.append(f"the penalty is {BEYOND} by {', '.join(beyond)}")
    with_worst = [forecast for forecast in forecasts if not math.isnan(forecast.worst.value)]
    worst = [forecast.worst.value for forecast in with_worst]
    if len(worst) > 1:
        clauses.append(
            f"their worst R ranges from {short_repeats(min(worst))} to {short_repeats(max(worst))},"
            f" a factor of {max(worst) / min(worst):.2g}"
        )
    not_reached = [forecast for forecast in forecasts if math.isnan(forecast.worst.value)]
    if names := ", ".join(each.predictor.name for each in not_reached if _no_worst(each).startswith("none")):
        clauses.append(f"no worst R up to {short_repeats(forecasts[0].curve.repeats[-1])} by {names}")
    if question.repeats and with_worst:
        inside = sum(
            forecast.harmful[0].value <= question.repeats <= forecast.harmful[1].value for forecast in with_worst
        )
        clauses.append(
            f"R = {short_repeats(question.repeats)} is in the harmful range of {inside} of {len(with_worst)} laws"
        )
    text = "; ".join(clauses) + "."
    return text[0].upper() + text[1:]


def clean_losses(forecasts: list[Forecast]) -> str:
    """One sentence if the laws start from different clean losses, which makes their nats hard to compare; else empty."""
    losses = [forecast.clean_loss for forecast in forecasts]
    if max(losses) - min(losses) < SAME_CLEAN_LOSS:
        return ""
    by_loss: dict[str, list[str]] = {}
    for forecast in forecasts:
        clean = f"above {LARGEST_LOSS:.3g}" if forecast.is_beyond(0.0) else f"{forecast.clean_loss:.2f}"
        by_loss.setdefault(clean, []).append(f"{forecast.predictor.name}, {forecast.predictor.origin}")
    listed = "; ".join(f"{clean} ({' and '.join(names)})" for clean, names in by_loss.items())
    return (
        f"The laws differ in the loss of the same run without repetition, in nats: {listed}. They were fitted on different text"
        " or have different forms, so compare effective sizes and worst R rather than nats."
    )


def curves_title(forecasts: list[Forecast]) -> str:
    """What `curves` shows, with the scale."""
    scale = _scale(forecasts)
    return "penalty over R, all curves on one scale" + (f", █ = {scale:.3g} nats" if scale else "")


def curves(forecasts: list[Forecast], width: int) -> list[str]:
    """Penalty over log R, a line per law on the scale of the largest, and an axis; no line longer than `width`."""
    names_width = max(len(forecast.predictor.name) for forecast in forecasts)
    ends = [_end(forecast) for forecast in forecasts]
    curve_width = max(10, min(CURVE_WIDTH, width - names_width - 1 - max(map(len, ends))))
    top, scale = forecasts[0].curve.repeats[-1], _scale(forecasts)
    grid = np.geomspace(1.0, top, curve_width)
    lines = []
    for forecast, end in zip(forecasts, ends, strict=True):
        curve = forecast.curve
        heights = np.interp(np.log(grid), np.log(curve.repeats), np.minimum(curve.penalty, forecast.limit))
        blocks = "".join(BLOCKS[_level(float(height) / (scale or 1.0))] for height in heights)
        lines.append(f"{forecast.predictor.name:>{names_width}} {blocks}{end}")
    return [*lines, f"{'R':>{names_width}} {_axis(float(top), curve_width)}"]


def _scale(forecasts: list[Forecast]) -> float:
    """The largest penalty in nats that any of the laws can say."""
    return max(min(float(forecast.curve.penalty.max()), forecast.limit) for forecast in forecasts)


def _level(height: float) -> int:
    """Index of the block for a height from 0 to 1; the lowest block starts at 1/32, so that low curves are still seen."""
    level = round(height * (len(BLOCKS) - 1))
    return min(max(level, 1 if height >= 1 / 32 else 0), len(BLOCKS) - 1)


def _end(forecast: Forecast) -> str:
    """The largest penalty of a curve, for the end of its line."""
    largest = float(forecast.curve.penalty.max())
    return f" {BEYOND}" if forecast.is_beyond(largest) else f" up to {largest:.3g} nats"


def _axis(top: float, width: int) -> str:
    """Labels of the decades from 1 to `top`, where there is room for them."""
    axis = ""
    for decade in range(int(math.log10(top)) + 1):
        position = round(decade / math.log10(top) * (width - 1))
        if not axis or position > len(axis):
            axis = axis.ljust(position) + f"{10**decade:,}"
    return axis


def _penalty(forecast: Forecast) -> str:
    def nats(value: float) -> str:
        return BEYOND if forecast.is_beyond(value) else f"{value:.3g}"

    penalty = forecast.penalty
    if forecast.is_beyond(penalty.value):
        return f"> {forecast.limit:.3g}, {BEYOND}" if forecast.limit else BEYOND
    return nats(penalty.value) + bracketed(penalty.low, penalty.high, nats)


def _no_worst(forecast: Forecast) -> str:
    """Why there is no worst R: it is beyond the law, below the R where the curve means anything, or not reached."""
    curve = forecast.curve
    if forecast.is_beyond(float(curve.penalty.max())):
        return BEYOND
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


def _safe(forecast: Forecast) -> str:
    up_to, safe_from = forecast.safe_up_to, forecast.safe_from.value
    if math.isinf(up_to.value):
        return "all"
    first = f"up to {short_repeats(up_to.value)}{bracketed(up_to.low, up_to.high, short_repeats)}"
    return first if math.isinf(safe_from) else f"{first}, or from {short_repeats(safe_from)}"
