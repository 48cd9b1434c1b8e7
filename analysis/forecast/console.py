"""Answers in words: rows of a table, what the laws agree on and not, and a curve drawn with characters."""

import math

import numpy as np

from analysis.forecast.forecast import SAFE, Forecast, Question
from analysis.formatting import bracketed, short_count, short_repeats

COLUMNS = (
    "law",
    "from",
    "at R",
    "penalty (nats)",
    "acts like",
    "compute lost",
    "worst R",
    "dangerous R",
    f"R with ≥ {SAFE:.0%} of the size",
)
BLOCKS = " ▁▂▃▄▅▆▇█"
WIDTH = 72  # of a curve


def row(found: Forecast, question: Question) -> tuple[str, ...]:
    """A law's answer by COLUMNS; intervals in brackets."""
    share = found.multiplier
    if share.value < found.floor:  # the clean law is not extrapolated
        size = f"≤ {short_count(found.floor * question.params)}, ≤ {found.floor:.2g}×"
    else:
        between = bracketed(share.low, share.high, lambda x: short_count(x * question.params))
        size = f"{short_count(share.value * question.params)}{between}, {share.value:.2g}×"
    return (
        found.predictor.name,
        found.predictor.origin,
        short_repeats(found.repeats),
        f"{found.penalty.value:.3g}{bracketed(found.penalty.low, found.penalty.high, lambda x: f'{x:.3g}')}",
        size,
        "–" if math.isnan(found.lost_compute) else f"{found.lost_compute:.0%}",
        f"none up to {short_repeats(found.curve.repeats[-1])}"
        if math.isnan(found.worst.value)
        else short_repeats(found.worst.value) + bracketed(found.worst.low, found.worst.high, short_repeats),
        _band(found),
        _safe(found),
    )


def notes(found: Forecast) -> list[str]:
    """What to know before this answer is believed, a line each."""
    said = [f"outside of what it was fitted on: {', '.join(found.outside)}"] if found.outside else []
    if not found.predictor.knows_tokens:
        said.append("all its runs have the same tokens: it says nothing of compute, and other tokens are a guess")
    return [f"{found.predictor.name} ({found.predictor.origin}): {note}" for note in [*said, *found.predictor.notes]]


def agreement(answers: list[Forecast], question: Question) -> str:
    """What the laws agree on and what not, in sentences."""
    if len(answers) < 2:
        return "One law was asked: ask several to see how far they agree."
    penalties = [one.penalty.value for one in answers]
    at = f"At R = {short_repeats(question.repeats)}" if question.repeats else "At the worst R of each"
    said = [f"{at} the laws' penalties run from {min(penalties):.2g} to {max(penalties):.2g} nats"]
    peaks = [one.worst.value for one in answers if not math.isnan(one.worst.value)]
    if len(peaks) > 1:
        apart = math.log10(max(peaks) / min(peaks))
        said.append(
            f"their worst R from {short_repeats(min(peaks))} to {short_repeats(max(peaks))}, {apart:.1f} decades"
        )
    if len(peaks) < len(answers):
        without = ", ".join(one.predictor.name for one in answers if math.isnan(one.worst.value))
        said.append(f"none up to R = {short_repeats(answers[0].curve.repeats[-1])} by {without}")
    if question.repeats and peaks:
        bands = [one for one in answers if not math.isnan(one.worst.value)]
        inside = sum(one.band[0].value <= question.repeats <= one.band[1].value for one in bands)
        said.append(f"R = {short_repeats(question.repeats)} lies in the dangerous range of {inside} of {len(bands)}")
    return "; ".join(said) + "."


def curves(answers: list[Forecast]) -> list[str]:
    """A line per law of its penalty over log R, each up to its own largest, above an axis."""
    top = answers[0].curve.repeats[-1]
    places = np.geomspace(1.0, top, WIDTH)
    width = max(len(one.predictor.name) for one in answers)
    lines = []
    for one in answers:
        tallest = float(one.curve.penalty.max()) or 1.0
        heights = np.interp(np.log(places), np.log(one.curve.repeats), one.curve.penalty) / tallest
        drawn = "".join(BLOCKS[round(float(np.clip(height, 0, 1)) * (len(BLOCKS) - 1))] for height in heights)
        lines.append(f"{one.predictor.name:>{width}} {drawn} to {one.curve.penalty.max():.3g} nats")
    axis = [" "] * (WIDTH + 8)
    for decade in range(int(math.log10(top)) + 1):
        label = f"{10**decade:,}"
        at = round(decade / math.log10(top) * (WIDTH - 1))
        axis[at : at + len(label)] = label
    return [*lines, f"{'R':>{width}} {''.join(axis).rstrip()}"]


def _band(found: Forecast) -> str:
    low, high = (edge.value for edge in found.band)
    if math.isnan(low):
        return "–"
    return f"from {short_repeats(low)}" if math.isinf(high) else f"{short_repeats(low)} to {short_repeats(high)}"


def _safe(found: Forecast) -> str:
    low, high = found.safe_up_to.value, found.safe_from.value
    if math.isinf(low):
        return "all"
    up_to = f"up to {short_repeats(low)}{bracketed(found.safe_up_to.low, found.safe_up_to.high, short_repeats)}"
    return up_to if math.isinf(high) else f"{up_to}, or from {short_repeats(high)}"
