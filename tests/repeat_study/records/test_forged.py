"""Run directories that somebody else made or edited give a one-line error or the correct result, and execute no code."""

import json
import os
import pickle
import resource
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from analysis.report.digests import ReportRecord, run_digests
from analysis.runs import load_runs
from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.config.corpora import StudyTexts
from repeat_study.config.run import Parent, Run
from repeat_study.config.study import Study
from repeat_study.probes.checkpoint_probe import load_trained
from repeat_study.records.completion import checksums
from repeat_study.records.outcome import Outcome
from repeat_study.records.recorded_run import final_test_losses, recorded_run
from repeat_study.records.run_directory import RunDirectory, Status
from repeat_study.records.spec_record import spec_record
from repeat_study.training.trainer import train
from slurm.status import run_states


@pytest.fixture(scope="module")
def finished(study: Study, store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    run, folder = study.runs(StudyTexts(store.fingerprint))[1], tmp_path_factory.mktemp("finished")
    assert train(run, store, folder) is Outcome.DONE
    return RunDirectory(folder / run.name)


@pytest.fixture
def forged(finished: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A copy of a finished run that a test can edit."""
    return RunDirectory(Path(shutil.copytree(finished.path, tmp_path / "tiny" / finished.path.name)))


def sign(directory: RunDirectory) -> None:
    """Write the checksums of the forged records to done.json."""
    done = json.loads(directory.done.read_text())
    directory.done.write_text(json.dumps(done | checksums(directory.records)))


def every_reader(directory: RunDirectory, runs: list[Run], data_dir: Path) -> list[Callable[[], Any]]:
    def report() -> None:
        loaded = load_runs(directory.path.parent)
        for table in ("heads", "paragraph"):
            loaded.last_tables(table)  # type: ignore[arg-type]

    def status() -> None:
        list(run_states(runs, directory.path.parent, [], None, 60.0))

    def children() -> None:
        final_test_losses(directory.path.parent, runs)

    return [report, status, children, lambda: load_trained(directory.path, data_dir)]


def refusals(directory: RunDirectory, runs: list[Run], data_dir: Path) -> list[str]:
    """The error messages of all readers. Any error other than InputError fails the test."""
    messages = []
    for read in every_reader(directory, runs, data_dir):
        try:
            read()
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 600
            messages.append(str(error))
    return messages


SPEC_EDITS: list[dict[str, Any]] = [
    {"repeats": 8}, {"repeats": "8"}, {"repeats": None}, {"repeats": 10**30}, {"label": "<script>alert(1)</script>"},
    {"corpus": "<b>"}, {"corpus": "../../etc"}, {"corpus": 3}, {"corpus": ["x"]}, {"model": "9999x99999"}, {"model": "x"},
    {"vocabulary": "many"}, {"vocabulary": -1}, {"vocabulary": 10**30}, {"parameters_total": 1}, {"steps": 1},
    {"format": 2}, {"format": "3"}, {"identity": "0" * 64}, {"identity": None}, {"identity": []}, {"evaluation": 3},
    {"evaluation": {"even_points": 10**9}}, {"further_tests": 3}, {"further_tests": [{"name": "../x", "fingerprint": ""}]},
    {"parent": {"study": "../..", "label": "../x", "identity": "0", "repeats": 1, "repeated_fraction": 0.0, "seed": 0}},
    {"parent": "x"}, {"tokens": 1e99}, {"tokens": -1}, {"learning_rate": "fast"}, {"seed": 1.5},
]  # fmt: skip


@pytest.mark.parametrize("edit", SPEC_EDITS, ids=str)
def test_an_edited_spec_is_refused_by_report_status_and_probe(
    edit: dict[str, Any], forged: RunDirectory, runs: list[Run], data_dir: Path
) -> None:
    forged.spec.write_text(json.dumps(json.loads(forged.spec.read_text()) | edit))
    messages = refusals(forged, runs, data_dir)
    assert len(messages) >= 3 and all("spec.json" in message for message in messages)


def test_a_spec_that_hashes_to_another_directory_is_refused(
    forged: RunDirectory, runs: list[Run], store: TokenStore, data_dir: Path
) -> None:
    """The spec was edited together with its identity, so only the name of the directory reveals the edit."""
    run = Run.model_validate(runs[1].model_dump() | {"evaluation": runs[1].evaluation, "repeats": 8})
    forged.spec.write_text(json.dumps(spec_record(run, store)))
    messages = refusals(forged, runs, data_dir)
    assert len(messages) == 4 and all(
        f"the spec of {run.name} is in a folder with another name" in line for line in messages
    )


@pytest.mark.parametrize("study_name", ["..", "a/b", "/etc", "a\\b", "a\0b"])
def test_names_cannot_leave_their_folder(study_name: str, forged: RunDirectory, store: TokenStore) -> None:
    fields = {"label": "1x16-clean-s0", "identity": "0" * 64, "repeats": 1, "repeated_fraction": 0.0, "seed": 0}
    run = recorded_run(forged).model_copy(update={"parent": Parent(study=study_name, **fields)})  # type: ignore[arg-type]
    folder = RunDirectory(forged.path.with_name(f"x-{run.identity[:8]}"))
    folder.make()
    folder.spec.write_text(json.dumps(spec_record(run, store)))
    with pytest.raises(InputError, match="is not a valid name; expected a file name without /"):
        recorded_run(folder)


def rehashed(directory: RunDirectory, store: TokenStore, **changes: Any) -> RunDirectory:
    """A copy of the run with another field, whose hash and folder name agree with it."""
    run = recorded_run(directory).model_copy(update=changes)
    folder = RunDirectory(Path(shutil.copytree(directory.path, directory.path.with_name(run.name))))
    shutil.rmtree(directory.path)
    folder.spec.write_text(json.dumps(spec_record(run, store)))
    return folder


@pytest.mark.parametrize("corpus", ["", "<b>", "0" * 15, "0" * 17, "A" * 16, "0" * 15 + "\n", "corpus"])
def test_a_corpus_that_is_no_fingerprint_is_refused(
    corpus: str, forged: RunDirectory, runs: list[Run], store: TokenStore, data_dir: Path
) -> None:
    folder = rehashed(forged, store, corpus=corpus)
    messages = refusals(folder, runs, data_dir)
    assert len(messages) >= 2 and all(
        "is not a fingerprint; expected 16 hexadecimal digits" in line for line in messages
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": "99x99968"},
            r"last.ckpt: a trained and an untrained 99x99968 .* need [\d,.]+ GB; this machine has",
        ),
        (
            {"model": "99L-qwen"},
            r"last.ckpt: a trained and an untrained 99L-qwen .* need [\d,.]+ GB; this machine has",
        ),
        (
            {"model": "8L", "context": 2**24, "sequences_per_step": 1, "tokens": 2**30},
            r"with a context of 16777216 need [\d,.]+ GB; this",
        ),
    ],
)
def test_a_model_that_does_not_fit_is_refused_before_it_is_allocated(
    changes: dict[str, Any], message: str, forged: RunDirectory, store: TokenStore, data_dir: Path
) -> None:
    folder = rehashed(forged, store, **changes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=message) as caught:
        load_trained(folder.path, data_dir)
    assert "\n" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kilobytes"


OF_A_RUN = (
    "spec.json", "done.json", "failed.json", "metrics.jsonl", "timing.jsonl", "sessions.jsonl", "heads.parquet",
    "paragraph.parquet", "test_sequences.parquet", "pool_sequences.parquet", "checkpoints/last.ckpt", ".lock", "events.out.tfevents.1",
)  # fmt: skip


def put_folder(path: Path) -> None:
    path.mkdir()


def put_pipe(path: Path) -> None:
    os.mkfifo(path)


def put_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path has 107 bytes at most
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path.name)
    os.chdir(here)


def put_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("put", [put_folder, put_pipe, put_socket, put_device])
@pytest.mark.parametrize("name", OF_A_RUN)
def test_what_is_not_a_file_is_one_line_and_no_reader_waits_for_it(
    name: str, put: Callable[[Path], None], forged: RunDirectory, runs: list[Run], store: TokenStore, data_dir: Path
) -> None:
    """Opening a pipe waits for a writer, and /dev/zero never ends."""
    path = forged.path / name
    path.unlink(missing_ok=True)
    put(path)
    refusals(forged, runs, data_dir)
    run_digests(forged.path.parent)
    with pytest.raises(InputError, match=rf"{name}: not a regular file; move or delete it") as caught:
        train(runs[1], store, forged.path.parent)
    assert "\n" not in str(caught.value)


def test_a_report_does_not_wait_for_a_pipe_among_its_own_files(forged: RunDirectory) -> None:
    folder = forged.path.parent
    (folder / "figures").mkdir()
    os.mkfifo(folder / "figures" / ".digests.json")
    assert ReportRecord.load(folder).inputs == ""


def test_a_store_whose_manifest_is_a_pipe_is_one_line(forged: RunDirectory, store: TokenStore, tmp_path: Path) -> None:
    (tmp_path / "data" / "piped").mkdir(parents=True)
    os.mkfifo(tmp_path / "data" / "piped" / "manifest.json")
    with pytest.raises(InputError, match=r"manifest.json: cannot be read: not a regular file"):
        load_trained(forged.path, tmp_path / "data")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", "[" * 5_000, "\0", "nan", '{"format": 3}'], ids=lambda text: text[:20]
)
@pytest.mark.parametrize("name", ["spec.json", "done.json", "failed.json"])
def test_files_that_are_not_records_give_one_line(
    content: str, name: str, forged: RunDirectory, runs: list[Run], data_dir: Path
) -> None:
    (forged.path / name).write_text(content)
    assert bool(refusals(forged, runs, data_dir)) == (name == "spec.json")
    assert forged.status() is (Status.DONE if name == "failed.json" else Status.INTERRUPTED)


METRICS_EDITS: list[dict[str, Any]] = [
    {"test_loss": "low"}, {"test_loss": None}, {"test_loss": [1]}, {"test_loss": {}}, {"test_loss": float("nan")},
    {"tokens": "many"}, {"tokens": 1.5}, {"tokens": 10**40}, {"step": None}, {"step": 1.5}, {"pool_loss": "<script>"},
    {"copying_loss_per_copy": 3}, {"copying_loss_per_copy": ["x"]}, {"prefix_matching": {"a": 1}}, {"loss_by_position": 1},
    {"unknown": "text"},
]  # fmt: skip


@pytest.mark.parametrize("everywhere", [True, False])
@pytest.mark.parametrize("edit", METRICS_EDITS, ids=str)
def test_forged_metrics_give_one_line(
    edit: dict[str, Any], everywhere: bool, forged: RunDirectory, runs: list[Run], data_dir: Path
) -> None:
    rows = [json.loads(line) for line in forged.metrics.read_text().splitlines()]
    rows = [row | edit if everywhere or row is rows[-1] else row for row in rows]
    forged.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sign(forged)
    assert any("metrics.jsonl" in message or "done.json" in message for message in refusals(forged, runs, data_dir))


TIMING_EDITS: list[dict[str, Any]] = [
    {"train_seconds": "x"}, {"saving_seconds": None}, {"step": "x"}, {"step": -1}, {"train_seconds": -1}, {"time": "x"},
    {"tokens_per_second": -1}, {"tokens_per_second": [1]}, {"utilisation": "high"}, {"memory_bytes": 1e300}, {"seconds_left": {}},
]  # fmt: skip


@pytest.mark.parametrize("edit", TIMING_EDITS, ids=str)
def test_forged_timing_gives_one_line(
    edit: dict[str, Any], forged: RunDirectory, runs: list[Run], data_dir: Path
) -> None:
    rows = [json.loads(line) | edit for line in forged.timing.read_text().splitlines()]
    forged.timing.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sign(forged)
    assert any("timing.jsonl" in message for message in refusals(forged, runs, data_dir))


def without(name: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.drop_columns([name])


def with_text(name: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(table.column_names.index(name), name, pa.array(["x"] * len(table)))


def twice(table: pa.Table) -> pa.Table:
    return table.append_column("step", table["step"])


@pytest.mark.parametrize("change", [without("step"), with_text("step"), with_text("tokens"), twice])
@pytest.mark.parametrize("name", ["heads.parquet", "paragraph.parquet"])
def test_forged_tables_give_one_line(
    name: str, change: Callable[[pa.Table], pa.Table], forged: RunDirectory, runs: list[Run], data_dir: Path
) -> None:
    path = forged.path / name
    parquet.write_table(change(parquet.ParquetFile(path).read()), path)
    sign(forged)
    assert any(name in message for message in refusals(forged, runs, data_dir))


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("file_format", ["torch", "pickle", "weights", "old torch"])
def test_a_malicious_checkpoint_executes_no_code(
    file_format: str, forged: RunDirectory, runs: list[Run], store: TokenStore, data_dir: Path, tmp_path: Path
) -> None:
    proof = tmp_path / "executed"
    content = torch.load(forged.checkpoint, weights_only=True)
    if file_format == "pickle":
        forged.checkpoint.write_bytes(pickle.dumps(Malicious(proof)))
    elif file_format == "weights":
        torch.save(content | {"state_dict": Malicious(proof)}, forged.checkpoint)
    else:
        torch.save(Malicious(proof), forged.checkpoint, _use_new_zipfile_serialization=file_format == "torch")
    forged.done.unlink()
    with pytest.raises(InputError, match=r"last.ckpt: damaged \(.*\)"):
        load_trained(forged.path, data_dir)
    with pytest.raises(InputError, match=r"last.ckpt: damaged \(.*\)"):
        train(runs[1], store, forged.path.parent)
    assert not proof.exists()
