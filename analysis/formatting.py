"""How numbers are written in figures, tables and sentences."""

import math
from collections.abc import Callable, Iterable

NOTHING = "–"  # in a table cell without a number
UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def short_count(value: float) -> str:
    """A count of parameters or tokens with three digits and a letter: 24.6k, 1.57M, 100B."""
    for unit, letter in UNITS:
        if value >= 0.9995 * unit:  # 999,600 is 1M, not 1e+03k
            return f"{value / unit:.3g}{letter}"
    return f"{value:.3g}"


def short_repeats(value: float) -> str:
    """A number of repeats to two digits: 1.5, 12, 3,400, ∞."""
    return "∞" if math.isinf(value) else f"{float(f'{value:.2g}'):,.0f}" if value >= 10 else f"{value:.2g}"


def three_digits(value: float) -> str:
    """A number to three significant digits, large ones in full: 0.0123, 45,600."""
    return NOTHING if math.isnan(value) else f"{float(f'{value:.3g}'):,.10g}"


def cell(value: float, form: str = ".3f") -> str:
    """A number for a table cell, "–" for NaN."""
    return NOTHING if value is None or value != value else format(value, form)


def plural(count: int, noun: str) -> str:
    """1 run, 2 runs."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


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
