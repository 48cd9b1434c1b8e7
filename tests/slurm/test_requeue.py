"""Tests of requeue.sh without SLURM. A fake scontrol records its calls."""

import os
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from slurm.preemption import REQUEUE_EXIT_CODE, requeue_lines
from tests.waiting import PATIENCE

RUNNING = "JobId=9 ArrayJobId=7 ArrayTaskId=2 JobState=RUNNING Reason=None Requeue=1 Restarts=0 BatchFlag=1 "


def end_batch_script(
    folder: Path, exit_code: int, record: str = RUNNING, show: str = "true", requeue: str = "true", **variables: str
) -> tuple[int, str, list[str]]:
    """Run the script after a command that exits with this code. Returns its exit code, its output and its calls of scontrol and sleep."""
    fake = f'echo "scontrol $*" >> {folder}/calls\ncase "$1" in\n show) echo "{record}"; {show} ;;\n requeue) {requeue} ;;\nesac\n'
    for name, body in (("scontrol", fake), ("sleep", f"echo sleep >> {folder}/calls\n")):
        (folder / name).write_text(f"#!/bin/bash\n{body}")
        (folder / name).chmod(0o755)
    script = folder / "batch.sh"
    script.write_text("\n".join([f"(exit {exit_code})", *requeue_lines()]))
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "9", **variables}
    ended = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert not ended.stderr, ended.stderr
    calls = folder / "calls"
    return ended.returncode, ended.stdout, calls.read_text().splitlines() if calls.exists() else []


@pytest.mark.parametrize("exit_code", [0, 1, 2, 74, 76, 128, 192, 255])
def test_a_job_that_ended_by_itself_passes_on_its_exit_code(exit_code: int, tmp_path: Path) -> None:
    assert end_batch_script(tmp_path, exit_code) == (exit_code, "", [])


@pytest.mark.parametrize("exit_code", [REQUEUE_EXIT_CODE, 129, 137, 143, 191])
def test_a_job_that_saved_its_state_or_was_killed_is_requeued(exit_code: int, tmp_path: Path) -> None:
    calls = ["scontrol show job --oneliner 9", "scontrol requeue 9"]
    assert end_batch_script(tmp_path, exit_code) == (exit_code, f"exit code {exit_code}: requeued\n", calls)


def test_an_element_of_an_array_is_named_by_its_index(tmp_path: Path) -> None:
    _, _, calls = end_batch_script(tmp_path, 75, SLURM_ARRAY_JOB_ID="7", SLURM_ARRAY_TASK_ID="2")
    assert calls == ["scontrol show job --oneliner 7_2", "scontrol requeue 7_2"]


@pytest.mark.parametrize(
    "record",
    [
        RUNNING.replace("RUNNING", "COMPLETING"),  # SLURM is ending or requeueing it
        RUNNING.replace("Restarts=0", "Restarts=1"),  # SLURM has restarted it on another node
    ],
)
def test_a_job_that_slurm_has_taken_over_is_left_alone(record: str, tmp_path: Path) -> None:
    assert end_batch_script(tmp_path, 75, record)[1:] == ("", ["scontrol show job --oneliner 9"])


def test_a_job_that_slurm_restarted_before_is_requeued(tmp_path: Path) -> None:
    record = RUNNING.replace("Restarts=0", "Restarts=3")
    assert end_batch_script(tmp_path, 75, record, SLURM_RESTART_COUNT="3")[1] == "exit code 75: requeued\n"


def test_the_script_waits_for_a_missing_controller_and_gives_up_after_three_refusals(tmp_path: Path) -> None:
    _, output, calls = end_batch_script(tmp_path, 75, show="false")
    assert output == "" and calls == ["scontrol show job --oneliner 9", "sleep"] * 60
    (tmp_path / "calls").unlink()
    _, output, calls = end_batch_script(tmp_path, 75, requeue="false")
    attempt = ["scontrol show job --oneliner 9", "scontrol requeue 9"]
    assert output == "" and calls == [*attempt, "sleep", *attempt, "sleep", *attempt]


def test_the_script_is_part_of_the_package_and_valid_bash() -> None:
    path = files("slurm").joinpath("requeue.sh")
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    assert requeue_lines() == path.read_text().splitlines()
