"""Forecasts for the console: table rows, a summary of where laws agree, and curves drawn with characters."""

import math

import numpy as np

from analysis.forecast.forecast import SAFE, Forecast, Question
from analysis.formatting import NOTHING, bracketed, short_count, short_repeats

HEADINGS = (
    "law",
    "origin",
    "at R",
    "penalty (nats)",
    "acts like",
    "compute lost",
    "worst R",
    "dangerous R",
    f"R with ≥ {SAFE:.0%} of the size",
)
BLOCKS = " ▁▂▃▄▅▆▇█"
CURVE_WIDTH = 72  # characters, if there is room


def table_row(forecast: Forecast, question: Question) -> tuple[str, ...]:
    """The cells of a forecast under HEADINGS; intervals in brackets."""
    penalty = forecast.penalty
    return (
        forecast.predictor.name,
        forecast.predictor.origin,
        short_repeats(forecast.repeats),
        f"{penalty.value:.3g}{bracketed(penalty.low, penalty.high, lambda nats: f'{nats:.3g}')}",
        _effective_size(forecast, question),
        NOTHING if math.isnan(forecast.lost_compute) else f"{forecast.lost_compute:.0%}",
        _worst(forecast),
        _dangerous(forecast),
        _safe(forecast),
    )


def notes(forecast: Forecast) -> list[str]:
    """What to know before trusting a forecast, one line each."""
    predictor = forecast.predictor
    lines = [f"outside the range it was fitted on: {', '.join(forecast.outside)}"] if forecast.outside else []
    if not predictor.knows_tokens:
        lines.append(
            "its runs all have the same number of tokens: it cannot tell lost compute, and other token counts are a guess"
        )
    return [f"{predictor.name} ({predictor.origin}): {line}" for line in [*lines, *predictor.notes]]


def agreement(forecasts: list[Forecast], question: Question) -> str:
    """Where the laws agree and where they differ, in one sentence."""
    if len(forecasts) < 2:
        return "Only one law was asked; ask several to see how far they agree."
    penalties = [forecast.penalty.value for forecast in forecasts]
    place = f"At R = {short_repeats(question.repeats)}" if question.repeats else "Each at its own worst R,"
    clauses = [f"{place} the laws predict penalties of {min(penalties):.2g} to {max(penalties):.2g} nats"]
    with_worst = [forecast for forecast in forecasts if not math.isnan(forecast.worst.value)]
    worst = [forecast.worst.value for forecast in with_worst]
    if len(worst) > 1:
        decades = math.log10(max(worst) / min(worst))
        clauses.append(
            f"their worst R ranges from {short_repeats(min(worst))} to {short_repeats(max(worst))}, {decades:.1f} decades"
        )
    if len(worst) < len(forecasts):
        names = ", ".join(forecast.predictor.name for forecast in forecasts if math.isnan(forecast.worst.value))
        clauses.append(f"no worst R up to {short_repeats(forecasts[0].curve.repeats[-1])} by {names}")
    if question.repeats and with_worst:
        inside = sum(
            forecast.dangerous[0].value <= question.repeats <= forecast.dangerous[1].value for forecast in with_worst
        )
        clauses.append(
            f"R = {short_repeats(question.repeats)} is in the dangerous range of {inside} of {len(with_worst)} laws"
        )
    return "; ".join(clauses) + "."


def curves(forecasts: list[Forecast], width: int) -> list[str]:
    """Penalty over log R, a line per law scaled to its own maximum, and an axis; no line longer than `width`."""
    names_width = max(len(forecast.predictor.name) for forecast in forecasts)
    ends = [f" to {forecast.curve.penalty.max():.3g} nats" for forecast in forecasts]
    curve_width = max(10, min(CURVE_WIDTH, width - names_width - 1 - max(map(len, ends))))
    top = forecasts[0].curve.repeats[-1]
    grid = np.geomspace(1.0, top, curve_width)
    lines = []
    for forecast, end in zip(forecasts, ends, strict=True):
        curve = forecast.curve
        heights = np.interp(np.log(grid), np.log(curve.repeats), curve.penalty) / (float(curve.penalty.max()) or 1.0)
        blocks = "".join(BLOCKS[round(float(np.clip(height, 0, 1)) * (len(BLOCKS) - 1))] for height in heights)
        lines.append(f"{forecast.predictor.name:>{names_width}} {blocks}{end}")
    return [*lines, f"{'R':>{names_width}} {_axis(float(top), curve_width)}"]


def _axis(top: float, width: int) -> str:
    """Labels of the decades from 1 to `top`, where there is room for them."""
    axis = ""
    for decade in range(int(math.log10(top)) + 1):
        position = round(decade / math.log10(top) * (width - 1))
        if not axis or position > len(axis):
            axis = axis.ljust(position) + f"{10**decade:,}"
    return axis


def _effective_size(forecast: Forecast, question: Question) -> str:
    multiplier, smallest = forecast.multiplier, forecast.smallest_multiplier
    if multiplier.value < smallest:  # the clean law is not extrapolated
        return f"≤ {short_count(smallest * question.params)}, ≤ {smallest:.2g}×"
    interval = bracketed(multiplier.low, multiplier.high, lambda share: short_count(share * question.params))
    return f"{short_count(multiplier.value * question.params)}{interval}, {multiplier.value:.2g}×"


def _worst(forecast: Forecast) -> str:
    worst = forecast.worst
    if math.isnan(worst.value):
        return f"none up to {short_repeats(forecast.curve.repeats[-1])}"
    return short_repeats(worst.value) + bracketed(worst.low, worst.high, short_repeats)


def _dangerous(forecast: Forecast) -> str:
    low, high = (edge.value for edge in forecast.dangerous)
    if math.isnan(low):
        return NOTHING
    return f"from {short_repeats(low)}" if math.isinf(high) else f"{short_repeats(low)} to {short_repeats(high)}"


def _safe(forecast: Forecast) -> str:
    up_to, safe_from = forecast.safe_up_to, forecast.safe_from.value
    if math.isinf(up_to.value):
        return "all"
    first = f"up to {short_repeats(up_to.value)}{bracketed(up_to.low, up_to.high, short_repeats)}"
    return first if math.isinf(safe_from) else f"{first}, or from {short_repeats(safe_from)}"
