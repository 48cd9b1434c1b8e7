"""Intervals agree with scipy, and bounds follow arithmetic."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.intervals import (
    Bound,
    Estimate,
    interval_or_range,
    over_seeds,
    paired_difference,
    percentile_interval,
    t_half_width,
    t_interval,
    with_bounds,
)


def test_reciprocals_and_differences_flip_bounds_and_swap_ends() -> None:
    estimate = Estimate(4.0, 2.0, 8.0, resamples=np.array([2.0, 8.0]))
    pool = 16 / estimate
    assert (pool.value, pool.low, pool.high, pool.resamples.tolist()) == (4.0, 2.0, 8.0, [8.0, 2.0])
    assert (1 / Estimate(2.0, bound=Bound.AT_MOST)).bound is Bound.AT_LEAST
    lost = 1 - Estimate(0.25, 0.0, 0.5, Bound.AT_LEAST)
    assert (lost.value, lost.low, lost.high, lost.bound) == (0.75, 0.5, 1.0, Bound.AT_MOST)
    assert f"{(1 - Estimate(0.25)).bound}" == ""


def test_t_intervals_agree_with_scipy_and_one_value_has_none() -> None:
    values = [1.0, 2.0, 4.0, 4.5]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    estimate = t_interval(values)
    assert (estimate.low, estimate.high) == pytest.approx((low, high))
    assert t_interval([2.0]).value == 2.0 and math.isnan(t_interval([2.0]).low) and math.isnan(t_half_width([2.0]))


def test_paired_differences_agree_with_scipy_and_need_two_pairs() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(3, 1, 20)
    after = before + rng.normal(0.1, 0.2, 20)
    paired = paired_difference(after, before)
    expected = stats.ttest_rel(after, before, alternative="greater")
    assert paired.mean == pytest.approx(np.mean(after - before)) and paired.in_standard_errors == pytest.approx(
        expected.statistic
    )
    interval = stats.ttest_rel(after, before).confidence_interval(0.95)
    assert (paired.estimate.low, paired.estimate.high) == pytest.approx((interval.low, interval.high))
    assert paired.is_rise() == (expected.pvalue < 0.05)
    assert paired.is_rise(comparisons=10**6) == (expected.pvalue < 0.05 / 10**6)
    assert stats.ttest_ind(after, before, alternative="greater").pvalue > 0.05 > expected.pvalue, (
        "pairs are more precise"
    )
    single = paired_difference([2.0], [1.0])
    assert single.mean == 1.0 and math.isnan(single.estimate.low) and not single.is_rise()
    equal = paired_difference([2.0, 3.0], [1.0, 2.0])
    assert equal.is_rise(10**6) and equal.in_standard_errors == math.inf
    assert not paired_difference([1.0, 2.0], [1.0, 2.0]).is_rise()


def test_percentile_intervals_leave_out_or_keep_infinite_values() -> None:
    values = [*np.arange(1, 40.0), np.inf, np.inf, np.nan]
    assert percentile_interval(values) == pytest.approx((1.95, 38.05))
    assert percentile_interval(values, keep_infinite=True)[1] == math.inf
    assert all(math.isnan(end) for end in percentile_interval([np.nan]))


def test_means_over_seeds_have_an_interval_a_range_or_nothing() -> None:
    table = pd.DataFrame({"arm": [*"aaaaa", *"bb", "c"], "x": [1.0, 2, 3, 4, 5, 1, 3, 7]})
    means = over_seeds(table, ["arm"], "x").set_index("arm")
    assert means["mean"].tolist() == [3, 2, 7] and means.seeds.tolist() == [5, 2, 1]
    assert means.high["a"] - 3 == pytest.approx(t_half_width([1, 2, 3, 4, 5]))
    assert means.low["c"] == means.high["c"] == 7
    few = interval_or_range(table, ["arm"], "x").set_index("arm")
    assert (few.low["b"], few.high["b"]) == (1, 3) and few.low["a"] == means.low["a"]
    bounded = with_bounds(over_seeds(table, ["arm"], "x"), table.assign(bound=["", "≤", *[""] * 6]), ["arm"])
    assert bounded.bound.tolist() == ["≤", "", ""]
