"""Format counts, durations and sizes for the console, tables and reports."""

UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def short_count(value: float) -> str:
    """Format a count with three significant digits and a unit suffix: 24.6k, 1.57M, 100B."""
    for unit, letter in UNITS:
        if value >= 0.9995 * unit:  # 999,600 is 1M, not 1e+03k
            return f"{value / unit:.3g}{letter}"
    return f"{value:.3g}"


def plural(count: int, noun: str) -> str:
    """Format a count with its noun: 1 run, 2 runs, 2 processes."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}{'es' if noun.endswith('s') else 's'}"


def any_of(count: int, noun: str) -> str:
    """After "in": any of the 3 runs, or the only run."""
    return f"any of the {plural(count, noun)}" if count > 1 else f"the only {noun}"


def duration(seconds: float) -> str:
    """Format seconds in one or two units: 0.02 s, 42 s, 7 min, 3 h 20 min, 12 days, 20,000 years."""
    if seconds < 59.5:
        return f"{seconds:.0f} s" if seconds >= 2 else f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    if minutes < 48 * 60:
        return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
    days = seconds / 86_400
    return f"{days:,.0f} days" if days < 730 else f"{days / 365.25:,.0f} years"


def byte_size(count: float) -> str:
    """Format a number of bytes with three significant digits: 24.1 MB, 1.52 GB."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= 0.9995 * unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:.0f} bytes"
