"""The laws with and without an interior worst R."""

import numpy as np
import pytest
from law_tables import TRUE

from analysis.laws.points import prediction_points


def test_the_cost_of_memorizing_peaks_at_an_interior_R_and_vanishes_at_both_ends() -> None:
    law, constants = TRUE["partial"]
    grid = np.geomspace(1, 1e6, 400)
    excess = law.loss(constants, prediction_points(1e6, 2e7, 0.5, grid)) - law.loss(
        constants, prediction_points(1e6, 2e7, 0.0, 1)
    )
    memorizing = excess - (
        law.loss({**constants, "P": 0.0}, prediction_points(1e6, 2e7, 0.5, grid))
        - law.loss(constants, prediction_points(1e6, 2e7, 0.0, 1))
    )
    assert memorizing[0] == pytest.approx(0.0, abs=1e-12)
    assert 0 < memorizing.argmax() < len(grid) - 1
    assert memorizing[-1] < 0.05 * memorizing.max()
    assert (np.diff(memorizing[: memorizing.argmax()]) > 0).all() and (
        np.diff(memorizing[memorizing.argmax() :]) < 0
    ).all()


def test_M23_and_L26_have_no_interior_worst_R_at_fixed_tokens() -> None:
    for law, constants in (TRUE["muennighoff"], TRUE["lovelace"]):
        losses = law.loss(constants, prediction_points(1e8, 1e10, 0.5, np.geomspace(1.01, 1e5, 300)))
        assert (np.diff(losses) > -1e-12).all()
