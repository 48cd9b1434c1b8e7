"""Compare the records of two runs number by number."""

from pathlib import Path
from typing import Any

import pytest

from repeat_study.config.run import Run
from repeat_study.records.run_directory import RunDirectory
from repeat_study.records.tables import read_table

CLOSE = 1e-4  # nats; the largest effect that the order of sums may have on the losses of these runs
CLOSE_SCORES = 1e-3  # the same for the scores of heads


def rows(folder: Path, run: Run) -> list[dict[str, Any]]:
    """Every evaluation of a complete run."""
    complete = RunDirectory(folder / run.name).rows()
    assert [row["step"] for row in complete] == run.evaluation.steps(run.steps)
    return complete


def assert_close_losses(actual: Path, expected: Path, run: Run, tolerance: float) -> None:
    """Assert that all losses of two trainings of a run are equal up to `tolerance` nats, and that the run has learned."""
    complete = rows(expected, run)
    for row, expected_row in zip(rows(actual, run), complete, strict=True):
        for key in ("train_loss", "test_loss", "pool_loss", "seen_unique_loss", "copying_loss"):
            assert row[key] == pytest.approx(expected_row[key], abs=tolerance), (run.label, row["step"], key)
    assert complete[0]["test_loss"] - complete[-1]["test_loss"] > 1, "a model that learned nothing would be close too"


def assert_close_heads(actual: Path, expected: Path, run: Run, tolerance: float) -> None:
    """Assert that the scores of all heads are equal up to `tolerance`, except intervals."""
    tables = [read_table(RunDirectory(folder / run.name).heads).to_pylist() for folder in (actual, expected)]
    assert_close_records(*tables, tolerance)


def assert_close_records(actual: Any, expected: Any, tolerance: float) -> None:
    """Assert that two nested structures are equal, and their numbers up to `tolerance`. Intervals are not compared."""
    numbers, expected_numbers = dict(_leaves(actual)), dict(_leaves(expected))
    assert numbers.keys() == expected_numbers.keys() and numbers
    for path, expected_number in expected_numbers.items():
        assert numbers[path] == pytest.approx(expected_number, abs=tolerance), path


def _leaves(value: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        items = [(str(key), item) for key, item in value.items() if not str(key).endswith("_ci")]
    elif isinstance(value, list):
        items = [(str(number), item) for number, item in enumerate(value)]
    else:
        return [(path, value)]
    return [leaf for key, item in items for leaf in _leaves(item, f"{path}/{key}")]
