"""The laws with and without an interior worst R."""

import numpy as np
import pytest
from law_tables import TRUE

from analysis.laws import partial
from analysis.laws.points import prediction_points
from analysis.laws.registry import CROSS_VALIDATED


@pytest.mark.parametrize("name", ["partial", "powers"])
def test_the_cost_of_memorizing_peaks_at_an_interior_R_and_vanishes_at_both_ends(name: str) -> None:
    law, constants = TRUE[name]
    grid = np.geomspace(1, 1e7, 2000)
    points = prediction_points(1e6, 2e7, 0.5, grid)
    memorizing = law.penalty(constants, points) - partial.reuse(constants, points)
    assert memorizing[0] == 0 and memorizing[-1] < 0.01 * memorizing.max()
    worst = int(memorizing.argmax())
    near = float(partial.memorizing_repeats(constants, prediction_points(1e6, 2e7, 0.5, 2.0)))
    assert near / 2 < grid[worst] < 2 * near
    assert (np.diff(memorizing[: worst + 1]) > 0).all() and (np.diff(memorizing[worst:]) < 0).all()


@pytest.mark.parametrize("law", CROSS_VALIDATED, ids=lambda law: law.name)
def test_a_clean_run_has_no_penalty(law: partial.Law) -> None:
    constants = TRUE[law.name.removesuffix("_free")][1]
    penalty = law.penalty(constants, prediction_points([1e6, 1e8], 2e9, 0.0, 1.0))
    assert penalty == pytest.approx([0, 0], abs=1e-12)


def test_M23_and_L26_have_no_interior_worst_R_at_fixed_tokens() -> None:
    for law, constants in (TRUE["muennighoff"], TRUE["lovelace"]):
        penalties = law.penalty(constants, prediction_points(1e8, 1e10, 0.5, np.geomspace(1.01, 1e5, 300)))
        assert (np.diff(penalties) > -1e-12).all()
