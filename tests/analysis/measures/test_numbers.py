"""Double descent, the clean law and effective size as numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.intervals import Bound
from analysis.measures.clean_law import fit_power_law
from analysis.measures.degradation import double_descent
from analysis.measures.effective_size import multiplier


def test_double_descent_of_a_curve_drawn_by_hand() -> None:
    found = double_descent([0, 1, 2, 3, 4, 5], [7.0, 5.0, 5.5, 6.25, 5.75, 4.5])
    assert (found.rise, found.at_tokens, found.won_back) == (1.25, 3, 1.75)


def test_a_rise_that_lasts_wins_nothing_back() -> None:
    found = double_descent([0, 1, 2], [5.0, 4.0, 4.75])
    assert (found.rise, found.at_tokens, found.won_back) == (0.75, 2, 0.0)


def test_a_falling_curve_has_none() -> None:
    found = double_descent([0, 1, 2], [5.0, 4.0, 3.0])
    assert (found.rise, found.won_back) == (0.0, 0.0)


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=30))
def test_rise_is_the_largest_climb_over_all_pairs(losses: list[float]) -> None:
    climbs = [later - earlier for place, later in enumerate(losses) for earlier in losses[: place + 1]]
    assert double_descent(range(len(losses)), losses).rise == pytest.approx(max(climbs))


@pytest.mark.parametrize(("floor", "coefficient", "exponent"), [(1.7, 400.0, 0.34), (0.8, 12.0, 0.1), (2.5, 4e4, 0.7)])
def test_the_fit_gives_a_known_law_back(floor: float, coefficient: float, exponent: float) -> None:
    sizes = np.geomspace(1e5, 1e9, 7)
    law = fit_power_law(sizes, floor + coefficient * sizes**-exponent)
    assert law.irreducible == pytest.approx(floor, rel=0.02)
    assert law.exponent == pytest.approx(exponent, rel=0.02)
    assert law.residual < 1e-3 and law.points == 7
    assert law.size(float(law.loss(3e6))) == pytest.approx(3e6, rel=1e-6)


def test_one_outlier_hardly_moves_the_fit() -> None:
    sizes = np.geomspace(1e5, 1e9, 9)
    losses = 1.7 + 400 * sizes**-0.34
    losses[4] += 0.5
    assert fit_power_law(sizes, losses).exponent == pytest.approx(0.34, rel=0.1)


def test_fewer_sizes_than_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="clean runs of 3 sizes, found 2"):
        fit_power_law([1e5, 1e6, 1e6], [4.0, 3.0, 3.1])


def test_the_multiplier_is_never_extrapolated() -> None:
    sizes = np.geomspace(1e5, 1e8, 7)
    law = fit_power_law(sizes, 1.7 + 400 * sizes**-0.34)
    half = multiplier(law, 1e7, float(law.loss(5e6)))
    assert half.bound is Bound.EXACT and half.value == pytest.approx(0.5, rel=0.01)
    worse, better = multiplier(law, 1e7, 20.0), multiplier(law, 1e7, 1.0)
    assert (worse.bound, worse.value) == (Bound.AT_MOST, pytest.approx(0.01))
    assert (better.bound, better.value) == (Bound.AT_LEAST, pytest.approx(10))
