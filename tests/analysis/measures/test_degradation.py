"""Rise and recovery of a loss curve are measured correctly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.measures.degradation import double_descent


def test_double_descent_of_a_hand_made_curve() -> None:
    descent = double_descent([0, 1, 2, 3, 4, 5], [7.0, 5.0, 5.5, 6.25, 5.75, 4.5])
    assert (descent.rise, descent.at_tokens, descent.won_back) == (1.25, 3, 1.75)


def test_a_rise_that_lasts_wins_nothing_back() -> None:
    descent = double_descent([0, 1, 2], [5.0, 4.0, 4.75])
    assert (descent.rise, descent.at_tokens, descent.won_back) == (0.75, 2, 0.0)


def test_a_falling_curve_has_no_double_descent() -> None:
    descent = double_descent([0, 1, 2], [5.0, 4.0, 3.0])
    assert (descent.rise, descent.won_back) == (0.0, 0.0)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=30))
def test_rise_is_the_largest_climb_over_all_pairs(losses: list[float]) -> None:
    climbs = [later - earlier for place, later in enumerate(losses) for earlier in losses[: place + 1]]
    assert double_descent(range(len(losses)), losses).rise == pytest.approx(max(climbs))
