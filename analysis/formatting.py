"""How numbers of results are written in figures, tables and sentences; counts are written as in `repeat_study.formatting`."""

import math
from collections.abc import Callable, Iterable

from repeat_study.formatting import plural as plural
from repeat_study.formatting import short_count as short_count

NOTHING = "–"  # in a table cell without a number


def short_repeats(value: float) -> str:
    """A number of repeats to two digits: 1.5, 12, 3,400, ∞."""
    return "∞" if math.isinf(value) else f"{float(f'{value:.2g}'):,.0f}" if value >= 10 else f"{value:.2g}"


def three_digits(value: float) -> str:
    """A number to three significant digits, large ones in full: 0.0123, 45,600."""
    return NOTHING if math.isnan(value) else f"{float(f'{value:.3g}'):,.10g}"


def cell(value: float, form: str = ".3f") -> str:
    """A number for a table cell, "–" for NaN."""
    return NOTHING if value is None or value != value else format(value, form)


def span(values: Iterable[float], form: Callable[[float], str]) -> str:
    """Smallest and largest value, "2 to 5"; one number if both look the same."""
    listed = list(values)
    low, high = form(min(listed)), form(max(listed))
    return low if low == high else f"{low} to {high}"


def bracketed(low: float, high: float, form: Callable[[float], str]) -> str:
    """An interval to write after its number, " [0.1, 0.3]"; empty if there is none or both ends look the same."""
    if math.isnan(low) or form(low) == form(high):
        return ""
    return f" [{form(low)}, {form(high)}]"
