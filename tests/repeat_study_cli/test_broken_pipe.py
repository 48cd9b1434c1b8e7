"""Training continues even if nobody reads its output."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENCE


@pytest.mark.slow
def test_training_continues_when_nobody_reads_its_output(workplace: Path) -> None:
    script = f"set -o pipefail; {sys.executable} -m repeat_study_cli run tiny --processes 1 | head -1"
    piped = subprocess.run(["bash", "-c", script], cwd=workplace, capture_output=True, text=True, timeout=PATIENCE)
    assert piped.returncode == 0 and piped.stdout.count("\n") == 1, piped.stderr
    assert piped.stderr.count("standard output was closed; training continues") == 1 and "Traceback" not in piped.stderr
    runs = list(workplace.glob("runs/tiny/*/spec.json"))
    assert runs and all((spec.parent / "done.json").is_file() for spec in runs)
