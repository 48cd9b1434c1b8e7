"""The answer in sentences says the same as the numbers behind it."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.forecast import answer
from analysis.forecast.census import Census, price, read_census
from analysis.forecast.forecast import Forecast, cost_at, forecast
from analysis.forecast.predictors import Predictor, published_predictors
from analysis.forecast.question import Question
from analysis.intervals import Estimate
from analysis.laws.points import Points
from data_prep.errors import InputError

QUESTION = Question(1e9, 1e11, 0.1, 20)


def linear(low: float, high: float, name: str = "partial") -> Predictor:
    """A law in which every R above 1 costs (R - 1)/1000 of a clean loss of 2 nats, with an interval of fixed relative width."""
    pooled = published_predictors()[0]

    def penalty(points: Points) -> np.ndarray:
        return (points.repeats - 1) * 0.002

    return replace(
        pooled,
        name=name,
        penalty=penalty,
        clean_loss=lambda points: 2.0 + (1e9 / points.params) ** 0.5 - 1,
        interval=lambda points, clean: (low * penalty(points), high * penalty(points)),
        draws=(penalty,),
        scatter=1e-4,
    )


@pytest.fixture
def predicted() -> Forecast:
    return forecast(linear(0.5, 2.0), QUESTION)


def test_the_sentence_gives_cost_interval_size_and_the_cheap_range(predicted: Forecast) -> None:
    sentence = answer.sentence(predicted)
    assert sentence.startswith(
        "Repeating a 500M-token subset 20 times in this run raises the loss by 1.9% (0.95 to 3.8%) compared with fresh tokens"
    )
    assert "like training a model of 0.93 (0.86 to 0.96) of the size" in sentence
    assert re.search(
        r"at the same fraction, a subset of (5|3\.33)B tokens or more \(up to [23] repeats\) is expected to cost less than 0\.2%\.$",
        sentence,
    ), "0.2% is the cost of 3 repeats"
    assert answer.share_with_interval(Estimate(0.004, -0.01, 0.03)) == "0.4% (at most 3%)"
    assert answer.share_with_interval(Estimate(0.4, 0.1, 3.0)) == "40% (at least 10%)"


def test_an_upper_end_that_is_useless_is_not_printed(predicted: Forecast) -> None:
    assert answer.interval_words(Estimate(0.4, -0.1, 1.01)) == answer.NO_USEFUL_INTERVAL, "above the whole loss"
    assert answer.interval_words(Estimate(0.02, -0.1, 0.19)) == "at most 19%"
    assert answer.interval_words(Estimate(0.02, -0.1, 0.21)) == answer.NO_USEFUL_INTERVAL, (
        "above ten times the prediction"
    )
    assert answer.interval_words(Estimate(0.0001, -0.1, 0.09)) == "at most 9%", "below 10% of the loss"
    assert answer.interval_words(Estimate(0.02, 0.003, 0.21)) == "at least 0.3%"
    wide = forecast(linear(-1.0, 60.0), QUESTION)
    sentence = answer.sentence(wide)
    assert (
        "by 1.9% (no useful interval) compared with fresh tokens, like training a model of 0.93 of the size" in sentence
    )
    assert "rule out neither zero nor a far higher cost" in answer.confidence(wide)
    assert "rule out" not in answer.confidence(predicted)


def test_the_largest_R_is_where_the_cost_or_its_upper_end_reaches_the_limit(predicted: Forecast) -> None:
    found = answer.limit(predicted, 0.01)
    assert found.expected == pytest.approx(11, rel=0.02) and found.sure == pytest.approx(6, rel=0.03)
    text = answer.limit_sentence(predicted, 0.0105)
    assert "cost at most 1.05% of the loss is 11, " in text and "; at the upper end of the interval, it is 6." in text
    assert "like training a model of 0.96 of the size" in text
    never = forecast(linear(0.5, 2.0), replace(QUESTION, repeats=2, subset_tokens=5e10))
    assert np.isinf(answer.limit(never, 0.5).sure)


def test_R_are_told_apart_only_if_they_differ_by_more_than_the_scatter(predicted: Forecast) -> None:
    assert answer.indistinguishable(predicted) == (20, 20) and answer.indistinguishable_sentence(predicted) == ""
    noisy = replace(predicted, predictor=replace(predicted.predictor, scatter=5e-3))
    assert answer.indistinguishable(noisy) == (10, 20)
    assert "R from 10 to 20 cannot be told apart from R = 20" in answer.indistinguishable_sentence(noisy)


def test_the_rule_of_thumb_is_priced_for_the_same_plan(predicted: Forecast) -> None:
    cost, sentence = answer.rule_of_thumb(predicted)
    assert (
        cost.share.value == pytest.approx(0.003)
        and "4 repeats require a 2.5B-token subset and raise the loss by 0.3%" in sentence
    )


def test_our_law_answers_with_the_constants_fitted_nearest_to_the_plan() -> None:
    domain = published_predictors()[0].domain
    near = replace(linear(0.5, 2.0), origin="near")
    far = replace(near, origin="far", domain=replace(domain, params=(1e3, 2e8)))
    other = replace(near, name="hernandez", origin="other law")
    forecasts = [forecast(predictor, QUESTION) for predictor in (near, far, other)]
    chosen = answer.primary(forecasts)
    assert chosen is not None and chosen.predictor.origin == "near"
    assert answer.primary(forecasts[2:]) is None
    too_far = [forecast(replace(near, domain=replace(domain, params=(1e3, 1e6))), QUESTION)]
    assert answer.primary(too_far) is None and "No number: the plan is too far" in answer.refusal(too_far)


def test_laws_that_disagree_are_named() -> None:
    forecasts = all_published(QUESTION)
    text = answer.disagreement(forecasts)
    assert "At R = 20, the laws predict costs of" in text and "The law fitted nearest to the plan is" in text


def all_published(question: Question) -> list[Forecast]:
    return [forecast(predictor, question) for predictor in published_predictors()]


def test_a_census_is_priced_as_one_pool_per_number_of_copies() -> None:
    census = Census((1.0, 2.0, 10.0), (8e10, 5e9, 1e9))
    assert census.total == 1e11 and census.repeated_share == pytest.approx(0.2)
    predictor = linear(0.5, 2.0)
    one_pass = price(census, predictor, QUESTION)
    assert [row.repeats for row in one_pass.rows] == [2, 10] and [row.fraction for row in one_pass.rows] == [0.1, 0.1]
    assert one_pass.share.value == pytest.approx((1 + 9) / 1000)
    assert one_pass.share.high == pytest.approx(2 * one_pass.share.value)
    alone = cost_at(predictor, Question(1e9, 1e11, 0.1), 10)
    assert one_pass.rows[1].penalty == alone.penalty
    two_passes = price(census, predictor, replace(QUESTION, tokens=2e11))
    assert [row.repeats for row in two_passes.rows] == [2, 4, 20], "a second pass repeats the unique tokens too"


def test_a_census_file_is_read_and_a_bad_one_is_rejected(tmp_path: Path) -> None:
    (path := tmp_path / "census.csv").write_text("tokens,copies\n5M,2\n1e9,1\n")
    assert read_census(path) == Census((1.0, 2.0), (1e9, 5e6))
    for text, message in (
        ("copies,n\n1,2\n", "missing column tokens; found copies, n; expected copies, tokens"),
        ("copies,tokens\n", "no rows below the header"),
        ("copies,tokens\n0,5\n", "line 2: copies is '0'; expected a number from 1"),
        ("copies,tokens\n2,x\n", "line 2: tokens is 'x'"),
        ("copies,tokens\n2,5,6\n", "line 2: 3 cells, but the header has 2"),
        ("copies,tokens\n2,5\n2,6\n", "line 3: copies 2 occurs twice"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_census(path)
