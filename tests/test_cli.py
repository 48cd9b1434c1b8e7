"""The command as a user meets it: real processes, exit codes, one line for bad input."""

import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.token_store import TokenStore
from repeat_study.study import Study

STUDY = """
[data]
source = "installed-python"
vocabulary = 320
max_tokens = 400_000
test_fraction = 0.1

[training]
tokens = 16_384
context = 32
sequences_per_step = 8
learning_rate = 3e-3

[evaluation]
even_points = 4
test_sequences = 16

[[grid]]
model = "1x16"
repeats = [1, 4]
repeated_fraction = 0.5
"""


def call(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "repeat_study.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.fixture
def workplace(tmp_path: Path, store: TokenStore, study: Study) -> Path:
    """A folder with a study whose store stands already."""
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "tiny.toml").write_text(STUDY)
    (tmp_path / "data").symlink_to(store.folder.parent)
    return tmp_path


def test_a_study_from_plan_to_report(workplace: Path) -> None:
    plan = call("plan", "tiny", cwd=workplace)
    assert plan.returncode == 0 and "tiny: 2 runs" in plan.stdout and "50.000%" in plan.stdout
    assert not (workplace / "runs").exists()
    before = call("status", "tiny", cwd=workplace)
    assert "2 pending" in before.stdout
    run = call("run", "tiny", "--processes", "2", cwd=workplace)
    assert run.returncode == 0, run.stderr
    assert "[2/2]" in run.stdout
    again = call("run", "tiny", cwd=workplace)
    assert again.stdout.count("already done") == 2
    status = call("status", "studies/tiny.toml", cwd=workplace)
    assert "2 done" in status.stdout and "64/64" in status.stdout
    report = call("report", "tiny", cwd=workplace)
    assert report.returncode == 0 and "report: runs/tiny/report.html" in report.stdout
    assert (workplace / "runs/tiny/report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plan", "nothing"), "studies/nothing.toml: no such study; found here: tiny"),
        (("plan", "tiny", "--set", "training.tokenz=1"), "training.tokenz: unknown key; did you mean 'tokens'?"),
        (("run", "tiny", "--set", "training.context=true"), "training.context: input should be a valid integer"),
        (("run", "tiny", "--set", "grid.0.repeats=0"), "grid.0.repeats: input should be greater than or equal to 1"),
        (("run", "tiny", "--set", "grid.0.repeats=5000"), "less than one"),
        (("run", "tiny", "--set", "training.tokens=4_000_000"), "tokens: the run needs"),
        (("report", "tiny"), "runs/tiny: no runs here"),
        (("status", "tiny", "--data-dir", "elsewhere"), "no token store here"),
        (("run", "tiny", "--data-dir", "studies/tiny.toml/x"), "cannot hold token stores: Not a directory"),
        (("run", "tiny", "--runs-dir", "studies/tiny.toml"), "cannot hold runs: Not a directory"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(workplace: Path, arguments: tuple[str, ...], message: str) -> None:
    before = sorted(path for path in workplace.rglob("*") if path.is_file())
    found = call(*arguments, cwd=workplace)
    assert found.returncode == 2
    assert message in found.stderr and found.stderr.count("\n") == 1, found.stderr
    assert sorted(path for path in workplace.rglob("*") if path.is_file()) == before
