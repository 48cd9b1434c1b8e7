"""`sweep --cluster debug` trains in its own process and ignores variables that other commands have set."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import call
from tests.waiting import PATIENCE

LEFT_BEHIND = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.mark.slow
def test_variables_of_a_process_group_are_ignored(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LEFT_BEHIND.items():
        monkeypatch.setenv(name, value)
    done = call("sweep", "tiny", "--cluster", "debug", "--set", "grid.0.repeats=1", cwd=workplace)
    assert done.returncode == 0 and done.stdout.count(": done\n") == 1, done.stderr
    assert (
        "WORLD_SIZE, MASTER_ADDR, MASTER_PORT: ignored, because --cluster debug trains in this process" in done.stdout
    )


@pytest.mark.slow
def test_a_signal_saves_and_ends_the_sweep(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in LEFT_BEHIND.items():
        monkeypatch.setenv(name, value)
    long = ["--set", "training.tokens=400_000", "--set", "grid.0.repeats=1", "--set", "evaluation.log_points=12"]
    command = [sys.executable, "-m", "repeat_study_cli", "sweep", "tiny", "--cluster", "debug", *long]
    process = subprocess.Popen(command, cwd=workplace, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    for line in process.stdout:
        if "step " in line and "step 0/" not in line:
            break
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, output + errors
    assert ": interrupted" in output and list(workplace.glob("runs/tiny/*/checkpoints/last.ckpt"))
