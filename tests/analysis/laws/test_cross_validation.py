"""Cross-validation prefers the true law, and measures the worst R only if it is interior."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
from law_tables import TRUE, table

from analysis.laws.cross_validation import (
    MOST_NAMED,
    NEAREST,
    NO_HARM,
    cross_validate,
    measured_peak,
    summarize,
    verdict,
)
from analysis.laws.leave_out import SIZE, folds
from analysis.laws.points import prediction_points


def test_the_true_law_predicts_held_out_runs_best_and_its_intervals_hold() -> None:
    law, constants = TRUE["partial"]
    points = table(law, constants, 0.004, 0)
    points = points[(points.tokens == 2e4 * points.params**0.5) & (points.fraction != 0.5) & (points.params < 1e8)]
    errors = cross_validate(points, laws=(TRUE["partial"][0], TRUE["lovelace"][0]))
    sizes = summarize(errors).query("kind == 'size'").set_index("law")
    assert sizes.error["partial"] < sizes.error[NEAREST] < sizes.error[NO_HARM]
    assert sizes.error.idxmin() == "partial", "the runs follow this law"
    assert sizes.coverage["partial"] >= 0.9
    sentences = verdict(errors)
    assert "The best law, partial repetition, beats the better baseline, " in sentences
    assert "lovelace" not in sentences, "readers see titles"
    peaks = errors[(errors.law == "partial") & (errors.kind == SIZE)].worst_repeats.dropna()
    assert len(peaks) and peaks.max() < 0.35, "the R tried are half a decade apart"
    assert errors[errors.kind != SIZE].worst_repeats.isna().all()
    assert list(dict.fromkeys(errors.held_out))[:2] == ["N = 200,000", "N = 1,000,000"]


def test_a_held_out_size_takes_its_clean_runs_with_it() -> None:
    law, constants = TRUE["partial"]
    points = table(law, constants, 0.0, 0)
    for fold in folds(points):
        assert not (fold.test & points.clean).any() and (fold.dropped | ~fold.test).all()
        if fold.kind == SIZE:
            assert np.isin(points.params[~fold.dropped], points.params[fold.test]).sum() == 0
    assert sum(fold.kind == SIZE for fold in folds(points, most_sizes=2)) == 2


def test_a_peak_at_the_edge_of_the_range_is_not_measured() -> None:
    rising = prediction_points(1e6, 1e8, 0.5, [1.0, 2.0, 4.0, 8.0, 16.0])
    assert math.isnan(measured_peak(replace(rising, loss=np.arange(5.0) + 3)))
    assert 3 < measured_peak(replace(rising, loss=np.array([3.0, 3.2, 3.5, 3.2, 3.1]))) < 5


def test_folds_in_which_a_baseline_wins_are_named_or_counted() -> None:
    def with_folds(count: int) -> str:
        columns = {"median": 0.1, "worst_repeats": math.nan, "coverage": 1.0, "implausible": 0, "reason": "", "runs": 4}
        rows = [
            {"kind": SIZE, "held_out": f"N = {fold}", "law": law, "error": error} | columns
            for fold in range(count)
            for law, error in (("partial", 0.2 if fold else 0.01), (NO_HARM, 0.3), (NEAREST, 0.1 if fold else 0.4))
        ]
        return verdict(pd.DataFrame(rows))

    assert with_folds(3).endswith(
        "A baseline predicts more accurately than partial repetition in 2 of 3 folds: N = 1; N = 2."
    )
    assert with_folds(MOST_NAMED + 2).endswith("in 5 of 6 folds.")
