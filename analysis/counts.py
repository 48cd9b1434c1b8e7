"""Parse counts of parameters and tokens such as 125M, 1.5B, 100_000 or 3e9."""

import re

UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
# Smaller numbers are rejected, because the user most likely meant millions or billions.
SMALLEST_COUNT = 1000.0
LARGEST_COUNT = 1e30
ACCEPTED_COUNTS = "a count of at least 1,000, such as 800M, 1.5B, 100_000 or 3e9"
_DIGITS = r"(?:[0-9]{1,3}(?:[,_][0-9]{3})+|[0-9]+)"  # with or without thousands separators
_NUMBER = re.compile(rf"({_DIGITS}(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?)\s*([kmbgt]?)", re.IGNORECASE)


def parse_number(text: str) -> float | None:
    """Parse an unsigned number with optional thousands separators and an optional suffix k, M, B, G or T; None if this fails."""
    match = _NUMBER.fullmatch(text.strip())
    return float(match[1].replace(",", "").replace("_", "")) * UNITS[match[2].lower()] if match else None


def parse_count(text: str) -> float | None:
    """Parse a number of parameters or tokens with `parse_number`; None if this fails or the number is out of range."""
    value = parse_number(text)
    return value if value is not None and SMALLEST_COUNT <= value < LARGEST_COUNT else None
