"""Counts of parameters and tokens as people write them: 125M, 1.5B, 100_000, 3e9."""

import re

UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
# A smaller count of parameters or tokens is almost surely meant in millions or billions.
SMALLEST_COUNT = 1000.0
LARGEST_COUNT = 1e30
ACCEPTED_COUNTS = "counts from 1,000 upwards such as 800M, 1.5B, 100_000 or 3e9"
_DIGITS = r"(?:[0-9]{1,3}(?:[,_][0-9]{3})+|[0-9]+)"  # with or without thousands separators
_NUMBER = re.compile(rf"({_DIGITS}(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?)\s*([kmbgt]?)", re.IGNORECASE)


def parse_number(text: str) -> float | None:
    """A number without a sign that may have thousands separators and end in k, M, B or T; None if it is not one."""
    match = _NUMBER.fullmatch(text.strip())
    return float(match[1].replace(",", "").replace("_", "")) * UNITS[match[2].lower()] if match else None


def parse_count(text: str) -> float | None:
    """A number of parameters or tokens, as `parse_number` reads it; None if it is not one or out of range."""
    value = parse_number(text)
    return value if value is not None and SMALLEST_COUNT <= value < LARGEST_COUNT else None
