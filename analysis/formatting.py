"""Format numbers for figures, tables and sentences. Counts are formatted by `repeat_study.formatting`."""

import math
from collections.abc import Callable, Iterable, Sequence

from repeat_study.formatting import any_of as any_of
from repeat_study.formatting import plural as plural
from repeat_study.formatting import short_count as short_count

NOTHING = "–"  # the text of a table cell without a number


def short_repeats(value: float) -> str:
    """Format a number of repeats to two significant digits: 1.5, 12, 3,400, ∞."""
    return "∞" if math.isinf(value) else f"{float(f'{value:.2g}'):,.0f}" if value >= 10 else f"{value:.2g}"


def three_digits(value: float) -> str:
    """Format a number to three significant digits, with thousands separators: 0.0123, 45,600."""
    return NOTHING if math.isnan(value) else f"{float(f'{value:.3g}'):,.10g}"


def percent(share: float) -> str:
    """Format a share to three significant digits: 50%, 1.5%, 0.512%."""
    return f"{100 * share:.3g}%"


def cell(value: float, form: str = ".3f") -> str:
    """Format a number for a table cell; None and NaN become "–"."""
    return NOTHING if value is None or value != value else format(value, form)


def span(values: Iterable[float], form: Callable[[float], str]) -> str:
    """Format the range of the values as "2 to 5", or as a single number if both ends look the same."""
    listed = list(values)
    low, high = form(min(listed)), form(max(listed))
    return low if low == high else f"{low} to {high}"


def listed(phrases: Sequence[str]) -> str:
    """Join phrases with commas and "and": "a", "a and b", "a, b, and c"."""
    if len(phrases) < 3:
        return " and ".join(phrases)
    return f"{', '.join(phrases[:-1])}, and {phrases[-1]}"


def nats_digits(mean: float, low: float, high: float) -> int:
    """The number of decimals for a difference in nats: two, or three if the difference or half its interval is below 0.01.

    low, high: the ends of the interval; NaN or equal if there is none.
    """
    half = (high - low) / 2
    return 3 if 0 < half < 0.01 or abs(mean) < 0.01 else 2


def signed(difference: float) -> str:
    """A difference in nats with its sign, without an interval: "+0.25", or "+0.004" if it is below 0.01."""
    return f"{difference:+z.{nats_digits(difference, math.nan, math.nan)}f}"


def signed_span(values: Iterable[float]) -> str:
    """The range of differences in nats with their signs: "+0.01 to +0.30", or "less than 0.001" if all are that close to 0."""
    differences = list(values)
    if max(map(abs, differences)) < 0.0005:
        return "less than 0.001"
    return span(differences, signed)


def bracketed(low: float, high: float, form: Callable[[float], str]) -> str:
    """Format an interval to append to its number, such as " [0.1, 0.3]". Empty if it is NaN or both ends look the same."""
    if math.isnan(low) or form(low) == form(high):
        return ""
    return f" [{form(low)}, {form(high)}]"


def order_name(spacing: object, burst_distance: object) -> str:
    """The name of an order of copies in figures, tables and sentences: "passes", "bursts 4 apart"."""
    return f"{spacing} {burst_distance} apart" if burst_distance else str(spacing)


def size_name(model: str, parameters: float) -> str:
    """The name of a model size in figures, tables and sentences, with its non-embedding parameter count: "2x32 (24.6k)"."""
    return f"{model} ({short_count(parameters)})"


def size_names(models: Iterable[str], parameters: Iterable[float]) -> dict[float, str]:
    """Map parameter counts to names of model sizes. Models with equal counts share a name: "2x64, 2x64-qwen (98.3k)"."""
    named: dict[float, set[str]] = {}
    for model, count in zip(models, parameters, strict=True):
        named.setdefault(count, set()).add(model)
    return {count: size_name(", ".join(sorted(named[count])), count) for count in sorted(named)}


def shared_settings(labels: Sequence[str]) -> tuple[str, list[str]]:
    """A title and short labels for a legend of variants.

    Parts that are the same in all labels are dropped: "passes" in "a = 1, passes" and "a = 2, passes". If the other parts give values
    of the same settings, the settings become the title, such as "a / b", and the values the labels, such as "1 / x" and "2 / x".
    The title is empty otherwise.
    """
    if len({label.count(", ") for label in labels}) != 1:
        return "", list(labels)
    columns = zip(*(label.split(", ") for label in labels), strict=True)
    if not (varied := [column for column in columns if len(set(column)) > 1]):
        return "", list(labels)
    settings = [[part.partition(" = ") for part in column] for column in varied]
    names = [{name for name, _, _ in column} for column in settings]
    if any(len(name) > 1 for name in names) or not all(sign for column in settings for _, sign, _ in column):
        return "", [", ".join(parts) for parts in zip(*varied, strict=True)]
    values = [[value for _, _, value in column] for column in settings]
    return " / ".join(name.pop() for name in names), [" / ".join(row) for row in zip(*values, strict=True)]
