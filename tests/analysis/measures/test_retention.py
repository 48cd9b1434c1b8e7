"""Retention of pool sequences: which copies count, the clean run it is measured against, and half-lives."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from written_runs import write_run

from analysis.figures import retention as retention_figure
from analysis.figures.plot import Missing, Plot
from analysis.intervals import Bound
from analysis.measures.retention import by_tokens_since, half_life, half_lives, retention
from analysis.runs import load_runs
from data_prep.mixture import Stream
from data_prep.token_store import TokenStore
from repeat_study.config.run import Run
from repeat_study.records.recorded_run import recorded_run
from repeat_study.records.run_directory import RunDirectory

EVALUATIONS, SEQUENCES = 9, 8
LOSSES = [9.0 - place / 2 for place in range(EVALUATIONS)]
ARMS = ({"spacing": "passes"}, {"spacing": "uniform"}, {"spacing": "bursts", "burst_distance": 2})


@pytest.fixture
def planted(runs: list[Run], store: TokenStore, tmp_path: Path) -> Path:
    """Clean runs lose 5 nats on slot k; repeated ones lose k/10 nats less, and another 0.5 from the sixth evaluation on."""
    slots = np.arange(SEQUENCES)
    template = next(run for run in runs if run.model == "1x16" and run.repeats == 16)
    for seed in (0, 1):
        write_run(tmp_path, template, store, LOSSES, of_pool=[[5.0] * SEQUENCES] * EVALUATIONS, repeats=1, seed=seed)
        for arm in ARMS:
            own = [(5 - slots / 10 - 0.5 * (place > 5)).tolist() for place in range(EVALUATIONS)]
            write_run(tmp_path, template, store, LOSSES, of_pool=own, seed=seed, **arm)
    return tmp_path


def test_copies_and_steps_since_the_last_one_equal_a_count_by_hand(planted: Path) -> None:
    table = retention(load_runs(planted))
    assert table.name.nunique() == 2 * len(ARMS)
    for name, rows in table.groupby("name"):
        run = recorded_run(RunDirectory(planted / str(name)))
        positions = run.mixture().at(np.arange(run.positions))
        for step in range(0, run.steps + 1, 8):
            trained = range(step * run.sequences_per_step)
            for slot in range(SEQUENCES):
                shown = [i for i in trained if positions.stream[i] == Stream.POOL and positions.place[i] == slot]
                row = rows[(rows.step == step) & (rows.sequence == slot)]
                assert len(row) == bool(shown)
                if shown:
                    last = shown[-1] // run.sequences_per_step  # from 0, so step last + 1 contained it
                    assert (row.copies.item(), row.steps_since.item()) == (len(shown), step - last)
                    assert row.tokens_since.item() == (step - last) * run.tokens_per_step
                    assert row.retention.item() == pytest.approx(slot / 10 + 0.5 * (step > 40))


def test_bins_double_and_leave_out_sequences_with_few_copies(planted: Path) -> None:
    table = retention(load_runs(planted))
    curves = by_tokens_since(table)
    run = table[table.spacing == "bursts"].name.iloc[0]
    rows = table[(table.name == run) & (table.copies >= 8)]
    first = rows[rows.steps_since == 1].retention.mean()
    second = rows[rows.steps_since.isin([2, 3])].retention.mean()
    binned = curves[curves.name == run].sort_values("tokens_since")
    expected = {256: first, round(256 * 6**0.5): second}
    for center, value in expected.items():
        close = binned[binned.tokens_since == center]
        assert len(close) == (not np.isnan(value)) and (
            np.isnan(value) or close.retention.item() == pytest.approx(value)
        )


def test_half_lives_are_interpolated_or_bounds() -> None:
    curve = pd.DataFrame({"tokens_since": [100.0, 400.0, 1600.0], "retention": [2.0, 1.5, 0.5]})
    assert half_life(curve).value == pytest.approx(800)  # in the logarithm half-way from 400 to 1,600
    bound = half_life(curve[:2])
    assert (bound.value, bound.bound) == (400, Bound.AT_LEAST)
    assert np.isnan(half_life(curve.assign(retention=-0.1)).value)


def test_an_arm_with_a_bound_in_one_seed_is_a_bound(planted: Path) -> None:
    curves = by_tokens_since(retention(load_runs(planted)))
    arms = half_lives(curves)
    assert len(arms) == len(ARMS) and (arms.seeds == 2).all()
    forgetting = curves.assign(retention=1000 / curves.tokens_since)
    exact = half_lives(forgetting)
    uniform = exact[exact.spacing == "uniform"]
    assert (uniform.bound == "").all() and uniform.half_life.item() == pytest.approx(512, rel=0.2)
    one = forgetting.name == forgetting[forgetting.spacing == "uniform"].name.iloc[0]
    mixed = half_lives(forgetting.assign(retention=forgetting.retention.where(~one, 1.0)))
    assert mixed[mixed.spacing == "uniform"].bound.item() == "≥"


def test_runs_without_records_or_controls_are_left_out(planted: Path, runs: list[Run], store: TokenStore) -> None:
    names = set(retention(load_runs(planted)).name)
    figure = retention_figure.plot(load_runs(planted))
    assert isinstance(figure, Plot) and set(figure.table.order) == {"passes", "uniform", "bursts 2 apart"}
    template = next(run for run in runs if run.model == "1x16" and run.repeats == 16)
    write_run(planted, template, store, LOSSES, of_pool=[[5.0] * SEQUENCES] * EVALUATIONS, seed=2)
    write_run(planted, template, store, LOSSES, repeats=1, seed=2)
    assert names == set(retention(load_runs(planted)).name), "their control did not record the losses"
    assert isinstance(retention_figure.plot(load_runs(planted, sorted(names))), Missing)
