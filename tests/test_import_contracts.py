"""The import contracts hold, and they fail as soon as somebody imports upwards, in a circle, or torch where it is not allowed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("data_prep", "repeat_study", "slurm", "analysis", "repeat_study_cli")


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the linter on the packages of a folder."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "studies"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_contract_holds() -> None:
    found = check(ROOT)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize(
    ("file", "statement", "contract"),
    [
        ("data_prep/mixture.py", "import repeat_study.cost", "Packages import only from lower layers"),
        ("analysis/runs.py", "import slurm.status", "Packages import only from lower layers"),
        ("repeat_study/config/run.py", "import repeat_study.training.trainer", "Layers of repeat_study"),
        ("analysis/laws/fit.py", "import analysis.measures.peaks", "Layers of analysis"),
        ("data_prep/permutation.py", "import data_prep.mixture", "No import cycles within a package"),
        ("slurm/client.py", "import slurm.sweep", "No import cycles within a package"),
        ("analysis/published.py", "import torch", "never import torch"),
        ("repeat_study/export/conversion.py", "import transformers", "Exporting needs neither transformers"),
    ],
)
def test_a_forbidden_import_breaks_its_contract(copied: Path, file: str, statement: str, contract: str) -> None:
    path = copied / file
    path.write_text(path.read_text() + f"\n{statement}\n")
    found = check(copied)
    assert found.returncode == 1
    broken = [line for line in found.stdout.splitlines() if line.endswith("BROKEN")]
    assert any(contract in line for line in broken), found.stdout
