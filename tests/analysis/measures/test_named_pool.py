"""The effects of a named pool in its domain and in general, in written runs whose correct results are known."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from written_runs import write_run

from analysis.figures import named_pool as figure_of_named_pool
from analysis.figures.plot import Missing, Plot
from analysis.measures.headline import headline
from analysis.measures.named_pool import DOMAIN, GENERAL, MEMORIZED, OVER_FRESH, NamedPool, named_pool
from analysis.report import explorer
from analysis.report.build import write_report
from analysis.report.figure_list import AT_ONE_FRACTION, NO_FRACTION
from analysis.report.named_pool_section import verdict
from analysis.runs import Runs, load_runs
from data_prep.token_store import TokenStore
from repeat_study.config.run import Run

SEEDS = (0, 1, 2)
POOL = {"pool_corpus": {"fingerprint": "0123456789abcdef", "tokens": 100_000}}
POOL |= {"further_tests": [{"name": "pool_domain", "fingerprint": "0123456789abcdef"}]}
# For every R of the fixed pool: general test loss, domain test loss and pool loss, minus those of the control with R = 0
PLANTED = {1: (0.0, -0.1, -0.15), 2: (0.01, -0.3, -0.5), 4: (0.2, -0.2, -1.2), 8: (0.6, 0.4, -3.0)}
FRESH = {4: (0.05, -0.7, -0.7)}  # the control for R = 4: as many tokens from the domain, each seen once


def write_with_losses(
    folder: Path, template: Run, store: TokenStore, losses: tuple[float, float, float], seed: int, **fields: Any
) -> str:
    level = 1 if seed == 1 else 0.01 * seed  # seeds differ by more than arms do
    general, domain, pool = losses
    metrics = {"test_loss_pool_domain": 5 + level + domain, "pool_loss": 4.9 + level + pool}
    return write_run(folder, template, store, [9.0, 4 + level + general], metrics=metrics, seed=seed, **POOL, **fields)


def write_fixed_pool(folder: Path, template: Run, store: TokenStore) -> int:
    """Write a study of a fixed pool. Returns the number of sequences in the pool."""
    pool = template.positions // 16
    for seed in SEEDS:
        write_with_losses(folder, template, store, (0.0, 0.0, 0.0), seed, repeats=0)
        wobble = 0.001 * (seed - 1)  # the only difference between paired seeds
        for repeats, losses in PLANTED.items():
            shifted = (losses[0] + wobble, losses[1] + wobble, losses[2] + wobble)
            write_with_losses(folder, template, store, shifted, seed, repeats=repeats, fixed_pool=pool)
        for repeats, losses in FRESH.items():
            write_with_losses(folder, template, store, losses, seed, repeats=1, fixed_pool=repeats * pool)
    return pool


@pytest.fixture
def fixed(tmp_path: Path, runs: list[Run], store: TokenStore) -> Runs:
    write_fixed_pool(tmp_path, runs[0], store)
    return load_runs(tmp_path)


def effect_of(runs: Runs) -> NamedPool:
    effect = named_pool(runs)
    assert effect is not None
    return effect


def means(effect: NamedPool, measure: str, design: str) -> dict[float, float]:
    arms = effect.arms[(effect.arms.measure == measure) & (effect.arms.design == design)]
    return dict(zip(arms.repeats, arms["mean"], strict=True))


def test_changes_are_paired_by_seed_with_the_control_that_never_reads_the_pool(fixed: Runs) -> None:
    effect = effect_of(fixed)
    design = next(iter(effect.arms.design[effect.arms.repeats > 1]))
    assert means(effect, GENERAL, design) == pytest.approx({R: losses[0] for R, losses in PLANTED.items()})
    assert means(effect, DOMAIN, design) == pytest.approx({R: losses[1] for R, losses in PLANTED.items()})
    gaps = {R: losses[1] - losses[2] for R, losses in PLANTED.items()}
    assert means(effect, MEMORIZED, design) == pytest.approx(gaps), "relative to the gap of 0.1 at R = 0"
    general = effect.arms[(effect.arms.measure == GENERAL) & (effect.arms.repeats == 8)].iloc[0]
    half = 4.302653 * 0.001 / 3**0.5  # t interval over three seeds
    assert (general.low, general.high) == pytest.approx((0.6 - half, 0.6 + half), rel=1e-4), "the seeds' levels cancel"
    assert general.repeated_fraction == pytest.approx(0.5)


def test_a_separate_pool_of_documents_has_the_same_control_as_a_pool_of_sequences(
    tmp_path: Path, runs: list[Run], store: TokenStore
) -> None:
    write_with_losses(tmp_path, runs[0], store, (0.0, 0.0, 0.0), 0, repeats=0)
    names: dict[str, str] = {}
    for unit in ("sequence", "document"):
        domain = -0.3 if unit == "sequence" else -0.2
        fields = {"repeats": 4, "fixed_pool": runs[0].positions // 16, "unit": unit}
        names[unit] = write_with_losses(tmp_path, runs[0], store, (0.2, domain, -1.2), 0, **fields)
    loaded = load_runs(tmp_path)
    effects = effect_of(loaded).runs
    assert set(effects.setting) == {"unit = sequence", "unit = document"} and effects[
        GENERAL
    ].tolist() == pytest.approx([PLANTED[4][0]] * 2)
    variants = [variant.table for _, variant in loaded.variants()]
    assert [sorted(table.repeats) for table in variants] == [[1, 4], [1, 4]], "one control for both"
    assert variants[0].has_separate_pool.all()
    data = json.loads(explorer.of_variants(loaded.variants(), headline(loaded)) or "")
    start, panels = data["start"], data["panels"]
    selected = panels[start["panel"]]["arms"][start["arm"]]
    assert [data["runs"][run]["name"] for run in selected["runs"]] == [names["sequence"]], "the arm in the headline"
    assert data["metrics"][start["metric"]]["key"] == "test_loss_pool_domain"


def test_repetition_is_compared_with_as_many_tokens_of_fresh_text(fixed: Runs) -> None:
    effect = effect_of(fixed)
    over_fresh = effect.arms[effect.arms.measure == DOMAIN + OVER_FRESH]
    assert over_fresh.repeats.tolist() == [4] and over_fresh["mean"].item() == pytest.approx(-0.2 + 0.7)
    assert effect.fresh[effect.fresh.measure == DOMAIN][["repeats", "mean"]].to_numpy().tolist() == [
        pytest.approx([4, -0.7])
    ]
    (sentence,) = verdict(effect)
    assert "is lowest at R = 2 (R = 1, 2, 4, and 8 were tried), where it changes by -0.300 nats" in sentence
    assert "general test loss changes by +0.010 nats [+0.008, +0.012]" in sentence
    assert "The general test loss is clearly higher at R = 2, 4, and 8 than at R = 0." in sentence
    assert "clearly higher at R = 8 and clearly lower at R = 1, 2, and 4 than at R = 0." in sentence


@pytest.mark.slow
def test_a_fixed_fraction_includes_its_own_control_of_the_domain(
    tmp_path: Path, runs: list[Run], store: TokenStore
) -> None:
    for seed in SEEDS:
        write_with_losses(tmp_path, runs[0], store, (0.0, 0.0, 0.0), seed, repeats=0)
        for repeats, general in ((1, 0.25), (4, 0.75)):
            fields = {"repeats": repeats, "repeated_fraction": 0.5}
            write_with_losses(tmp_path, runs[0], store, (general, -general, -1.0), seed, **fields)
    loaded = load_runs(tmp_path)
    effect = effect_of(loaded)
    assert means(effect, GENERAL, "f = 50%") == pytest.approx({1: 0.25, 4: 0.75})
    assert means(effect, GENERAL + OVER_FRESH, "f = 50%") == pytest.approx({4: 0.5})
    assert not loaded.has_fixed_pool and loaded.table.is_clean_control.sum() == 3
    page = write_report(tmp_path)[1].read_text()
    assert "the worst R is 4" in page and "+0.750 compared with clean runs" in page, "R = 1 is not a clean run"


def test_the_figure_has_a_column_per_design_and_draws_every_planted_number(fixed: Runs) -> None:
    figure = figure_of_named_pool.plot(fixed)
    assert isinstance(figure, Plot) and "cost of repeating" in figure.caption
    upper, lower = figure.figure.axes
    for ax, values in ((upper, [losses[0] for losses in PLANTED.values()]), (lower, None)):
        drawn = [line.get_ydata() for line in ax.lines]
        assert any(list(y) == [0.0] for y in drawn), "R = 0"
        assert values is None or any(len(y) == 4 and np.allclose(np.asarray(y, float), values) for y in drawn)
    assert upper.get_xticklabels()[0].get_text() == "0" and "log scale" in lower.get_xlabel()
    assert {text.get_text() for text in upper.texts} >= {"general test set", "domain, fresh"}


def test_the_report_of_a_fixed_pool_compares_nothing_at_one_fraction(
    tmp_path: Path, runs: list[Run], store: TokenStore
) -> None:
    write_fixed_pool(tmp_path, runs[0], store)
    console, page = write_report(tmp_path)
    text = page.read_text()
    assert "gain in its domain" in text and "is lowest at R = 2" in text
    assert NO_FRACTION in text and "the worst R" not in text and "Comparison with the papers" not in text
    assert not [name for name in AT_ONE_FRACTION if (tmp_path / "figures" / f"{name}.png").exists()]
    assert (tmp_path / "tables" / "named_pool_by_run.csv").is_file()
    clean = console[console.run.str.contains("clean")]
    assert len(clean) == len(SEEDS) and len(console) == 18 and "18 finished runs" in text, "with the domain's controls"
    numbers = pd.read_csv(tmp_path / "tables" / "summary.csv")
    assert sorted(set(numbers.repeats)) == [0, 1, 2, 4, 8] and (numbers.repeats == 1).sum() == 2 * len(SEEDS)
    assert numbers[numbers.repeats == 0].excess_over_clean.mean() == pytest.approx(0, abs=1e-12)


def test_without_a_control_or_a_named_pool_there_is_no_measure(
    tmp_path: Path, runs: list[Run], store: TokenStore
) -> None:
    write_run(tmp_path / "a", runs[0], store, [9.0, 3.0], repeats=1)
    assert named_pool(load_runs(tmp_path / "a")) is None
    write_with_losses(tmp_path / "b", runs[0], store, (0.0, 0.0, 0.0), 0, repeats=4, repeated_fraction=0.5)
    assert isinstance(figure_of_named_pool.plot(load_runs(tmp_path / "b")), Missing)
    assert "R = 0 and the same seed" in write_report(tmp_path / "b")[1].read_text()
