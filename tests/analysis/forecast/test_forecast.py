"""Forecasts agree with the papers, and with the law behind generated runs."""

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from law_tables import TRUE, table, true_loss

from analysis.forecast.console import LAW_HEADINGS, clean_losses, curves, curves_title, law_row, notes
from analysis.forecast.forecast import Forecast, cost_at, forecast
from analysis.forecast.predictors import Predictor, fitted_predictor, published_predictors
from analysis.forecast.question import Question
from analysis.forecast.record import as_record
from analysis.laws.fit import fit
from analysis.laws.points import prediction_points
from analysis.published import C26_WORST_REPEATS, H22_LEFT_EDGE, H22_RIGHT_EDGE


@pytest.fixture(scope="session")
def fitted() -> Predictor:
    """The partial law fitted to runs that follow it."""
    law, constants = TRUE["partial"]
    return fitted_predictor(fit(law, table(law, constants, 0.004, 0), resamples=20))


def by_name(name: str) -> Predictor:
    return next(predictor for predictor in published_predictors() if predictor.name == name)


def test_published_laws_reproduce_the_numbers_of_their_papers() -> None:
    band = forecast(by_name("hernandez"), Question(800e6, 100e9, 0.1, 100))
    assert band.harmful[0] == pytest.approx(H22_LEFT_EDGE.at(800e6), rel=0.03)
    assert band.harmful[1] == pytest.approx(H22_RIGHT_EDGE.at(800e6), rel=0.03)
    assert 340e6 < band.cost.multiplier.value * 800e6 < 400e6
    assert not band.outside
    for fraction, multiplier in ((0.5, 1 / 10), (0.9, 1 / 73)):
        worst = forecast(by_name("hernandez"), Question(800e6, 100e9, fraction))
        assert worst.cost.multiplier.value == pytest.approx(multiplier, rel=0.02)
    for size, lost in ((34e6, 0.19), (153e6, 0.26), (344e6, 0.33)):
        predicted = forecast(by_name("chudnovsky"), Question(size, 20 * size, 0.1))
        assert predicted.worst.value == pytest.approx(C26_WORST_REPEATS.at(size), rel=0.03)
        assert predicted.lost_compute == pytest.approx(lost, abs=0.02)
        assert not predicted.outside
    assert "parameters 10B" in forecast(by_name("chudnovsky"), Question(1e10, 2e11, 0.1)).outside[0]
    data = forecast(by_name("muennighoff"), Question(1e9, 1e11, 1.0, 4))
    assert math.isnan(data.worst.value) and data.cost.penalty.value > 0


def test_a_fitted_law_has_intervals_and_reports_questions_outside_its_range(fitted: Predictor) -> None:
    predicted = forecast(fitted, Question(5e6, 4e7, 0.9, 100))
    penalty = predicted.cost.penalty
    assert penalty.low < penalty.value < penalty.high
    losses = true_loss(*TRUE["partial"], prediction_points(5e6, 4e7, 0.9, [1.0, 100.0]))
    assert penalty.value == pytest.approx(losses[1] - losses[0], rel=0.1)
    assert predicted.worst.low <= predicted.worst.value <= predicted.worst.high
    assert predicted.cost.share.value == pytest.approx((losses[1] - losses[0]) / losses[0], rel=0.1)
    assert not predicted.outside and forecast(fitted, Question(5e6, 4e7, 0.1, 100)).outside


def test_far_outside_its_runs_our_law_gives_no_number_and_the_reason(fitted: Predictor) -> None:
    far = forecast(fitted, question := Question(5e10, 1e12, 0.9, 100))
    assert not far.has_number and "parameters 250 times outside 200k to 200M" in far.too_far
    assert law_row(far)[2] == "no number" and len(law_row(far)) == len(LAW_HEADINGS)
    assert as_record(far)["no_number_because"] == far.too_far
    pooled = forecast(published_predictors()[0], question)
    assert pooled.has_number and forecast(published_predictors()[0], replace(question, params=1e12)).too_far


QUESTIONS = [
    Question(800e6, 100e9, 0.1, 100),
    Question(1e12, 2e13, 0.1),
    Question(3e6, 1e8, 0.9),
    Question(24e3, 2e6, 0.5, 1.0),
    Question(1e3, 1e3, 1.0),
    Question(1e29, 1e29, 1.0, 1e6),
    Question(1e9, 5e10, subset_tokens=1e8),
]


def all_forecasts(question: Question) -> list[Forecast]:
    return [forecast(predictor, question) for predictor in published_predictors()]


@pytest.mark.parametrize("question", QUESTIONS, ids=str)
def test_every_interval_contains_its_value(question: Question, fitted: Predictor) -> None:
    for predicted in [*all_forecasts(question), forecast(fitted, question)]:
        record = as_record(predicted)
        estimates = {key: value for key, value in record.items() if isinstance(value, dict) and "low" in value}
        assert {"penalty_nats", "cost_share_of_loss", "size_multiplier", "worst_repeats"} <= estimates.keys()
        for key, estimate in estimates.items():
            if estimate["value"] is None:  # infinite, unknown or not credible
                continue
            assert estimate["low"] is None or estimate["low"] <= estimate["value"] + 1e-12, key
            assert estimate["high"] is None or estimate["value"] <= estimate["high"] + 1e-12, key
        if predicted.band:
            low, high = predicted.band
            assert (low <= predicted.curve.penalty).all() and (predicted.curve.penalty <= high).all()


@pytest.mark.parametrize("question", QUESTIONS, ids=str)
def test_every_curve_starts_at_zero_and_without_a_jump(question: Question) -> None:
    for predicted in all_forecasts(question):
        assert predicted.curve.penalty[0] == 0 and predicted.curve.multiplier[0] == 1
        near = cost_at(predicted.predictor, question, 1.0001).penalty.value
        assert near == pytest.approx(0, abs=2e-3 * max(1e-9, predicted.curve.penalty.max()))
        clean = cost_at(predicted.predictor, question, 1.0)
        assert clean.penalty.value == 0 and not clean.penalty.low < 0 and not clean.penalty.high > 0


def test_a_jump_at_one_repeat_is_noted_and_is_not_a_worst_R() -> None:
    notes_of = {
        predicted.predictor.name: (predicted, " ".join(notes(predicted))) for predicted in all_forecasts(QUESTIONS[1])
    }
    assert "the formula jumps by 0.0065 nats just above R = 1" in notes_of["hernandez"][1]
    chudnovsky, text = notes_of["chudnovsky"]
    assert "just above R = 1" in text and math.isnan(chudnovsky.worst.value)
    assert law_row(chudnovsky)[LAW_HEADINGS.index("worst R")] == "≤ 2"
    assert "just above" not in " ".join(notes(all_forecasts(QUESTIONS[0])[1]))


def test_curves_share_one_scale_that_the_title_gives() -> None:
    forecasts = all_forecasts(QUESTIONS[0])
    title, lines = curves_title(forecasts), curves(forecasts, 120)
    assert "all curves on the same scale, █ = 0.151 nats" in title
    assert [line.count("█") > 0 for line in lines] == [False, True, False, False, False]
    assert "up to 0.151 nats" in lines[1] and "up to 0.0303 nats" in lines[2]
    assert all(line.split("▁")[0].strip() == each.predictor.title for line, each in zip(lines, forecasts, strict=False))


def test_penalties_beyond_the_law_are_not_printed_as_numbers() -> None:
    hernandez = all_forecasts(QUESTIONS[2])[1]
    row = dict(zip(LAW_HEADINGS, law_row(hernandez), strict=True))
    assert row["cost of the loss"] == "not credible" and row["worst R"] == row["acts like"] == "–"
    assert "the predicted loss exceeds 12.5 nats per token" in " ".join(notes(hernandez))
    record = as_record(hernandez)
    assert record["penalty_beyond_the_law"] is True
    assert record["penalty_nats"] == {"value": None, "low": None, "high": None}
    assert record["largest_credible_penalty_nats"] == pytest.approx(5.66, abs=0.01)


def test_a_law_that_overflows_is_beyond_the_law() -> None:
    explosive = replace(by_name("hernandez"), penalty=lambda points: np.exp(points.repeats * 10) * (points.repeats > 1))
    with np.errstate(over="ignore"):
        predicted = forecast(explosive, Question(800e6, 100e9, 0.1, 1000))
    assert "not credible" in law_row(predicted)[2] and math.isnan(predicted.worst.value)
    assert all(len(line) < 120 for line in curves([predicted], 119))


def test_different_clean_losses_are_reported() -> None:
    forecasts = all_forecasts(QUESTIONS[0])
    assert "; 2.55 for Chudnovsky et al. (published)." in clean_losses(forecasts)
    assert clean_losses([forecasts[0], forecasts[1], forecasts[3]]) == "", "all three use M23's clean law"
    assert "above 12.5 for" in clean_losses(all_forecasts(Question(1e5, 1e7, 0.5)))


def test_published_laws_are_evaluated_without_torch_pandas_and_scipy() -> None:
    code = (
        "import sys, analysis.forecast.console, analysis.forecast.predictors as p; p.published_predictors();"
        " sys.exit(any(name in sys.modules for name in ('torch', 'pandas', 'scipy')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_our_law_gives_no_number_past_its_peak_if_all_tokens_are_repeated() -> None:
    ours, published = (
        forecast(predictor, Question(5e8, 1e10, 1.0, 50))
        for predictor in published_predictors()
        if predictor.name in ("partial", "hernandez")
    )
    end = ours.curve.repeats[-1]
    assert ours.has_number and ours.curve.penalty.argmax() == len(ours.curve.penalty) - 1 and 200 < end < 1000
    assert "without fresh tokens, a smaller subset cannot cost less" in ours.too_far_at(5000)
    assert not forecast(ours.predictor, Question(5e8, 1e10, 1.0, 5000)).has_number
    assert not published.too_far_at(5000) and published.curve.repeats[-1] > 5000, (
        "published formulas are always evaluated"
    )
    assert not forecast(ours.predictor, Question(5e8, 1e10, 0.9, 50)).too_far_at(5000), "fresh tokens limit the harm"


def test_the_curve_ends_where_the_law_gives_no_number() -> None:
    ours = forecast(published_predictors()[0], Question(1e9, 1e12, 0.5))
    end = float(ours.curve.repeats[-1])
    assert end < ours.question.most_repeats and not ours.too_far_at(end) and ours.too_far_at(1.1 * end)
