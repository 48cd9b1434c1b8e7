"""Format forecasts for the console: tables, notes, and curves plotted as text."""

import math

import numpy as np

from analysis.forecast.answer import interval_words, share_with_interval
from analysis.forecast.census import Price
from analysis.forecast.forecast import FADED_UP_TO, LARGEST_LOSS, SAFE, Cost, Forecast
from analysis.formatting import NOTHING, bracketed, short_count, short_repeats

COST_HEADINGS = ("R", "f", "subset", "cost of the loss", "95% interval", "nats", "acts like")
PRICE_HEADINGS = ("copies", "share of tokens", "R", "cost of the loss", "95% interval")
LAW_HEADINGS = (
    "law",
    "at R",
    "cost of the loss",
    "95% interval",
    "acts like",
    "compute lost",
    "worst R",
    "harmful R",
    f"R with ≥ {SAFE:.0%} of the size",
)
NOT_CREDIBLE = "not credible"  # printed instead of a number if the predicted loss exceeds LARGEST_LOSS
NO_NUMBER = "no number"  # printed if the plan is too far from the runs in the fit
SAME_CLEAN_LOSS = 0.02  # nats; a smaller difference between laws is not worth a sentence
NOTABLE_JUMP = 0.05  # share of the largest penalty; a smaller jump at R = 1 is not worth a note
BLOCKS = " ▁▂▃▄▅▆▇█"
CURVE_WIDTH = 72  # maximum width of a curve in characters


def cost_row(cost: Cost, forecast: Forecast) -> tuple[str, ...]:
    """The table cells for one R, in the order of COST_HEADINGS."""
    question = forecast.question
    head = (f"{cost.repeats:,.6g}", f"{cost.fraction:.3g}", short_count(question.subset_at(cost.repeats)))
    if forecast.too_far_at(cost.repeats):
        return (*head, NO_NUMBER, NOTHING, NOTHING, NOTHING)
    if forecast.is_beyond(cost.penalty.value):
        return (*head, NOT_CREDIBLE, NOTHING, NOTHING, NOTHING)
    return (*head, *_shares(cost), f"{cost.penalty.value:.2g}", _effective_size(cost, forecast))


def price_row(cost: Cost, passes: float) -> tuple[str, ...]:
    """The table cells for one number of copies in a census: copies, share of the corpus, R, cost and its interval."""
    return (f"{cost.repeats / passes:,.6g}", f"{cost.fraction:.3g}", short_repeats(cost.repeats), *_shares(cost))


def price_sentence(price: Price) -> str:
    """What all duplicates together cost."""
    raised = share_with_interval(price.share)
    return f"The duplicates raise the loss by {raised} compared with a fully deduplicated corpus of the same size."


def law_row(forecast: Forecast) -> tuple[str, ...]:
    """The table cells for one law, in the order of LAW_HEADINGS."""
    cost, lost = forecast.cost, forecast.lost_compute
    if not forecast.has_number:
        why = NO_NUMBER if forecast.too_far else NOT_CREDIBLE
        return (forecast.predictor.label, short_repeats(forecast.repeats), why, *([NOTHING] * 6))
    return (
        forecast.predictor.label,
        short_repeats(forecast.repeats),
        *_shares(cost),
        _effective_size(cost, forecast),
        NOTHING if math.isnan(lost) else f"{lost:.0%}",
        _worst(forecast),
        _harmful(forecast),
        safe_range(forecast),
    )


def _shares(cost: Cost) -> tuple[str, str]:
    """A cost in percent of the clean loss, and its interval."""
    value = f"{100 * cost.share.value:.2f}%" if cost.share.value < 0.1 else f"{cost.share.value:.0%}"
    if math.isnan(cost.share.low):
        return value, NOTHING
    return value, interval_words(cost.share)


def notes(forecast: Forecast) -> list[str]:
    """Reasons for caution about a forecast, one line each."""
    predictor = forecast.predictor
    lines = [f"no number: {forecast.too_far}"] if forecast.too_far else []
    if forecast.outside:
        lines.append(f"the planned run is outside the range of the fit: {', '.join(forecast.outside)}")
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
        " or have different formulas, so compare shares of the loss and worst R rather than nats."
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
    top, scale = max(forecast.curve.repeats[-1] for forecast in forecasts), _scale(forecasts)
    grid = np.geomspace(1.0, top, curve_width)
    lines = []
    for forecast, end in zip(forecasts, ends, strict=True):
        curve = forecast.curve
        heights = np.interp(np.log(grid), np.log(curve.repeats), np.minimum(curve.penalty, forecast.limit), right=0.0)
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


def _no_worst(forecast: Forecast) -> str:
    """Why there is no worst R: the penalty is not credible, peaks where the jump at R = 1 is faded in, or never falls."""
    curve = forecast.curve
    if forecast.is_beyond(float(curve.penalty.max())):
        return NOT_CREDIBLE
    return f"≤ {FADED_UP_TO:g}" if curve.peaks_too_early else f"none up to {short_repeats(curve.repeats[-1])}"


def _effective_size(cost: Cost, forecast: Forecast) -> str:
    return f"{short_count(cost.multiplier.value * forecast.question.params)} ({cost.multiplier.value:.2f})"


def _worst(forecast: Forecast) -> str:
    worst = forecast.worst
    if math.isnan(worst.value):
        return _no_worst(forecast)
    return short_repeats(worst.value) + bracketed(worst.low, worst.high, short_repeats)


def _harmful(forecast: Forecast) -> str:
    low, high = forecast.harmful
    if math.isnan(low):
        return NOTHING
    return f"from {short_repeats(low)}" if math.isinf(high) else f"{short_repeats(low)} to {short_repeats(high)}"


def safe_range(forecast: Forecast) -> str:
    """The ranges of R in which the effective size is at least SAFE of the actual size, with the interval of the first range's end."""
    up_to, safe_from = forecast.safe_up_to, forecast.safe_from
    if math.isinf(up_to.value):
        return "all"
    first = f"up to {short_repeats(up_to.value)}{bracketed(up_to.low, up_to.high, short_repeats)}"
    return first if math.isinf(safe_from) else f"{first}, or from {short_repeats(safe_from)}"
