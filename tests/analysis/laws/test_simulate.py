"""Simulated runs follow their law, and the committed table of coverage is complete."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.laws.leave_out import KINDS
from analysis.laws.simulate import COLUMNS, NOISE, SIMULATIONS, TRUE, coverage, main, simulated, true_loss
from data_prep.errors import InputError

WRITTEN = Path(__file__).parents[3] / "results/laws/simulated_coverage.csv"


def test_simulated_runs_differ_from_their_law_by_the_noise_alone() -> None:
    law, constants = TRUE["partial"]
    points = simulated(law, constants, seed=3)
    errors = np.log(points.loss / true_loss(law, constants, points))
    assert 0.8 * NOISE < errors.std() < 1.2 * NOISE and abs(errors.mean()) < NOISE / 2
    assert (simulated(law, constants, seed=3).loss == points.loss).all()
    assert (simulated(law, constants, seed=4).loss != points.loss).all()


def test_coverage_lists_the_true_law_and_our_law() -> None:
    table = coverage(1, ["chudnovsky"])
    assert list(table.columns) == COLUMNS and set(table.law) == {"chudnovsky", "partial"}
    assert set(table.kind) == set(KINDS) and (table.runs == 48).all()
    own, other = table[table.law == "chudnovsky"].error, table[table.law == "partial"].error
    assert own.max() < other.min(), "the true law predicts its own runs best"
    assert table.coverage.between(0.5, 1).all()


def test_the_committed_table_covers_every_law_of_repetition() -> None:
    table = pd.read_csv(WRITTEN)
    assert list(table.columns) == COLUMNS and (table.simulations == SIMULATIONS).all()
    assert set(table.runs_follow) == {name for name, (law, _) in TRUE.items() if not law.clean_only}


@pytest.mark.parametrize("arguments", [[], ["out.csv", "0"], ["out.csv", "two"], ["out.csv", "1", "2"]])
def test_bad_arguments_are_rejected(arguments: list[str]) -> None:
    with pytest.raises(InputError, match=r"expected OUT\.csv"):
        main(arguments)
    with pytest.raises(InputError, match="the folder no/such/folder does not exist"):
        main(["no/such/folder/out.csv"])
