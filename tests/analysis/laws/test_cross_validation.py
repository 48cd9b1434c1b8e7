"""Cross-validation prefers the true law, and measures the worst R only if it is interior."""

import math
from dataclasses import replace

import numpy as np
import pytest
from law_tables import TRUE, table

from analysis.laws.cross_validation import NEAREST, NO_HARM, cross_validate, measured_peak, verdict
from analysis.laws.points import prediction_points


@pytest.mark.slow
def test_the_true_law_predicts_held_out_runs_best() -> None:
    law, constants = TRUE["partial"]
    points = table(law, constants, 0.004, 0)
    table_of_errors = cross_validate(
        points[(points.tokens == 2e4 * points.params**0.5) & (points.fraction != 0.5) & (points.params < 1e8)]
    )
    sizes = table_of_errors[table_of_errors.held_out.str.startswith("N")]
    errors = sizes.groupby("law").error.mean()
    assert errors["partial"] < errors[NEAREST] < errors[NO_HARM]
    assert errors.idxmin() == "partial", "the runs follow this law"
    sentences = verdict(table_of_errors)
    assert "The best law, partial repetition, beats the better baseline, " in sentences
    assert "partial_free" not in sentences and "hernandez" not in sentences, "readers see titles"
    peaks = sizes[sizes.law == "partial"].peak.dropna()
    assert len(peaks) and peaks.max() < 0.35, "the R tried are half a decade apart"
    assert table_of_errors[table_of_errors.held_out.str.startswith("R")].peak.isna().all()


def test_a_peak_at_the_edge_of_the_range_is_not_measured() -> None:
    rising = prediction_points(1e6, 1e8, 0.5, [1.0, 2.0, 4.0, 8.0, 16.0])
    assert math.isnan(measured_peak(replace(rising, loss=np.arange(5.0) + 3)))
    assert 3 < measured_peak(replace(rising, loss=np.array([3.0, 3.2, 3.5, 3.2, 3.1]))) < 5
