"""Variants compared at equal size, fraction, R and seed."""

from pathlib import Path

import pytest
from written_runs import write_run

from analysis.figures import variant_comparison as figure_of_variants
from analysis.figures.plot import Missing, Plot
from analysis.measures.variant_comparison import Comparison, compare_variants
from analysis.runs import load_runs
from data_prep.token_store import TokenStore
from repeat_study.config.run import Run

SEEDS = range(5)


def compared(folder: Path) -> Comparison:
    comparison = compare_variants(load_runs(folder))
    assert comparison is not None
    return comparison


def test_orders_of_copies_are_paired_by_seed(runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    for seed in SEEDS:
        level = 3 + seed  # seeds differ by nats, arms of one seed by tenths
        write_run(tmp_path, runs[0], store, [9.0, level], repeats=1, seed=seed)
        for repeats in (4, 16):
            fields = {"repeats": repeats, "repeated_fraction": 0.5, "seed": seed}
            write_run(tmp_path, runs[0], store, [9.0, level + 0.5], **fields)
            write_run(tmp_path, runs[0], store, [9.0, level, level + 0.7 + seed / 100], spacing="uniform", **fields)
    comparison = compared(tmp_path)
    assert comparison.reference == "passes"
    table = comparison.differences
    assert set(table.variant) == {"uniform"} and set(table.repeats) == {4, 16}, "clean runs are shared"
    test_loss = table[(table.metric == "test_loss") & (table.repeats == 4)]
    assert test_loss["mean"].item() == pytest.approx(0.22) and test_loss.seeds.item() == len(SEEDS)
    assert 0.19 < test_loss.low.item() < 0.22 < test_loss.high.item() < 0.25, "the seeds' levels cancel"
    rise = table[(table.metric == "rise") & (table.repeats == 4)]
    assert rise["mean"].item() == pytest.approx(0.72)
    excess = comparison.excess.query("metric == 'test_loss' and variant == 'passes' and repeats == 16")
    assert excess["mean"].item() == pytest.approx(0.5)
    figure = figure_of_variants.plot(load_runs(tmp_path))
    assert isinstance(figure, Plot) and set(figure.table.variant) == {"passes", "uniform"}


def test_variants_are_in_numerical_order(runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    for seed in SEEDS[:2]:
        write_run(tmp_path, runs[0], store, [9.0, 3.0], repeats=1, seed=seed)
        for distance in (20, 4, 1):
            pool = {"repeats": 4, "repeated_fraction": 0.5, "spacing": "bursts", "burst_distance": distance}
            write_run(tmp_path, runs[0], store, [9.0, 3.5], seed=seed, **pool)
    comparison = compared(tmp_path)
    assert list(comparison.excess.variant.unique()) == ["bursts 1 apart", "bursts 4 apart", "bursts 20 apart"]
    assert list(comparison.differences.variant.unique()) == ["bursts 4 apart", "bursts 20 apart"]


def test_a_factor_of_training_is_compared_by_excess_and_in_clean_runs(
    runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    for decay, clean, harm in ((0.1, 3.0, 0.5), (1.0, 3.25, 0.125), (0.01, 2.75, 1.0)):
        for seed in SEEDS:
            fields = {"weight_decay": decay, "seed": seed}
            write_run(tmp_path, runs[0], store, [9.0, clean], repeats=1, **fields)
            write_run(tmp_path, runs[0], store, [9.0, clean + harm], repeats=4, repeated_fraction=0.5, **fields)
    comparison = compared(tmp_path)
    assert comparison.reference == "weight_decay = 0.1", "the default"
    table = comparison.differences[comparison.differences.metric == "test_loss"].set_index(["variant", "repeats"])
    assert table.loc[("weight_decay = 1.0", 1), "mean"] == pytest.approx(0.25), "the price in clean runs"
    assert table.loc[("weight_decay = 1.0", 4), "mean"] == pytest.approx(-0.375), "the harm removed"
    assert table.loc[("weight_decay = 0.01", 4), "mean"] == pytest.approx(0.5)


def test_the_variant_with_the_most_runs_is_the_reference(runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    for decay, values_of_repeats in ((0.1, (1, 4)), (0.01, (1, 4, 16))):
        for seed in SEEDS:
            for repeats in values_of_repeats:
                pool = {"repeated_fraction": 0.5} if repeats > 1 else {}
                fields = {"weight_decay": decay, "seed": seed, "repeats": repeats, **pool}
                write_run(tmp_path, runs[0], store, [9.0, 3.0 + decay + repeats / 10], **fields)
    comparison = compared(tmp_path)
    assert comparison.reference == "weight_decay = 0.01", "although 0.1 is the default"
    assert set(comparison.differences.repeats) == {1, 4}


def test_nothing_is_compared_without_common_seeds(runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    for seed, spacing in ((0, "passes"), (1, "uniform")):
        fields = {"repeats": 4, "repeated_fraction": 0.5, "seed": seed, "spacing": spacing}
        write_run(tmp_path, runs[0], store, [9.0, 3.0], **fields)
        assert compare_variants(load_runs(tmp_path)) is None
    assert isinstance(figure_of_variants.plot(load_runs(tmp_path)), Missing)


def test_large_numbers_in_names_of_variants_have_separators(runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    for tokens in (16_384, 8_192):
        write_run(tmp_path, runs[0], store, [9.0, 3.0], repeats=1, tokens=tokens)
    assert [name for name, _ in load_runs(tmp_path).variants()] == ["tokens = 8192", "tokens = 16,384"]
