"""Fits recover known constants, and reject runs that do not determine a law."""

import math

import numpy as np
import pytest
from law_tables import TRUE, table

from analysis.laws import chudnovsky
from analysis.laws.fit import CannotFit, fit


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
    assert fitted.error < 2e-3 and fitted.points == len(points)
    assert fitted.loss(points) == pytest.approx(points.loss, rel=2e-3)


@pytest.mark.slow
def test_intervals_contain_the_true_constants_in_at_least_nine_of_ten_tables() -> None:
    held = coverage("clean_size", tables=40, resamples=60)
    assert min(held.values()) >= 0.9, held


def test_a_fit_recovers_the_published_constants_of_M23() -> None:
    law, published = TRUE["muennighoff"]
    fitted = fit(law, table(law, published, 0.002, 0), resamples=0).constants
    for name in ("E", "alpha", "beta"):
        assert fitted[name] == pytest.approx(published[name], rel=0.05), name
    for name in ("A", "B"):
        assert math.log(fitted[name]) == pytest.approx(math.log(published[name]), rel=0.05), name
    for name in ("R_D", "R_N"):
        assert fitted[name] == pytest.approx(published[name], rel=0.25), name


def test_runs_that_do_not_determine_a_law_are_rejected() -> None:
    law, constants = TRUE["partial"]
    points = table(law, constants, 0.0, 0)
    with pytest.raises(CannotFit, match=r"needs at least \d+ different runs for its \d+ constants, found"):
        fit(law, points[points.repeats < 10][:14])
    with pytest.raises(CannotFit, match="needs clean runs, found none"):
        fit(law, points[~points.clean])
    with pytest.raises(CannotFit, match="needs clean runs of at least three sizes, found 2"):
        fit(law, points[points.params < 3e6])
    with pytest.raises(CannotFit, match="does not depend on the repeated fraction"):
        fit(chudnovsky.LAW, points)


def test_exponents_of_fraction_and_tokens_are_fitted_only_if_these_vary() -> None:
    law, constants = TRUE["partial"]
    points = table(law, constants, 0.0, 0)
    points = points[points.clean | (points.fraction == 0.9)]
    assert {"gamma", "c"}.isdisjoint(fit(law, points, resamples=0).free)
    one_number_of_tokens_per_size = points[points.tokens == 2e4 * points.params**0.5]
    assert "b" in fit(law, one_number_of_tokens_per_size, resamples=0).free, "tokens still vary with size"


def test_progress_is_reported_from_zero_to_one() -> None:
    law, constants = TRUE["clean_size"]
    shares: list[float] = []
    fit(law, table(law, constants, 0.004, 0), resamples=4, progress=shares.append)
    assert shares == [0.0, 0.25, 0.5, 0.75, 1.0]
