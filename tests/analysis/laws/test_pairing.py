"""Repeated runs are compared with the right clean runs."""

from pathlib import Path

import numpy as np
import pytest

from analysis.laws import clean
from analysis.laws.pairing import BY_CELL, BY_LAW, BY_SEED, CORRECTED, GIVEN, UNPAIRED, paired
from analysis.laws.points import Points, scaled, unscaled
from analysis.laws.runs_csv import read_points


def points(*rows: tuple[float, float, float, float, float]) -> Points:
    """Runs given as params, tokens, fraction, repeats and loss."""
    return Points(*np.array(rows, float).T)


def test_a_run_is_paired_by_seed_and_otherwise_with_the_mean_of_its_cell() -> None:
    runs = points(
        (1e6, 1e8, 0, 1, 3.0), (1e6, 1e8, 0, 1, 3.2), (1e6, 1e8, 0.5, 10, 3.5), (1e6, 1e8, 0.5, 10, 3.6), (1e6, 2e8, 0, 1, 2.0)
    )  # fmt: skip
    pairing = paired(runs, seeds=["0", "1", "1", "2", "1"])
    assert pairing.points.penalty[2:4] == pytest.approx([0.3, 0.5])
    assert pairing.counts[BY_SEED] == pairing.counts[BY_CELL] == 1
    assert "1 run with the clean run of the same size, tokens and seed" in str(pairing)
    assert paired(runs).points.penalty[2:4] == pytest.approx([0.4, 0.5]), "without seeds, both use the mean"


def test_runs_of_different_cells_are_not_compared() -> None:
    runs = points((1e6, 1e8, 0, 1, 3.0), (1e6, 1e8, 0, 1, 4.0), (1e6, 1e8, 1, 2, 4.5), (1e6, 1e8, 1, 2, 4.5))
    pairing = paired(runs, cells=["slow", "fast", "fast", "other"])
    assert pairing.points.penalty[2] == pytest.approx(0.5) and np.isnan(pairing.points.penalty[3])
    assert pairing.counts[UNPAIRED] == 1


def test_other_token_counts_are_corrected_with_the_clean_law() -> None:
    constants = {"E": 1.8, "A": 20.0, "alpha": 0.2, "B": 20.0, "beta": 0.3}
    grid = np.array([(n, t) for n in (1e6, 1e7, 1e8, 1e9) for t in (1e8, 1e9, 1e10)]).T
    n, t = np.append(grid[0], [1e7, 3e7]), np.append(grid[1], [2e9, 1e9])
    repeated = np.arange(len(n)) >= grid.shape[1]
    runs = Points(n, t, 0.5 * repeated, 1 + 9.0 * repeated, np.zeros(len(n)))
    losses = clean.by_size_and_tokens(constants, runs) + 0.4 * repeated
    pairing = paired(Points(n, t, runs.fraction, runs.repeats, losses))
    assert pairing.points.penalty[repeated] == pytest.approx([0.4, 0.4], abs=2e-3)
    assert pairing.counts[CORRECTED] == 1 and pairing.counts[BY_LAW] == 1


def test_a_table_may_give_the_clean_loss_and_the_cell_of_a_run(tmp_path: Path) -> None:
    (path := tmp_path / "runs.csv").write_text(
        "params,tokens,fraction,repeats,loss,clean_loss,lr\n1e6,1e8,0,1,3.0,,a\n1e6,1e8,0.5,4,3.5,3.1,a\n1e6,1e8,0.5,4,3.5,,a\n"
        "1e6,1e8,0.5,4,3.5,,b\n"
    )
    pairing = read_points(path, {"cell": "lr"})
    assert pairing.points.penalty[1:3] == pytest.approx([0.4, 0.5]) and np.isnan(pairing.points.penalty[3])
    assert (pairing.counts[GIVEN], pairing.counts[BY_CELL], pairing.counts[UNPAIRED]) == (1, 1, 1)


def test_the_scale_of_penalties_is_inverted_exactly() -> None:
    penalties = np.array([-0.3, 0.0, 1e-4, 0.1, 5.0])
    assert unscaled(scaled(penalties, 3.0), 3.0) == pytest.approx(penalties)
