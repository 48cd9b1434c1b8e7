"""Forecasts agree with the papers, and with the law that runs follow."""

import math
import subprocess
import sys

import pytest
from law_tables import TRUE, table

from analysis.forecast.console import agreement, curves
from analysis.forecast.forecast import Question, as_record, forecast
from analysis.forecast.predictors import fitted_predictor, published_predictors
from analysis.laws.fit import fit
from analysis.laws.points import prediction_points
from analysis.published import C26_WORST_REPEATS, H22_LEFT_EDGE, H22_RIGHT_EDGE


def test_published_laws_reproduce_the_numbers_of_their_papers() -> None:
    predictors = {predictor.name: predictor for predictor in published_predictors()}
    band = forecast(predictors["hernandez"], Question(800e6, 100e9, 0.1, 100))
    assert band.dangerous[0].value == pytest.approx(H22_LEFT_EDGE.at(800e6), rel=0.03)
    assert band.dangerous[1].value == pytest.approx(H22_RIGHT_EDGE.at(800e6), rel=0.03)
    assert 340e6 < band.multiplier.value * 800e6 < 400e6
    assert not band.outside
    for fraction, multiplier in ((0.5, 1 / 10), (0.9, 1 / 73)):
        worst = forecast(predictors["hernandez"], Question(800e6, 100e9, fraction))
        assert worst.multiplier.value == pytest.approx(multiplier, rel=0.02)
    for size, lost in ((34e6, 0.19), (153e6, 0.26), (344e6, 0.33)):
        found = forecast(predictors["chudnovsky"], Question(size, 20 * size, 0.1))
        assert found.worst.value == pytest.approx(C26_WORST_REPEATS.at(size), rel=0.03)
        assert found.lost_compute == pytest.approx(lost, abs=0.02)
        assert not found.outside
    assert "params 1e+10" in forecast(predictors["chudnovsky"], Question(1e10, 2e11, 0.1)).outside[0]
    data = forecast(predictors["muennighoff"], Question(1e9, 1e11, 1.0, 4))
    assert math.isnan(data.worst.value) and data.penalty.value > 0


def test_a_fitted_law_forecasts_with_intervals_and_reports_what_is_outside_its_range() -> None:
    law, constants = TRUE["partial"]
    points = table(law, constants, 0.004, 0)
    found = forecast(fitted_predictor(fit(law, points, resamples=20)), question := Question(5e6, 4e7, 0.9, 100))
    assert found.penalty.low < found.penalty.value < found.penalty.high
    true = law.loss(constants, prediction_points(5e6, 4e7, 0.9, [1.0, 100.0]))
    assert found.penalty.value == pytest.approx(true[1] - true[0], rel=0.1)
    assert found.worst.low <= found.worst.value <= found.worst.high
    assert as_record(found)["size_multiplier"]["value"] == found.multiplier.value  # type: ignore[index]
    assert not found.outside and forecast(found.predictor, Question(5e6, 4e7, 0.1, 100)).outside
    assert len(curves([found], 100)) == 2 and "ask several" in agreement([found], question)


def test_published_laws_are_evaluated_without_torch_pandas_and_scipy() -> None:
    code = "import sys, analysis.forecast.console; sys.exit(any(name in sys.modules for name in ('torch', 'pandas', 'scipy')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
