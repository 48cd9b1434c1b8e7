"""Numbers are formatted as text."""

import math

import pytest

from analysis.formatting import (
    bracketed,
    cell,
    listed,
    plural,
    shared_settings,
    short_count,
    short_repeats,
    signed,
    signed_span,
    span,
    three_digits,
)


@pytest.mark.parametrize(
    ("count", "text"),
    [(24576, "24.6k"), (1.57e6, "1.57M"), (805e6, "805M"), (1e11, "100B"), (2e12, "2T"), (999_600, "1M"), (640, "640")],
)
def test_counts_have_three_digits_and_a_letter(count: float, text: str) -> None:
    assert short_count(count) == text


def test_repeats_have_two_digits() -> None:
    assert [short_repeats(value) for value in (1.53, 12.4, 3417, math.inf)] == ["1.5", "12", "3,400", "∞"]


def test_missing_numbers_become_dashes_and_equal_ends_are_written_once() -> None:
    assert (cell(math.nan), cell(0.5), cell(1234, ",d"), three_digits(math.nan)) == ("–", "0.500", "1,234", "–")
    assert (three_digits(45678.0), three_digits(0.012345)) == ("45,700", "0.0123")
    assert (plural(1, "run"), plural(2, "run")) == ("1 run", "2 runs")
    assert (span([4, 1, 2], str), span([3, 3], str)) == ("1 to 4", "3")
    assert [listed(list("abc"[:count])) for count in (1, 2, 3)] == ["a", "a and b", "a, b, and c"]
    assert (bracketed(0.1, 0.3, "{:.1f}".format), bracketed(math.nan, 0.3, str)) == (" [0.1, 0.3]", "")
    assert bracketed(0.11, 0.12, "{:.1f}".format) == ""


def test_a_difference_that_rounds_to_zero_has_no_minus_sign() -> None:
    assert (signed(-0.0003), signed(-0.004), signed(-0.25)) == ("+0.000", "-0.004", "-0.25")
    assert signed_span([-0.0003, 0.3]) == "+0.000 to +0.30"


def test_a_legend_names_what_all_variants_share_once_or_not_at_all() -> None:
    assert shared_settings(["weight_decay = 0.1", "weight_decay = 1.0"]) == ("weight_decay", ["0.1", "1.0"])
    both = ["a = 1, tokens = 16,384", "a = 2, tokens = 8192"]
    assert shared_settings(both) == ("a / tokens", ["1 / 16,384", "2 / 8192"])
    assert shared_settings(["a = 1, b = 3, passes", "a = 2, b = 3, passes"]) == ("a", ["1", "2"])
    orders = ["a = 1, b = 3, passes", "a = 2, b = 3, passes", "a = 1, b = 3, uniform"]
    assert shared_settings(orders) == ("", ["a = 1, passes", "a = 2, passes", "a = 1, uniform"])
    for labels in (["passes", "bursts 4 apart"], ["a = 1", "b = 1"], ["a = 1", "a = 2, passes"], ["a = 1"], []):
        assert shared_settings(labels) == ("", labels)
