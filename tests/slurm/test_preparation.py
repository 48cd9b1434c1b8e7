"""Data is prepared by the jobs of a real SLURM, with the same result as on one machine."""

import gzip
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from data_prep.prepare import prepare
from data_prep.token_store import TokenStore
from repeat_study.config.study import Study
from repeat_study.preparation import prepare_study
from repeat_study_cli.overview import overview_of
from slurm import client
from slurm.allocation import Allocation
from slurm.cancel import cancel
from slurm.dev_cluster import DevCluster
from slurm.preparation import Preparation, submit_preparation
from slurm.resolution import missing_stores, stores_in_order
from slurm.submissions import read_submissions
from tests.command import STUDY, call, toml
from tests.data_prep.chunks import planted
from tests.slurm.conftest import HELD, no_job_starts
from tests.waiting import wait_until

TRAINING = {"tokens": 4096, "context": 32, "sequences_per_step": 8, "learning_rate": 3e-3}


def study_of(data: dict[str, Any]) -> Study:
    fields = {"name": "tiny", "data": data, "training": TRAINING, "grid": [{"model": "1x16", "repeats": 1}]}
    return Study.model_validate(fields)


def submit(study: Study, folder: Path, tasks: int = 2, **allocation: object) -> list[str]:
    """Submit the preparation of a study. Returns the console lines."""
    lines: list[str] = []
    table = Allocation.model_validate({"time": "10", **allocation})
    submit_preparation(Preparation(study, folder / "data", folder / "runs", table, tasks), lines.append)
    return lines


def array_id(folder: Path) -> str:
    """The id of the array that encodes text."""
    return str(read_submissions(folder / "runs" / "tiny")[-1].preparation[0].job_id)


def manifests(study: Study, data_dir: Path) -> list[dict[str, Any]]:
    return [TokenStore(data_dir / spec.store_name).manifest for spec in stores_in_order(study)]


def write_large(path: Path, rows: int = 30_000) -> dict[str, Any]:
    """Write a JSONL file that takes a job several seconds to encode, and return the data spec."""
    texts = planted.texts()
    lines = (json.dumps({"text": f"{number} {texts[number % len(texts)]}"}) + "\n" for number in range(rows))
    path.write_text("".join(lines))
    source = {"kind": "files", "paths": [str(path)]}
    return {"source": source, "vocabulary": 257, "max_tokens": 10**9, "test_fraction": 0.2}


def test_jobs_build_the_same_stores_as_one_process(cluster: DevCluster, tmp_path: Path) -> None:
    """A mixture of four kinds of sources. All but the first use the tokenizer of the first one."""
    mix = [
        {
            "name": kind,
            "source": planted.fields(tmp_path, kind)["source"],
            "share": 0.25,
            "max_tokens": planted.MAX_TOKENS + 1000 * number,
        }
        for number, kind in enumerate(
            planted.KINDS
        )  # different sizes, because a study refuses sources with the same text
    ]
    study = study_of({"mix": mix, "max_shared_documents": 1000, "vocabulary": 257, "test_fraction": 0.2})
    lines = submit(study, tmp_path, tasks=3)
    assert lines[0].endswith(": encoding text in 3 tasks") and ": writing the token stores, waiting for job" in lines[1]
    prepare_study(study, tmp_path / "alone")
    wait_until(lambda: not client.queued_jobs())
    assert manifests(study, tmp_path / "data") == manifests(study, tmp_path / "alone")
    assert not missing_stores(study, tmp_path / "data")


def test_a_requeued_and_a_cancelled_task_do_not_change_the_store(cluster: DevCluster, tmp_path: Path) -> None:
    study = study_of(write_large(tmp_path / "a.jsonl"))
    submit(study, tmp_path, tasks=3, extra=HELD)
    job, chunks = array_id(tmp_path), study.data.chunks_folder(tmp_path / "data")
    client.run_client("scancel", f"{job}_2")
    client.run_client("scontrol", "release", f"{job}_0")
    wait_until(lambda: list(chunks.glob("0*.json")))
    client.run_client("scontrol", "requeue", f"{job}_0")
    status = overview_of(study, tmp_path / "data", tmp_path / "runs", 600)
    assert status.active and status.preparation[0].chunks > 10 and status.preparation[0].tokens > 0
    again = submit(study, tmp_path)
    assert len(again) == 1 and "the preparation of tiny is already in the queue: job" in again[0]
    client.run_client(
        "scontrol", "release", f"{job}_1", read_submissions(tmp_path / "runs" / "tiny")[-1].preparation[1].job_id or ""
    )
    wait_until(lambda: f"{job}_0" in {queued.job_id for queued in client.queued_jobs().values()})
    client.run_client("scontrol", "release", f"{job}_0")
    alone = prepare(study.data, tmp_path / "alone")
    wait_until(lambda: not client.queued_jobs())
    assert TokenStore(tmp_path / "data" / study.data.store_name).manifest == alone.manifest


def test_a_damaged_file_stops_the_jobs_and_the_next_call_continues(cluster: DevCluster, tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    data = write_large(texts / "a.jsonl", 3000)
    first = prepare(study_of(data | {"max_tokens": 50_000}).data, tmp_path / "first")
    shutil.copy(texts / "a.jsonl", texts / "b.jsonl.gz")  # not compressed
    source = {"kind": "files", "paths": [str(texts)]}
    data |= {
        "source": source,
        "tokenizer": str(first.folder / "tokenizer.json"),
    }  # so that training one does not read the file
    study = study_of(data)
    submit(study, tmp_path)
    wait_until(lambda: not client.queued_jobs())
    status = overview_of(study, tmp_path / "data", tmp_path / "runs", 600)
    (log,) = status.preparation_jobs.failed.values()
    assert len(log) == 1 and log[0].startswith(f"{texts}/b.jsonl.gz: cannot be read: "), log
    assert status.preparation[0].encoded > 3 and not status.active
    with pytest.raises(ValueError, match=r"b\.jsonl\.gz: cannot be read"):
        prepare(study.data, tmp_path / "data")
    (texts / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "repaired"}\n'))
    assert len(submit(study, tmp_path, extra=HELD)) == 2, "the plan is adapted to the repaired file"
    cancel(None, tmp_path / "runs" / "tiny")
    (texts / "a.jsonl").touch()
    with pytest.raises(ValueError, match=r"/a\.jsonl has changed since it was encoded"):
        submit(study, tmp_path)


def test_all_jobs_of_a_preparation_can_be_cancelled(cluster: DevCluster, tmp_path: Path) -> None:
    study = study_of(write_large(tmp_path / "a.jsonl", 100))
    submit(study, tmp_path, extra=HELD)
    assert len(cancel(None, tmp_path / "runs" / "tiny")) == 3
    wait_until(lambda: not client.queued_jobs())
    assert len(submit(study, tmp_path, extra=HELD)) == 2
    cancel(None, tmp_path / "runs" / "tiny")


@pytest.mark.slow
def test_a_sweep_from_nothing_prepares_the_data_and_has_the_same_results_as_the_local_pool(
    cluster: DevCluster, tmp_path: Path
) -> None:
    data = planted.fields(tmp_path, "jsonl")
    (tmp_path / "studies").mkdir()
    table = "\n".join(f"{key} = {toml(value)}" for key, value in data.items())
    (tmp_path / "studies" / "tiny.toml").write_text(f"[data]\n{table}\n{STUDY}")
    paths = data["source"]["paths"] = [os.path.relpath(path, tmp_path) for path in data["source"]["paths"]]
    override = ("--set", f"data.source.paths={toml(paths)}")  # a relative path, which jobs must understand too
    with no_job_starts():
        swept = call("sweep", "tiny", *override, "--tasks", 2, cwd=tmp_path)
        assert swept.returncode == 0 and "encoding text in 2 tasks" in swept.stdout, swept.stderr
        assert "2 runs to submit" in swept.stdout, swept.stderr
        again = call("sweep", "tiny", *override, cwd=tmp_path)
        assert "0 runs to submit; 2 already in the queue" in again.stdout, again.stderr
        label = json.loads(call("status", "tiny", *override, "--json", cwd=tmp_path).stdout)["runs"][0]["label"]
        cancelled = call("cancel", "tiny", label, *override, cwd=tmp_path)
        assert "cancelled jobs: 1" in cancelled.stdout, cancelled.stderr
        resumed = call("resume", "tiny", *override, "--tasks", 2, cwd=tmp_path)
        assert "1 run to submit" in resumed.stdout, resumed.stderr
    local = call("run", "tiny", *override, "--data-dir", "here", "--runs-dir", "local", "--processes", 1, cwd=tmp_path)
    assert local.returncode == 0, local.stderr
    wait_until(lambda: not client.queued_jobs())
    assert "2 done" in call("status", "tiny", *override, cwd=tmp_path).stdout
    metrics = sorted(tmp_path.glob("runs/tiny/*/metrics.jsonl"))
    assert len(metrics) == 2
    for path in metrics:
        assert path.read_bytes() == (tmp_path / "local" / path.relative_to(tmp_path / "runs")).read_bytes()
