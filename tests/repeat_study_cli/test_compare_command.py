"""`repeat-study compare` accepts names, study files and folders, and refuses what cannot be compared."""

import shutil
from pathlib import Path

import pytest

from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.config.corpora import StudyTexts
from repeat_study.config.study import load_study
from repeat_study.records.outcome import Outcome
from repeat_study.training.trainer import train_bundle
from repeat_study_cli.compare import _distinct_names
from tests.repeat_study_cli.conftest import Invoke


@pytest.fixture(scope="module")
def compared(trained: Path, store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of `tiny`, and in the folder `decayed` the same runs with another weight decay."""
    folder = tmp_path_factory.mktemp("compared")
    for name in ("studies", "runs"):
        shutil.copytree(trained / name, folder / name)
    study = load_study(folder / "studies" / "tiny.toml", ["training.weight_decay=0.5"])
    runs = study.runs(StudyTexts(store.fingerprint))
    assert set(train_bundle(runs, store, folder / "runs" / "decayed").values()) == {Outcome.DONE}
    return folder


def test_a_study_and_a_folder_are_compared(compared: Path, invoke: Invoke) -> None:
    output = invoke("compare", "tiny", "runs/decayed", cwd=compared)
    assert output.returncode == 0, output.stderr
    page = compared / "runs" / "comparisons" / "tiny-decayed" / "compare.html"
    assert output.stdout == f"comparison: {page.relative_to(compared)}\n"
    text = page.read_text()
    assert "What changes with the weight decay?" in text and "0.1 (tiny); 0.5 (decayed)" in text
    assert "There is one pair of runs, so there is no interval" in text
    assert "repeat-study compare tiny runs/decayed" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tiny",), "tiny: one study found; expected two or more to compare"),
        (("tiny", "nonsense"), "nonsense.toml: no such study"),
        (("tiny", "studies"), "studies: no runs here"),
        (("tiny", "runs/tiny"), "runs/tiny: given twice; expected different studies"),
    ],
)
def test_bad_arguments_end_in_one_line(
    arguments: tuple[str, ...], message: str, compared: Path, invoke: Invoke
) -> None:
    output = invoke("compare", *arguments, "--out", "nowhere", cwd=compared)
    assert output.returncode == 2 and message in output.stderr and output.stderr.count("\n") == 1
    assert not (compared / "nowhere").exists()


def test_copies_of_the_same_runs_cannot_be_compared(compared: Path, tmp_path: Path, invoke: Invoke) -> None:
    shutil.copytree(compared / "runs" / "tiny", tmp_path / "tiny")
    output = invoke("compare", "tiny", str(tmp_path / "tiny"), "--out", "nowhere", cwd=compared)
    assert output.returncode == 2 and "contain the same 2 runs" in output.stderr
    assert not (compared / "nowhere").exists()


def test_folders_with_the_same_name_are_told_apart() -> None:
    assert _distinct_names([Path("/runs/a"), Path("/runs/b")]) == ["a", "b"]
    assert _distinct_names([Path("/new/runs/a"), Path("/old/runs/a")]) == ["new/runs/a", "old/runs/a"]
    with pytest.raises(InputError, match="given twice"):
        _distinct_names([Path("/runs/a"), Path("/runs/a")])
