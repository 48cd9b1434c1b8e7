"""The effective size of a run, from its losses and its prefix matching."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from head_runs import SIZES, formed, score_of
from written_runs import NULL, write_run

from analysis.intervals import Bound
from analysis.measures.clean_law import fit_power_law
from analysis.measures.degradation import summary
from analysis.measures.effective_size import TEST_LOSS, NoLaw, clean_law, multiplier, over_controls, size_multipliers
from analysis.runs import Runs, load_runs
from data_prep.token_store import TokenStore
from repeat_study.config.run import Run
from repeat_study.records.metrics import BY_KEY

HARM = 0.25  # nats


def clean_loss(size: float) -> float:
    return float(2 + 40 * size**-0.3)


PREFIX, COPYING = BY_KEY["prefix_matching"], BY_KEY["copying_loss"]


def test_the_multiplier_is_never_extrapolated() -> None:
    sizes = np.geomspace(1e5, 1e8, 7)
    law = fit_power_law(sizes, 1.7 + 400 * sizes**-0.34)
    half = multiplier(law, 1e7, float(law.loss(5e6)))
    assert half.bound is Bound.EXACT and half.value == pytest.approx(0.5, rel=0.01)
    worse, better = multiplier(law, 1e7, 20.0), multiplier(law, 1e7, 1.0)
    assert (worse.bound, worse.value) == (Bound.AT_MOST, pytest.approx(0.01))
    assert (better.bound, better.value) == (Bound.AT_LEAST, pytest.approx(10))


def planted_seeds(folder: Path, run: Run, store: TokenStore, clean_seeds: Sequence[int]) -> Runs:
    """Clean runs of three sizes, and 2x64 at R = 4 with the effective size of a model half as large. Each seed shifts all of its runs."""
    for seed in (0, 1, 2):
        offset = 0.3 * seed
        for model, size in SIZES.items():
            if seed in clean_seeds:
                losses = [9.0, clean_loss(size) + offset]
                write_run(folder, run, store, losses, model=model, repeats=1, seed=seed)
        losses = [9.0, clean_loss(SIZES["2x64"]) + HARM + offset]
        write_run(folder, run, store, losses, model="2x64", repeats=4, repeated_fraction=0.5, seed=seed)
    return load_runs(folder)


def test_the_noise_that_a_seed_shares_with_its_clean_run_cancels(
    tmp_path: Path, runs: list[Run], store: TokenStore
) -> None:
    loaded = planted_seeds(tmp_path / "all", runs[0], store, clean_seeds=(0, 1, 2))
    law = clean_law(loaded)
    assert not isinstance(law, NoLaw)
    expected = law.size(float(law.loss(SIZES["2x64"])) + HARM) / SIZES["2x64"]
    numbers = summary(loaded)
    repeated, clean = numbers[numbers.repeats == 4], numbers[(numbers.repeats == 1) & (numbers.model == "2x64")]
    assert repeated.size_multiplier.tolist() == pytest.approx([expected] * 3)
    assert repeated.excess_over_clean.tolist() == pytest.approx([HARM] * 3)
    assert clean.excess_over_clean.tolist() == pytest.approx([-0.3, 0, 0.3]), "compared with the mean of all seeds"
    assert repeated.size_multiplier_bound.tolist() == [""] * 3


def test_a_run_without_its_own_clean_run_is_compared_with_the_mean(
    tmp_path: Path, runs: list[Run], store: TokenStore
) -> None:
    numbers = summary(planted_seeds(tmp_path, runs[0], store, clean_seeds=(0, 2)))
    excess = numbers[numbers.repeats == 4].set_index("seed").excess_over_clean
    assert excess.to_dict() == pytest.approx({0: HARM, 1: HARM, 2: HARM}), "the mean of seeds 0 and 2 is that of seed 1"
    frame = pd.DataFrame({"model": ["a", "a", "b"], "seed": [0, 1, 0]})
    is_control = pd.Series([True, False, False])
    values = over_controls(frame, pd.Series([2.0, 2.5, 7.0]), is_control)
    assert values.tolist()[:2] == [0.0, 0.5] and np.isnan(values[2]), "no clean run of this size"


def test_planted_effective_sizes_from_copying_and_prefix_matching_are_recovered(with_heads: Path) -> None:
    numbers = (
        summary(load_runs(with_heads)).query("layers == 2 and repeats == 4").sort_values("parameters_non_embedding")
    )
    assert numbers.size_multiplier.iloc[1:].tolist() == pytest.approx([0.95] * 2, rel=0.01)
    assert numbers.copying_multiplier.iloc[1:].tolist() == pytest.approx([1 / 3] * 2, rel=0.02)
    assert numbers.prefix_matching_multiplier.iloc[1:].tolist() == pytest.approx([0.5] * 2, rel=0.01)
    assert numbers.prefix_matching_multiplier_bound.tolist() == ["≤", "", ""]


def test_one_layer_controls_are_left_out_of_the_law(with_heads: Path) -> None:
    runs = load_runs(with_heads)
    law = clean_law(runs, PREFIX)
    assert not isinstance(law, NoLaw) and law.points == 3 and law.residual < 1e-3
    control = set(runs.table[runs.table.layers == 1].name)
    assert not control & size_multipliers(runs, PREFIX).keys()


def test_there_is_no_multiplier_if_the_metric_does_not_improve_with_clean_size(
    with_heads: Path, runs: list[Run], store: TokenStore
) -> None:
    assert not isinstance(clean_law(load_runs(with_heads), COPYING), NoLaw)
    for seed, (model, loss) in enumerate((("2x32", 1.3), ("2x128", 2.8)), start=1):
        metrics = {"copying_loss": loss}
        fields = {"model": model, "repeats": 1, "seed": seed}
        size = SIZES[model]
        curve = [5.0, 4.5, 4.0, 2 + 40 * size**-0.3]
        write_run(with_heads, runs[0], store, curve, formed(score_of(size)), None, metrics, **fields)
    loaded = load_runs(with_heads)
    law = clean_law(loaded, COPYING)
    assert isinstance(law, NoLaw) and "does not clearly improve with the size of clean models" in law.reason
    assert not size_multipliers(loaded, COPYING) and size_multipliers(loaded, TEST_LOSS)
    assert summary(loaded).copying_multiplier.isna().all()


def test_scores_below_twice_their_null_give_no_effective_size(
    tmp_path: Path, runs: list[Run], store: TokenStore
) -> None:
    for place, model in enumerate(SIZES):
        best = [[NULL, NULL * (1.1 + 0.2 * place)]]
        write_run(tmp_path, runs[0], store, [5.0, 4.0 - place / 5], [best] * 2, model=model, repeats=1)
    law = clean_law(load_runs(tmp_path), PREFIX)
    assert isinstance(law, NoLaw) and "exceeds twice its null" in law.reason
