"""The table of unhealthy runs lists failures, frequent resumption, precisions, and spikes."""

import json
from pathlib import Path

import pytest
from written_runs import write_run

from analysis.measures.run_health import run_health
from analysis.report.health_section import section
from analysis.runs import load_runs
from data_prep.token_store import TokenStore
from repeat_study.config.run import Run
from repeat_study.records.run_directory import RunDirectory


@pytest.fixture
def folder(tmp_path: Path, runs: list[Run], store: TokenStore) -> Path:
    for seed in range(3):
        write_run(
            tmp_path, runs[0], store, [6.0, 5.5, 5.0, 4.5, 4.4, 4.3, 4.2, 4.1], model="2x32", repeats=1, seed=seed
        )
    return tmp_path


def of_seed(folder: Path, seed: int) -> RunDirectory:
    (path,) = folder.glob(f"*-s{seed}-*")
    return RunDirectory(path)


def edit(directory: RunDirectory, key: str, values: list[float]) -> None:
    """Replace a metric of an unfinished run."""
    directory.done.unlink(missing_ok=True)
    rows = [row | {key: value} for row, value in zip(directory.rows(), values, strict=True)]
    directory.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))


def sessions(directory: RunDirectory, *precisions: str) -> None:
    for step, precision in enumerate(precisions):
        directory.add_session({"step": 10 * step, "precision": precision})


def test_healthy_runs_have_no_rows(folder: Path) -> None:
    problems = run_health(load_runs(folder))
    assert problems.empty
    assert section(problems, 3).sentences[0].startswith("No problem was found in 3 runs.")


def test_every_problem_is_found_and_linked_to_its_record(folder: Path) -> None:
    sessions(of_seed(folder, 0), "float32", "float32", "float32", "float32")
    sessions(of_seed(folder, 1), "float32", "bfloat16")
    edit(of_seed(folder, 1), "train_loss", [6.0, 5.5, 5.0, 4.5, 4.4, 5.0, 4.2, 4.1])
    sessions(of_seed(folder, 2), "float32")
    edit(of_seed(folder, 2), "gradient_norm", [0.5, 0.5, 0.5, 0.5, 0.5, 4.0, 0.5, 0.5])
    of_seed(folder, 2).fail("out of memory", 20)
    problems = run_health(load_runs(folder))
    found = {(row.label[-2:], row.problem): (row.details, row.record) for row in problems.itertuples()}
    assert found == {
        ("s0", "resumed often"): ("4 sessions; resumed at steps 10, 20, and 30", "sessions.jsonl"),
        ("s1", "mixed precision"): ("trained in float32 and bfloat16", "sessions.jsonl"),
        ("s1", "spike in training loss"): ("1 spike; the largest is 0.60 nats, at 11.8k tokens", "metrics.jsonl"),
        ("s2", "failed"): ("out of memory (step 20)", "failed.json"),
        ("s2", "high gradient norm"): ("4 at 11.8k tokens, 8.0 times the median", "metrics.jsonl"),
    }
    content = section(problems, 3)
    assert content.sentences == ["3 of 3 runs look unhealthy. Check them before trusting their numbers."]
    assert all((folder / link).is_file() for link in content.tables[0].links)


def test_a_run_in_another_precision_than_most_is_found(folder: Path) -> None:
    for seed, precision in enumerate(("float32", "float32", "bfloat16")):
        sessions(of_seed(folder, seed), precision)
    (row,) = run_health(load_runs(folder)).itertuples()
    assert (row.problem, row.details) == ("different precision", "bfloat16; most runs use float32")
