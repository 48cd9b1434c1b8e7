"""Rises of test loss are distinguished from chance, on curves with known noise over test sequences."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from written_runs import write_run

from analysis.measures.degradation import Judge, double_descent, judge_descent, summary
from analysis.report.findings import findings
from analysis.report.summary import summarize
from analysis.runs import load_runs
from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.config.run import Run
from repeat_study.records.run_directory import RunDirectory
from repeat_study.records.tables import read_table, write_table

NOISE = 0.05  # nats, standard deviation of the loss of one sequence at one evaluation
SEQUENCES, EVALUATIONS = 48, 30
STANDARD_ERROR = NOISE * (2 / SEQUENCES) ** 0.5  # of the mean paired difference between two evaluations
TIME = np.arange(EVALUATIONS)
FLAT = np.full(EVALUATIONS, 3.0)
FALLING = 3 + 4 * np.exp(-TIME / 1.2)
BUMP = np.exp(-(((TIME - 18) / 2) ** 2) / 2)


def losses_around(mean: np.ndarray, rng: np.random.Generator, sequences: int = SEQUENCES) -> np.ndarray:
    """Noisy losses of test sequences around a curve, [evaluations, sequences]. Each sequence has its own fixed difficulty."""
    difficulty = np.random.default_rng(sequences).normal(0, 0.5, sequences)
    return mean[:, None] + difficulty + rng.normal(0, NOISE, (len(mean), sequences))


def rates(mean: np.ndarray, curves: int, sequences: int = SEQUENCES) -> tuple[float, float]:
    """The share of noisy curves around `mean` whose rise counts, and the share that has double descent."""
    rng = np.random.default_rng(0)
    judged = []
    for _ in range(curves):
        losses = losses_around(mean, rng, sequences)
        judged.append(judge_descent(double_descent(np.arange(len(mean)), losses.mean(1)), losses))
    return float(np.mean([run.rise_counts for run in judged])), float(np.mean([run.counts for run in judged]))


@pytest.mark.parametrize("sequences", [16, 48, 256])
@pytest.mark.parametrize("mean", [FLAT, FALLING], ids=["flat", "falling"])
def test_noise_counts_as_a_rise_in_at_most_five_percent(mean: np.ndarray, sequences: int) -> None:
    rise, descent = rates(mean, 400, sequences)
    assert descent <= rise <= 0.05


def test_a_rise_of_five_standard_errors_is_found_nineteen_times_in_twenty() -> None:
    rise, descent = rates(FALLING + 5 * STANDARD_ERROR * BUMP, 200)
    assert rise >= 0.95 and descent >= 0.95
    assert rates(FALLING + 10 * STANDARD_ERROR * BUMP, 100) == (1.0, 1.0)


def test_a_rise_without_recovery_is_not_double_descent() -> None:
    stays = FALLING + 10 * STANDARD_ERROR * np.where(TIME < 18, BUMP, 1.0)
    rise, descent = rates(stays, 100)
    assert rise == 1.0 and descent <= 0.05


def test_a_rise_below_the_threshold_of_clean_runs_does_not_count() -> None:
    losses = losses_around(FALLING + 10 * STANDARD_ERROR * BUMP, np.random.default_rng(0))
    descent = double_descent(TIME, losses.mean(1))
    assert judge_descent(descent, losses, clean_rise=0.9 * min(descent.rise, descent.won_back)).counts
    assert not judge_descent(descent, losses, clean_rise=1.1 * descent.rise).rise_counts


def test_with_too_few_sequences_the_noise_of_clean_runs_decides() -> None:
    losses = losses_around(FALLING + BUMP, np.random.default_rng(0), sequences=7)
    descent = double_descent(TIME, losses.mean(1))
    assert judge_descent(descent, losses).counts is None
    judged = judge_descent(descent, losses, noise=0.5)
    assert judged.judge is Judge.CLEAN and judged.rise_counts


@pytest.fixture
def noisy(tmp_path: Path, runs: list[Run], store: TokenStore) -> Path:
    """A clean run, a repeated run that ends flat with noise, and a repeated run with a rise of 20 standard errors."""
    rng = np.random.default_rng(1)

    def write(mean: np.ndarray, repeats: int) -> None:
        losses = losses_around(mean, rng)
        fields = {"model": "2x32", "repeats": repeats, "repeated_fraction": 0.5}
        write_run(tmp_path, runs[0], store, losses.mean(1).tolist(), of_test=losses.tolist(), **fields)

    write(FALLING - 0.02 * TIME, 1)  # falls at every evaluation
    write(FALLING, 4)
    write(FALLING + 20 * STANDARD_ERROR * BUMP, 16)
    return tmp_path


def test_the_report_counts_only_the_planted_double_descent_and_reports_its_size(noisy: Path) -> None:
    loaded = load_runs(noisy)
    numbers = summary(loaded).set_index("repeats")
    assert numbers.double_descent.tolist() == [False, False, True] and set(numbers.rise_judged_by) == {Judge.SEQUENCES}
    planted = numbers.loc[16]
    assert planted.rise_low < 20 * STANDARD_ERROR < planted.rise_high + 4 * STANDARD_ERROR
    assert planted.rise_low < planted.rise < planted.rise_high and planted.won_back_low > 0
    assert planted.rise_in_standard_errors == pytest.approx(20, rel=0.4)
    assert planted.rise_share == pytest.approx(planted.rise / (4 + 0.02 * 29), rel=0.02)
    finding = findings(summary(loaded))[0]
    assert "Double descent at f = 50%: in 1 of 2 runs" in finding and "a paired t test over test sequences" in finding
    assert (
        "standard errors over test sequences within one run, not over seeds; " in finding
        and "% of the clean runs' total drop in test loss)" in finding
    )
    assert "older versions" not in finding
    descent = next(line for line in summarize(loaded, summary(loaded)) if line.startswith("Double descent"))
    assert "in 1 of 2 runs at f = 50%" in descent and "standard errors" in descent


def test_the_excess_over_clean_has_a_paired_interval(noisy: Path) -> None:
    numbers = summary(load_runs(noisy))
    repeated = numbers[numbers.repeats > 1]
    assert (repeated.excess_low < repeated.excess_over_clean).all()
    assert ((repeated.excess_over_clean - repeated.excess_low) < 2 * NOISE).all(), "difficulties of 0.5 nats cancel"
    assert any("compared with clean runs; 95% interval across test sequences: [+" in line for line in findings(numbers))


def test_runs_of_older_versions_are_judged_by_clean_noise_and_the_report_explains_this(noisy: Path) -> None:
    rewrite(noisy, lambda path: path.unlink())
    loaded = load_runs(noisy)
    numbers = summary(loaded)
    assert set(numbers.rise_judged_by) == {Judge.CLEAN} and numbers.rise_low.isna().all()
    for sentence in (findings(numbers)[0], summarize(loaded, numbers)[2]):
        assert (
            "No run recorded the losses of at least eight test sequences, which older versions did not save."
            in sentence
        )
    shutil.rmtree(next(noisy.glob("*clean*")))
    assert "cannot be judged" in findings(summary(load_runs(noisy)))[0]


def test_double_descent_is_judged_without_a_clean_run(noisy: Path) -> None:
    shutil.rmtree(next(noisy.glob("*clean*")))
    numbers = summary(load_runs(noisy)).set_index("repeats")
    assert numbers.double_descent.tolist() == [False, True]


def test_an_incomplete_table_is_not_used_and_a_table_without_losses_is_an_error(noisy: Path) -> None:
    path = next(noisy.glob("*R16*/test_sequences.parquet"))
    complete = read_table(path)
    (path.parent / "done.json").unlink()  # a finished run with such a table would be rejected
    write_table(path, complete[SEQUENCES:])
    assert load_runs(noisy).test_sequences(path.parent.name) is None
    write_table(path, complete.drop_columns(["loss"]))
    with pytest.raises(InputError, match=r"test_sequences.parquet: column 'loss' is missing"):
        load_runs(noisy).test_sequences(path.parent.name)


def rewrite(folder: Path, change: Callable[[Path], object]) -> None:
    """Change every table of test sequences, and finish the runs again so that the change is not detected."""
    for path in folder.glob("*/test_sequences.parquet"):
        directory = RunDirectory(path.parent)
        change(path)
        directory.finish([row["step"] for row in directory.rows()])
