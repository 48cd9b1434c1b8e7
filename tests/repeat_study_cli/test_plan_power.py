"""`repeat-study plan` shows which differences a grid can detect, based on finished runs."""

import json
import shutil
from pathlib import Path

import pytest

from data_prep.token_store import TokenStore
from repeat_study.config.corpora import StudyTexts
from repeat_study.config.study import Study, load_study
from tests.analysis.written_runs import write_run
from tests.conftest import make_workplace
from tests.repeat_study_cli.conftest import Invoke

SEEDS = "grid.0.seed=[0,1,2]"
HINT = "add --spread-from STUDY"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, store: TokenStore, study: Study) -> Path:
    """A folder in which the study `tiny` is done in three seeds. Its excess over clean has a standard deviation of 0.1 nats."""
    folder = make_workplace(tmp_path_factory.mktemp("finished"), store, study)
    for run in load_study(folder / "studies" / "tiny.toml", [SEEDS]).runs(StudyTexts(store.fingerprint)):
        loss = 3.0 + run.seed + (0.5 + 0.1 * run.seed if run.repeats > 1 else 0.0)
        write_run(folder / "runs" / "tiny", run, store, [9.0, loss])
    return folder


def cells(output: str) -> list[list[str]]:
    """The rows of the table below the heading 'sd over seeds'."""
    lines = output.splitlines()
    (heading,) = [number for number, line in enumerate(lines) if "sd over seeds" in line and line.startswith("size")]
    return [line.split() for line in lines[heading + 1 : lines.index("", heading)]]


def test_a_study_is_planned_from_its_own_finished_runs(finished: Path, invoke: Invoke) -> None:
    plan = invoke("plan", "tiny", "--set", SEEDS, cwd=finished)
    assert plan.returncode == 0 and HINT not in plan.stdout, plan.stderr
    (row,) = cells(plan.stdout)
    # 0.1 nats * 4.303 / sqrt(3) = 0.25 nats
    assert row[:4] == ["1x16", "50%", "3", "0.10"] and row[6] == "0.25" and row[8:12] == ["–", "3", "pairs", "in"]


@pytest.mark.parametrize("source", ["tiny", "studies/tiny.toml", "runs/tiny"])
def test_other_runs_show_what_more_seeds_would_detect(
    finished: Path, workplace: Path, invoke: Invoke, source: str
) -> None:
    shutil.copytree(finished / "runs" / "tiny", workplace / "runs" / "tiny")
    if not source.startswith("runs"):
        text = (workplace / "studies" / "tiny.toml").read_text()
        (workplace / "studies" / "tiny.toml").write_text(f"{text}seed = [0, 1, 2]\n")
        (workplace / "studies" / "other.toml").write_text(text)
    study = "tiny" if source.startswith("runs") else "other"
    plan = invoke("plan", study, "--set", "training.learning_rate=1e-3", "--spread-from", source, cwd=workplace)
    assert plan.returncode == 0, plan.stderr
    assert [(row[2], row[6]) for row in cells(plan.stdout)] == [("1", "–"), ("3", "0.25"), ("5", "0.12")]
    assert "With one seed, there is no interval over seeds" in plan.stdout


def test_without_finished_seeds_a_line_shows_how_to_get_the_table(
    finished: Path, trained: Path, with_child: Path, invoke: Invoke
) -> None:
    for arguments in (("tiny",), ("tiny", "--set", "training.learning_rate=1e-3")):
        plan = invoke("plan", *arguments, cwd=with_child)
        assert plan.returncode == 0 and plan.stdout.splitlines()[-1].count(HINT) == 1
    single = invoke("plan", "tiny", cwd=trained)
    assert single.returncode == 0 and HINT in single.stdout, "it is finished in one seed only"
    child = invoke("plan", "child", cwd=with_child)
    assert child.returncode == 0 and HINT not in child.stdout, "its runs are compared with runs from clean parents"
    other = invoke("plan", "tiny", "--set", "training.learning_rate=1e-3", cwd=finished)
    assert other.returncode == 0 and HINT in other.stdout, "the finished runs belong to another study"


def test_a_study_without_clean_runs_or_with_damaged_runs_is_planned_without_the_table(
    finished: Path, workplace: Path, invoke: Invoke
) -> None:
    plan = invoke("plan", "tiny", "--set", "grid.0.repeats=[4]", cwd=workplace)
    assert plan.returncode == 0 and "no clean runs, so the plan cannot show which differences" in plan.stdout
    runs = shutil.copytree(finished / "runs" / "tiny", workplace / "runs" / "tiny")
    with next(runs.glob("*/metrics.jsonl")).open("a") as file:
        file.write("{\n")
    plan = invoke("plan", "tiny", "--set", SEEDS, cwd=workplace)
    assert plan.returncode == 0 and "total" in plan.stdout, plan.stderr
    assert "The finished runs of tiny cannot show which differences the grid can detect" in plan.stdout


def test_bad_input_ends_in_one_line(finished: Path, workplace: Path, invoke: Invoke) -> None:
    single = shutil.copytree(finished / "runs" / "tiny", workplace / "runs" / "single")
    for path in [*single.glob("*-s1-*"), *single.glob("*-s2-*")]:
        shutil.rmtree(path)
    damaged = shutil.copytree(finished / "runs" / "tiny", workplace / "runs" / "damaged")
    spec = next(damaged.glob("*/spec.json"))
    spec.write_text(json.dumps(json.loads(spec.read_text()) | {"seed": 7}))
    cases = {
        "nothing": "nothing.toml: no such study",
        "": ".: no runs here",
        "tiny": "runs/tiny: no runs here",
        "studies": "studies: no runs here",
        "runs/single": "runs/single: no finished arm with two or more seeds and their clean runs",
        "runs/damaged": "spec.json: altered since it was written",
    }
    for source, message in cases.items():
        ended = invoke("plan", "tiny", "--spread-from", source, cwd=workplace)
        assert ended.returncode == 2 and message in ended.stderr and ended.stderr.count("\n") == 1, ended.stderr
        assert ended.stdout == ""
    repeated = ("--set", "grid.0.repeats=4", "--spread-from", str(finished / "runs" / "tiny"))
    ended = invoke("plan", "tiny", *repeated, cwd=workplace)
    assert ended.returncode == 2 and "tiny: no repeated run has a clean run" in ended.stderr, ended.stderr
