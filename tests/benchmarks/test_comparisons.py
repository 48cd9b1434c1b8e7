"""Speed comparisons: what was measured before a failure is kept, and ratios are of the same round."""

import json

import pytest

from benchmarks.bundles import Comparison, Speed
from benchmarks.training import ratios_of
from repeat_study.config.run import Run


def test_a_measurement_that_fails_costs_no_other(runs: list[Run], capsys: pytest.CaptureFixture[str]) -> None:
    def too_little_memory() -> Speed:
        raise RuntimeError("CUDA out of memory.\nTried to allocate 1 GiB")

    comparison, alone, run = Comparison("some GPU"), Speed(1000.0, 0.1, 10e6), runs[0]
    comparison.measure("64 lanes", 64, alone, run, too_little_memory)
    comparison.measure("16 lanes", 16, alone, run, lambda: Speed(8000.0, 0.2, 40e6))
    comparison.measure("8 processes", 1, alone, run, lambda: Speed(2000.0))
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed["failures"] == [f"{run.model}, 64 lanes: CUDA out of memory."]
    assert [(row["how"], row["over_one_lane"], row["bytes_per_lane"]) for row in printed["rows"]] == [
        ("16 lanes", 8.0, 2e6),
        ("8 processes", 2.0, None),
    ]


def test_ratios_are_of_the_same_round_and_leave_out_what_was_not_measured() -> None:
    assert ratios_of({"ours": [10.0, 30.0], "bare": [20.0, 20.0], "nanoGPT": [5.0]}) == {
        "bare": [0.5, 1.5],
        "nanoGPT": [2.0],
    }
    assert ratios_of({"nanoGPT": [5.0]}) == {} == ratios_of({"ours": [5.0]})
