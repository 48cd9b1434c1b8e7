"""Forecasts agree with the papers, and with the law behind generated runs."""

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from law_tables import TRUE, table

from analysis.forecast.console import HEADINGS, agreement, clean_losses, curves, curves_title, notes, table_row
from analysis.forecast.forecast import Forecast, Question, forecast
from analysis.forecast.predictors import fitted_predictor, published_predictors
from analysis.forecast.record import as_record
from analysis.laws.fit import fit
from analysis.laws.points import prediction_points
from analysis.published import C26_WORST_REPEATS, H22_LEFT_EDGE, H22_RIGHT_EDGE


def test_published_laws_reproduce_the_numbers_of_their_papers() -> None:
    predictors = {predictor.name: predictor for predictor in published_predictors()}
    band = forecast(predictors["hernandez"], Question(800e6, 100e9, 0.1, 100))
    assert band.harmful[0].value == pytest.approx(H22_LEFT_EDGE.at(800e6), rel=0.03)
    assert band.harmful[1].value == pytest.approx(H22_RIGHT_EDGE.at(800e6), rel=0.03)
    assert 340e6 < band.multiplier.value * 800e6 < 400e6
    assert not band.outside
    for fraction, multiplier in ((0.5, 1 / 10), (0.9, 1 / 73)):
        worst = forecast(predictors["hernandez"], Question(800e6, 100e9, fraction))
        assert worst.multiplier.value == pytest.approx(multiplier, rel=0.02)
    for size, lost in ((34e6, 0.19), (153e6, 0.26), (344e6, 0.33)):
        predicted = forecast(predictors["chudnovsky"], Question(size, 20 * size, 0.1))
        assert predicted.worst.value == pytest.approx(C26_WORST_REPEATS.at(size), rel=0.03)
        assert predicted.lost_compute == pytest.approx(lost, abs=0.02)
        assert not predicted.outside
    assert "parameters 10B" in forecast(predictors["chudnovsky"], Question(1e10, 2e11, 0.1)).outside[0]
    data = forecast(predictors["muennighoff"], Question(1e9, 1e11, 1.0, 4))
    assert math.isnan(data.worst.value) and data.penalty.value > 0


def test_a_fitted_law_has_intervals_and_reports_questions_outside_its_range() -> None:
    law, constants = TRUE["partial"]
    points = table(law, constants, 0.004, 0)
    predicted = forecast(fitted_predictor(fit(law, points, resamples=20)), question := Question(5e6, 4e7, 0.9, 100))
    assert predicted.penalty.low < predicted.penalty.value < predicted.penalty.high
    losses = law.loss(constants, prediction_points(5e6, 4e7, 0.9, [1.0, 100.0]))
    assert predicted.penalty.value == pytest.approx(losses[1] - losses[0], rel=0.1)
    assert predicted.worst.low <= predicted.worst.value <= predicted.worst.high
    assert as_record(predicted)["size_multiplier"]["value"] == predicted.multiplier.value  # type: ignore[index]
    assert not predicted.outside and forecast(predicted.predictor, Question(5e6, 4e7, 0.1, 100)).outside
    assert len(curves([predicted], 100)) == 2 and "compare several" in agreement([predicted], question)


QUESTIONS = [
    Question(800e6, 100e9, 0.1, 100),
    Question(1e12, 2e13, 0.1),
    Question(3e6, 1e8, 0.9),
    Question(24e3, 2e6, 0.5, 1.0),
    Question(1e3, 1e3, 1.0),
    Question(1e29, 1e29, 1.0, 1e6),
]


def all_forecasts(question: Question) -> list[Forecast]:
    return [forecast(predictor, question) for predictor in published_predictors()]


@pytest.mark.parametrize("question", QUESTIONS, ids=str)
def test_every_interval_contains_its_value(question: Question) -> None:
    law, constants = TRUE["partial"]
    fitted = fitted_predictor(fit(law, table(law, constants, 0.01, 1), resamples=20))
    for predicted in [*all_forecasts(question), forecast(fitted, question)]:
        record = as_record(predicted)
        estimates = {key: value for key, value in record.items() if isinstance(value, dict) and "low" in value}
        assert {"penalty_nats", "harmful_from", "harmful_up_to", "safe_up_to", "worst_repeats"} <= estimates.keys()
        for key, estimate in estimates.items():
            if estimate["value"] is None:  # infinite, unknown or not credible
                continue
            assert estimate["low"] is None or estimate["low"] <= estimate["value"], key
            assert estimate["high"] is None or estimate["value"] <= estimate["high"], key
        if predicted.penalty_band:
            low, high = predicted.penalty_band
            assert (low <= predicted.curve.penalty).all() and (predicted.curve.penalty <= high).all()


def test_the_interval_of_the_worst_R_has_no_upper_end_if_some_resamples_lack_one() -> None:
    chudnovsky = next(predictor for predictor in published_predictors() if predictor.name == "chudnovsky")
    rising = next(predictor for predictor in published_predictors() if predictor.name == "muennighoff").loss
    predicted = forecast(replace(chudnovsky, noise=None, resampled_losses=(chudnovsky.loss, rising)), QUESTIONS[0])
    assert predicted.worst.low == pytest.approx(predicted.worst.value) and math.isinf(predicted.worst.high)


@pytest.mark.parametrize("question", QUESTIONS, ids=str)
def test_every_curve_starts_at_zero_and_without_a_jump(question: Question) -> None:
    for predicted in all_forecasts(question):
        assert predicted.curve.penalty[0] == 0 and predicted.curve.multiplier[0] == 1
        near = forecast(predicted.predictor, replace(question, repeats=1.0001)).penalty.value
        assert near == pytest.approx(0, abs=2e-3 * max(1e-9, predicted.curve.penalty.max()))


def test_a_jump_at_one_repeat_is_noted_and_is_not_a_worst_R() -> None:
    notes_of = {
        predicted.predictor.name: (predicted, " ".join(notes(predicted))) for predicted in all_forecasts(QUESTIONS[1])
    }
    assert "the formula jumps by 0.0065 nats just above R = 1" in notes_of["hernandez"][1]
    chudnovsky, text = notes_of["chudnovsky"]
    assert "just above R = 1" in text and math.isnan(chudnovsky.worst.value)
    assert table_row(chudnovsky, QUESTIONS[1])[HEADINGS.index("worst R")] == "≤ 2"
    assert "just above" not in " ".join(notes(all_forecasts(QUESTIONS[0])[0]))


def test_curves_share_one_scale_that_the_title_gives() -> None:
    forecasts = all_forecasts(QUESTIONS[0])
    title, lines = curves_title(forecasts), curves(forecasts, 120)
    assert "all curves on the same scale, █ = 0.151 nats" in title
    assert [line.count("█") > 0 for line in lines] == [True, False, False, False]
    assert "up to 0.151 nats" in lines[0] and "up to 0.0303 nats" in lines[1]
    assert all(line.split("▁")[0].strip() == each.predictor.title for line, each in zip(lines, forecasts, strict=False))


def test_penalties_beyond_the_law_are_not_printed_as_numbers() -> None:
    forecasts = all_forecasts(QUESTIONS[2])
    hernandez, *others = forecasts
    row = dict(zip(HEADINGS, table_row(hernandez, QUESTIONS[2]), strict=True))
    assert row["penalty (nats)"] == "> 5.66, not credible" and row["worst R"] == "not credible"
    assert row["acts like"] == row["compute lost"] == row["harmful R"] == "–"
    assert "The penalty is not credible for Hernandez et al. (published)." in agreement(forecasts, QUESTIONS[2])
    assert "the predicted loss exceeds 12.5 nats per token" in " ".join(notes(hernandez))
    record = as_record(hernandez)
    assert record["penalty_beyond_the_law"] is True
    assert record["penalty_nats"] == {"value": None, "low": None, "high": None}
    assert record["largest_credible_penalty_nats"] == pytest.approx(5.66, abs=0.01)
    assert not any(as_record(other)["penalty_beyond_the_law"] for other in others)


def test_a_law_that_overflows_is_beyond_the_law() -> None:
    explosive = replace(
        published_predictors()[0], loss=lambda points: 2 + np.exp(points.repeats * 10) * (points.repeats > 1)
    )
    with np.errstate(over="ignore"):
        predicted = forecast(explosive, question := Question(800e6, 100e9, 0.1, 1000))
    assert "not credible" in table_row(predicted, question)[3] and math.isnan(predicted.worst.value)
    assert all(len(line) < 120 for line in curves([predicted], 119))


def test_different_clean_losses_are_reported() -> None:
    sentence = clean_losses(all_forecasts(QUESTIONS[0]))
    assert (
        "2.44 for Hernandez et al. (published), Muennighoff et al. (published); 2.55 for Chudnovsky et al. (published)."
        in sentence
    )
    hernandez, _, muennighoff = all_forecasts(QUESTIONS[0])
    assert clean_losses([hernandez, muennighoff]) == ""
    assert "above 12.5 for Hernandez et al." in clean_losses(all_forecasts(Question(1e5, 1e7, 0.5)))


def test_published_laws_are_evaluated_without_torch_pandas_and_scipy() -> None:
    code = "import sys, analysis.forecast.console; sys.exit(any(name in sys.modules for name in ('torch', 'pandas', 'scipy')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
