"""Fits recover known constants and known coverage, and reject runs that do not determine a law."""

import math

import numpy as np
import pytest
from law_tables import TRUE, table, true_loss

from analysis.laws import chudnovsky
from analysis.laws.fit import CannotFit, fit
from analysis.laws.points import prediction_points


def coverage(name: str, tables: int, resamples: int, noise: float = 0.004) -> dict[str, float]:
    """For each constant, the share of tables in which its 95% interval contains the true value."""
    law, constants = TRUE[name]
    hits: dict[str, list[bool]] = {}
    for seed in range(tables):
        fitted = fit(law, table(law, constants, noise, seed), resamples=resamples, seed=seed)
        for constant in fitted.free:
            low, high = fitted.interval(constant)
            hits.setdefault(constant, []).append(low <= constants[constant] <= high)
    return {constant: float(np.mean(held)) for constant, held in hits.items()}


@pytest.mark.parametrize("name", TRUE)
def test_without_noise_a_fit_recovers_the_losses(name: str) -> None:
    law, constants = TRUE[name]
    points = table(law, constants, 0.0, 0)
    fitted = fit(law, points, resamples=0)
    assert fitted.error < 0.03 * max(1.0, points.loss.max() - points.loss.min()) and fitted.median_error < 5e-3
    assert fitted.points == len(points)


@pytest.mark.parametrize("name", ["partial", "powers"])
def test_intervals_of_predictions_contain_the_penalties_of_new_runs(name: str) -> None:
    law, constants = TRUE[name]
    held = []
    for seed in range(4):
        fitted = fit(law, table(law, constants, 0.004, seed), seed=seed)
        new = prediction_points(3e6, 3e7, 0.7, np.geomspace(3, 1000, 12))
        clean = true_loss(law, constants, new.as_clean())
        noise = 0.004 * np.random.default_rng(100 + seed).standard_normal(len(new))
        penalties = true_loss(law, constants, new) * np.exp(noise) - clean
        low, high = fitted.penalty_interval(new, clean)
        held += list((low <= penalties) & (penalties <= high))
    assert np.mean(held) >= 0.9


def test_intervals_widen_away_from_the_runs_in_the_fit() -> None:
    law, constants = TRUE["partial"]
    fitted = fit(law, table(law, constants, 0.004, 0))
    points = prediction_points([5e6, 5e10], [4e7, 4e11], 0.9, 40.0)
    low, high = fitted.penalty_interval(points, np.array([3.0, 3.0]))
    near, far = np.log(high / np.maximum(low, 1e-3))
    assert far > 2 * near


def test_priors_keep_constants_that_the_runs_do_not_determine() -> None:
    law, constants = TRUE["partial"]
    points = table(law, constants, 0.0, 0)
    points = points[points.clean | (points.fraction == 0.9)]
    fitted = fit(law, points)
    gamma = next(constant for constant in law.constants if constant.name == "gamma")
    assert gamma.prior and fitted.constants["gamma"] == pytest.approx(gamma.prior[0], abs=0.3)
    low, high = fitted.interval("gamma")
    assert high - low > 1, "a single fraction cannot determine how the penalty grows with f"
    assert {"gamma", "c"} <= set(fitted.mostly_prior), "both are exponents of f"
    assert not {"B", "k", "P", "s"} & set(fitted.mostly_prior), "the runs vary R"


@pytest.mark.slow
def test_intervals_contain_the_true_constants_in_at_least_nine_of_ten_tables() -> None:
    held = coverage("clean_size", tables=40, resamples=60)
    assert min(held.values()) >= 0.9, held


def test_a_fit_recovers_the_published_constants_of_M23() -> None:
    law, published = TRUE["muennighoff"]
    fitted = fit(law, table(law, published, 0.002, 0), resamples=0).constants
    for name in ("E", "alpha", "beta"):
        assert fitted[name] == pytest.approx(published[name], rel=0.1), name
    for name in ("A", "B"):
        assert math.log(fitted[name]) == pytest.approx(math.log(published[name]), rel=0.1), name
    for name in ("R_D", "R_N"):
        assert fitted[name] == pytest.approx(published[name], rel=0.25), name


def test_runs_that_do_not_determine_a_law_are_rejected() -> None:
    law, constants = TRUE["partial"]
    points = table(law, constants, 0.0, 0)
    with pytest.raises(CannotFit, match="needs repeated runs that can be compared with clean runs, found none"):
        fit(law, points[~points.clean])
    with pytest.raises(CannotFit, match=r"needs runs at two or more R above 1, found 1"):
        fit(law, points[points.clean | (points.repeats == 40)])
    with pytest.raises(CannotFit, match="needs clean runs of at least three sizes, found 2"):
        fit(TRUE["clean_size"][0], points[points.params < 3e6])
    with pytest.raises(CannotFit, match="needs clean runs of at least two sizes, found 1"):
        fit(TRUE["hernandez"][0], points[points.params < 3e5])
    with pytest.raises(CannotFit, match="does not depend on the repeated fraction"):
        fit(chudnovsky.LAW, points)


def test_progress_is_reported_from_zero_to_one() -> None:
    law, constants = TRUE["clean_size"]
    shares: list[float] = []
    fit(law, table(law, constants, 0.004, 0), resamples=4, progress=shares.append)
    assert shares == sorted(shares) and shares[0] == 0.0 and shares[-1] == 1.0
