"""Figures of induction heads and copying."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from head_runs import SIZES, formed, score_of
from written_runs import HALF, NULL, write_run

from analysis.figures import (
    copying_and_prefix_sizes,
    heads,
    induction_over_training,
    loss_by_position,
)
from analysis.figures.plot import Plot
from analysis.formatting import short_count
from analysis.runs import load_runs
from data_prep.token_store import TokenStore
from repeat_study.config.run import Run


@pytest.mark.slow
def test_figures_show_the_numbers_in_their_tables(with_heads: Path) -> None:
    runs = load_runs(with_heads)
    over, at_end, position, sizes = (
        figure.plot(runs) for figure in (induction_over_training, heads, loss_by_position, copying_and_prefix_sizes)
    )
    assert isinstance(over, Plot) and isinstance(at_end, Plot)
    assert isinstance(position, Plot) and isinstance(sizes, Plot)
    assert len(over.table) == 11 * 4 and len(over.figure.axes) == 6 * 4
    assert "1x128 (197k), one-layer control, f = 50%" in [ax.get_title() for ax in over.figure.axes]
    for path in with_heads.glob("1x128-f0.5*"):
        shutil.rmtree(path)
    alone = induction_over_training.plot(load_runs(with_heads))
    assert isinstance(alone, Plot), "a control that is never repeated is shown too"
    assert "1x128 (197k), one-layer control, clean" in [ax.get_title() for ax in alone.figure.axes]
    clean = over.table.query("model == '2x64' and repeats == 1")
    assert clean.prefix_matching.tolist() == [NULL, NULL, score_of(98304) / 2, score_of(98304)]
    assert len(at_end.table) == 9 * 4 + 2 * 2, "every head of every run, at the end alone"
    assert at_end.table.step.unique().tolist() == [64]
    first = position.table.query("model == '2x64' and repeats == 16")
    assert first.position.tolist()[:3] == [1, 2, 3] and first.position.max() <= 32
    assert np.diff(first.loss) == pytest.approx(-1 / 8)
    worst = sizes.table.query("repeats == 4 and parameters_non_embedding == 393216").set_index("metric")["mean"]
    assert worst["copying loss"] < worst["prefix matching"] < worst["test loss"] < 1


def test_every_seed_has_a_row_of_maps(with_heads: Path, runs: list[Run], store: TokenStore) -> None:
    for repeats in (1, 4):
        fields = {"model": "2x64", "repeats": repeats, "repeated_fraction": 0.5, "seed": 3}
        write_run(with_heads, runs[0], store, [5.0, 4.5, 4.0, 3.9], formed(0.5), **fields)
    plot = heads.plot(load_runs(with_heads))
    assert isinstance(plot, Plot)
    labels = [ax.get_ylabel() for ax in plot.figure.axes if "seed" in ax.get_ylabel()]
    rows = [label.removesuffix("\nlayer").replace("\n", " ") for label in labels]
    assert max(len(line) for label in labels for line in label.split("\n")) <= heads.LABEL_WIDTH
    assert sorted(rows) == sorted(
        [
            *(f"{size} ({short_count(count)}), f = 50%, seed 0" for size, count in SIZES.items()),
            "1x128 (197k), one-layer control, f = 50%, seed 0",
            "2x64 (98.3k), f = 50%, seed 3",
        ]
    )


@pytest.mark.slow
def test_intervals_are_plotted_for_five_seeds_or_more(with_heads: Path, runs: list[Run], store: TokenStore) -> None:
    def bands() -> int:
        drawn = induction_over_training.plot(load_runs(with_heads))
        assert isinstance(drawn, Plot)
        return sum(len(ax.collections) for ax in drawn.figure.axes)

    fields = {"model": "2x64", "repeats": 4, "repeated_fraction": 0.5}
    assert bands() == 0
    for seed, wanted in ((1, 0), (2, 0), (3, 0), (4, 6)):
        write_run(with_heads, runs[0], store, [5.0, 4.5, 4.0, 3.9], formed(0.5 + HALF), seed=seed, **fields)
        assert bands() == wanted
