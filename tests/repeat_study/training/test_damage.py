"""Damaged run directories: every flipped bit, altered record and forged file causes a one-line error."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from data_prep.data_spec import DataSpec
from data_prep.errors import InputError
from data_prep.prepare import prepare
from data_prep.token_store import TokenStore
from repeat_study.checkpoints.checksum import COMMENT_BYTES, LABEL, check_checksum, seal
from repeat_study.checkpoints.files import read_weights
from repeat_study.config.corpora import FurtherTest, StudyTexts
from repeat_study.config.resources import Resources
from repeat_study.config.run import Run
from repeat_study.config.study import EvaluateSpec
from repeat_study.probes.checkpoint_probe import load_trained
from repeat_study.records.completion import AlteredRecord, checksums
from repeat_study.records.json_lines import read_rows, write_rows
from repeat_study.records.outcome import Outcome, Progress
from repeat_study.records.recorded_run import final_test_losses
from repeat_study.records.run_directory import RunDirectory, Status
from repeat_study.records.tables import read_table, write_table
from repeat_study.training.store_watch import AlteredStore
from repeat_study.training.trainer import train, train_bundle


def interrupted(run: Run, store: TokenStore, folder: Path, after: int = 39) -> RunDirectory:
    steps_left = iter(range(after))
    resources = Resources(keep_checkpoints="all")
    stopped = train(run, store, folder, should_stop=lambda: next(steps_left, None) is None, resources=resources)
    assert stopped is Outcome.INTERRUPTED
    return RunDirectory(folder / run.name)


@pytest.fixture(scope="module")
def stopped(study, store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:  # type: ignore[no-untyped-def]
    """A run that was stopped halfway, with the weights of all evaluations kept."""
    return interrupted(study.runs(StudyTexts(store.fingerprint))[1], store, tmp_path_factory.mktemp("stopped"))


@pytest.fixture
def damaged(stopped: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A copy of the stopped run, to be damaged."""
    return RunDirectory(Path(shutil.copytree(stopped.path, tmp_path / stopped.path.name)))


def flip_bit(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << (position % 8)
    path.write_bytes(content)


def test_a_flipped_bit_anywhere_in_a_checkpoint_is_detected(
    damaged: RunDirectory, runs: list[Run], store: TokenStore
) -> None:
    intact = damaged.checkpoint.read_bytes()
    positions = [*random.Random(0).sample(range(len(intact)), 60), 0, len(intact) - 1, len(intact) - COMMENT_BYTES - 1]
    for position in positions:
        damaged.checkpoint.write_bytes(intact)
        flip_bit(damaged.checkpoint, position)
        with pytest.raises(InputError, match=r"last.ckpt: damaged \(.*\)") as caught:
            read_weights(damaged.checkpoint, runs[1])
        assert "\n" not in str(caught.value)


def test_a_damaged_checkpoint_cannot_be_resumed_or_probed(
    damaged: RunDirectory, runs: list[Run], store: TokenStore, data_dir: Path
) -> None:
    flip_bit(damaged.checkpoint, damaged.checkpoint.stat().st_size // 2)
    rows = damaged.metrics.read_bytes()
    message = r"last.ckpt: damaged \(it does not match its checksum\)"
    with pytest.raises(InputError, match=f"{message}; delete it to train the run from the beginning"):
        train(runs[1], store, damaged.path.parent)
    assert damaged.metrics.read_bytes() == rows, "the records are unchanged"
    with pytest.raises(InputError, match=message):
        load_trained(damaged.path, data_dir)
    kept = damaged.weights_at(8)
    flip_bit(kept, kept.stat().st_size // 2)
    with pytest.raises(InputError, match=r"step-000000008.pt: damaged \(it does not match its checksum\)"):
        load_trained(damaged.path, data_dir, 8)


def test_checkpoints_without_a_checksum_are_accepted_and_their_records_checked(
    damaged: RunDirectory, runs: list[Run], store: TokenStore
) -> None:
    """Earlier versions wrote only torch's zip file, and torch does not check its CRC-32."""
    sealed = damaged.checkpoint.read_bytes()
    assert sealed[-COMMENT_BYTES:].startswith(LABEL)
    torch.save(torch.load(damaged.checkpoint, weights_only=True), damaged.checkpoint)
    assert LABEL not in damaged.checkpoint.read_bytes()
    without = damaged.checkpoint.read_bytes()
    weight = torch.load(damaged.checkpoint, weights_only=True)["state_dict"]["model.embedding"]
    flip_bit(damaged.checkpoint, without.index(weight.numpy().tobytes()))
    with pytest.raises(InputError, match=r"damaged \(its record .*data/\d+ does not match its checksum\)"):
        train(runs[1], store, damaged.path.parent)
    damaged.checkpoint.write_bytes(without)
    assert train(runs[1], store, damaged.path.parent) is Outcome.DONE
    check_checksum(damaged.checkpoint)
    assert damaged.checkpoint.read_bytes()[-COMMENT_BYTES:].startswith(LABEL), "the next checkpoint has a checksum"


def test_a_damaged_checkpoint_stops_only_its_own_lane(runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    bundle = [run for run in runs if run.model == "1x16"]
    steps_left = iter(range(20))
    train_bundle(bundle, store, tmp_path, should_stop=lambda: next(steps_left, None) is None)
    checkpoint = RunDirectory(tmp_path / bundle[0].name).checkpoint
    flip_bit(checkpoint, checkpoint.stat().st_size // 2)
    endings = train_bundle(bundle, store, tmp_path)
    assert "does not match its checksum" in str(endings[bundle[0].name])
    assert [endings[run.name] for run in bundle[1:]] == [Outcome.DONE] * 2


@pytest.fixture(scope="module")
def finished(study, store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("finished")
    run = study.runs(StudyTexts(store.fingerprint))[1]
    assert train(run, store, folder) is Outcome.DONE
    return RunDirectory(folder / run.name)


@pytest.fixture
def done(finished: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A copy of a finished run, to be damaged."""
    return RunDirectory(Path(shutil.copytree(finished.path, tmp_path / finished.path.name)))


def rewrite(path: Path, change: Callable[[dict], object]) -> None:  # type: ignore[type-arg]
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[]", "null", "{", '{"test_loss": 1.0}', '{"sha256": {}, "steps": 64}', "[" * 100_000, "\0",
     '{"steps": 64, "tokens": 1, "test_loss": 1, "sha256": 3}'],
)  # fmt: skip
def test_an_empty_or_made_up_done_json_is_not_done(
    content: str, damaged: RunDirectory, runs: list[Run], store: TokenStore, finished: RunDirectory
) -> None:
    damaged.done.write_text(content)
    folder = damaged.path.parent
    assert damaged.status() is Status.INTERRUPTED and not final_test_losses(folder, runs)
    assert train(runs[1], store, folder) is Outcome.DONE, "the run is trained to its end"
    assert damaged.status() is Status.DONE
    assert damaged.metrics.read_bytes() == finished.metrics.read_bytes()


RECORD_FILES = [
    "metrics.jsonl",
    "timing.jsonl",
    "heads.parquet",
    "paragraph.parquet",
    "test_sequences.parquet",
    "pool_sequences.parquet",
]


@pytest.mark.parametrize("name", RECORD_FILES)
@pytest.mark.parametrize("removed", [True, False])
def test_a_done_run_whose_records_changed_is_not_done(
    name: str, removed: bool, done: RunDirectory, runs: list[Run], store: TokenStore
) -> None:
    path, folder = done.path / name, done.path.parent
    assert done.status() is Status.DONE and final_test_losses(folder, runs)
    if removed:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-3] + b"7}\n")
    assert done.status() is Status.FAILED and not final_test_losses(folder, runs)
    message = rf"{name}: altered after the run finished; delete the run's folder to train it again"
    assert message in done.failure()
    with pytest.raises(InputError, match=message):
        train(runs[1], store, folder)


def test_an_edited_done_json_is_not_done(done: RunDirectory, runs: list[Run]) -> None:
    rewrite(done.done, lambda record: record.update(test_loss=0.1))
    assert done.status() is Status.FAILED and "done.json: altered" in done.failure()
    assert not final_test_losses(done.path.parent, runs)


def test_a_done_run_of_an_earlier_version_or_a_copied_one_is_done(done: RunDirectory) -> None:
    """If stamps are missing or no longer match, the checksums are compared."""
    for path in (done.metrics, done.heads):
        os.utime(path, ns=(1, 1))
    assert done.status() is Status.DONE
    rewrite(done.done, lambda record: record.pop("stamps"))
    assert done.status() is Status.DONE
    done.heads.write_bytes(done.heads.read_bytes()[:-1])
    assert done.status() is Status.FAILED


def test_the_state_of_a_done_run_is_read_without_its_records(
    done: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(done.done, lambda record: record.update(checksums(done.records)))
    monkeypatch.setattr("repeat_study.records.completion.sha256_file", lambda path: pytest.fail(f"read {path}"))
    assert done.status() is Status.DONE


def alter_at(step: int, alter: Callable[[], object]) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.step == step:
            alter()

    return report


@pytest.mark.parametrize("name", RECORD_FILES)
@pytest.mark.parametrize("step", [32, 64])
def test_a_record_that_changes_while_the_run_trains_fails_it(
    name: str, step: int, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    run, directory = runs[1], RunDirectory(tmp_path / runs[1].name)
    path = directory.path / name
    with pytest.raises(AlteredRecord, match=rf"{name}: removed while the run was training"):
        train(run, store, tmp_path, alter_at(step, path.unlink))
    assert directory.status() is Status.FAILED and f"{name}: removed while" in directory.failure()
    assert "AlteredRecord" not in directory.failure() and not directory.done.exists()
    problem = r"(evaluations up to the checkpoint at step \d+ are missing|removed after the run wrote it)"
    with pytest.raises(InputError, match=rf"{name}: {problem}.*delete"):
        train(run, store, tmp_path)


def edit_number(path: Path, column: str, step: int) -> None:
    """Halve a number that the run recorded at its evaluation after `step` steps."""
    if path.suffix == ".jsonl":
        rows = read_rows(path)
        write_rows(path, [row | {column: row[column] / 2} if row["step"] == step else row for row in rows])
    else:
        frame = read_table(path).to_pandas()  # type: ignore[union-attr]
        frame.loc[frame.step == step, column] /= 2
        write_table(path, pa.Table.from_pandas(frame, read_table(path).schema))  # type: ignore[union-attr]


RECORDS = [
    ("metrics.jsonl", "test_loss"),
    ("timing.jsonl", "train_seconds"),
    ("heads.parquet", "prefix_matching"),
    ("paragraph.parquet", "loss"),
    ("test_sequences.parquet", "loss"),
    ("pool_sequences.parquet", "loss"),
]


@pytest.mark.parametrize("step", [0, 32])
@pytest.mark.parametrize(("name", "column"), RECORDS)
def test_a_record_that_was_edited_while_its_run_was_stopped_is_refused(
    name: str, column: str, step: int, damaged: RunDirectory, runs: list[Run], store: TokenStore
) -> None:
    path = damaged.path / name
    original = path.read_bytes()
    edit_number(path, column, step)
    before = {record: record.read_bytes() for record in damaged.records}
    with pytest.raises(InputError, match=rf"{name}: altered after the run wrote it; restore the file") as caught:
        train(runs[1], store, damaged.path.parent)
    assert "\n" not in str(caught.value)
    assert before == {record: record.read_bytes() for record in damaged.records}, "nothing is changed"
    path.write_bytes(original)
    assert train(runs[1], store, damaged.path.parent) is Outcome.DONE


@pytest.mark.parametrize(("name", "column"), RECORDS)
def test_a_failed_run_whose_record_was_edited_is_refused(
    name: str, column: str, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    """At the evaluation that its checkpoint belongs to, and while it trained: the next `run` does not accept it either."""
    run, directory = runs[1], RunDirectory(tmp_path / runs[1].name)
    path = directory.path / name
    with pytest.raises(AlteredRecord, match=f"{name}: altered by another process while the run was training"):
        train(run, store, tmp_path, alter_at(32, lambda: edit_number(path, column, 32)))
    assert directory.status() is Status.FAILED
    with pytest.raises(InputError, match=rf"{name}: altered after the run wrote it"):
        train(run, store, tmp_path)
    directory.checkpoint.unlink()
    assert train(run, store, tmp_path) is Outcome.DONE, "from its start"


def test_an_edit_between_an_evaluation_and_a_stop_is_noticed_at_the_resume(
    runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    run, path = runs[1], tmp_path / runs[1].name / "metrics.jsonl"
    steps_left = iter(range(35))

    def stop() -> bool:
        if (step := next(steps_left, None)) == 34:
            edit_number(path, "test_loss", 32)
        return step is None

    assert train(run, store, tmp_path, should_stop=stop) is Outcome.INTERRUPTED
    with pytest.raises(InputError, match=r"metrics.jsonl: altered after the run wrote it"):
        train(run, store, tmp_path)


def test_an_edited_record_of_a_stopped_run_ends_its_own_lane_only(
    runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    bundle = [run for run in runs if run.model == "1x16"]
    steps_left = iter(range(20))
    train_bundle(bundle, store, tmp_path, should_stop=lambda: next(steps_left, None) is None)
    edit_number(tmp_path / bundle[2].name / "heads.parquet", "prefix_matching", 8)
    endings = train_bundle(bundle, store, tmp_path)
    assert [endings[run.name] for run in bundle[:2]] == [Outcome.DONE] * 2
    assert "heads.parquet: altered after the run wrote it" in str(endings[bundle[2].name])


def test_records_that_other_programs_wrote_again_unchanged_are_right(
    damaged: RunDirectory, runs: list[Run], store: TokenStore, finished: RunDirectory
) -> None:
    """The numbers count and not the bytes, which depend on the version of pyarrow."""
    for path in damaged.tables:
        parquet.write_table(parquet.ParquetFile(path).read(), path, compression="zstd", row_group_size=7)
    rows = damaged.metrics.read_text().splitlines()
    damaged.metrics.write_text("".join(line.replace(": ", ":") + "\n" for line in rows))
    assert train(runs[1], store, damaged.path.parent) is Outcome.DONE
    assert damaged.metrics.read_bytes() == finished.metrics.read_bytes()


def test_a_checkpoint_of_an_earlier_version_lists_no_records(
    damaged: RunDirectory, runs: list[Run], store: TokenStore
) -> None:
    content = torch.load(damaged.checkpoint, weights_only=True)
    assert set(content.pop("records")) == {name for name, _ in RECORDS}
    torch.save(content, damaged.checkpoint)
    seal(damaged.checkpoint)
    assert train(runs[1], store, damaged.path.parent) is Outcome.DONE


def test_an_altered_record_fails_only_its_own_lane(runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    bundle = [run for run in runs if run.model == "1x16"]
    path = RunDirectory(tmp_path / bundle[1].name).metrics

    def alter(progress: Progress) -> None:
        if progress.step == 32 and progress.run == bundle[1].name:
            path.write_bytes(path.read_bytes().replace(b"1", b"2"))

    endings = train_bundle(bundle, store, tmp_path, alter)
    assert [endings[run.name] for run in (bundle[0], bundle[2])] == [Outcome.DONE] * 2
    assert "metrics.jsonl: altered by another process while the run was training" in str(endings[bundle[1].name])
    assert RunDirectory(tmp_path / bundle[1].name).status() is Status.FAILED


def test_a_record_with_only_a_new_modification_time_is_accepted(
    runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    directory = RunDirectory(tmp_path / runs[0].name)
    assert train(runs[0], store, tmp_path, alter_at(32, lambda: os.utime(directory.heads))) is Outcome.DONE


@pytest.fixture
def own_store(store: TokenStore, tmp_path: Path) -> TokenStore:
    return TokenStore(Path(shutil.copytree(store.folder, tmp_path / "store")))


def alter_tokens(store: TokenStore) -> None:
    with (store.folder / "train.tokens").open("r+b") as file:
        file.write(b"\1\0" * 50)


def test_a_store_altered_while_runs_train_fails_them_before_anything_is_written(
    own_store: TokenStore, runs: list[Run], store: TokenStore, tmp_path: Path, finished: RunDirectory
) -> None:
    run, folder = runs[1], tmp_path / "runs"
    directory = RunDirectory(folder / run.name)
    with pytest.raises(AlteredStore, match=r"train.tokens: altered while runs trained on it; delete the store's"):
        train(run, own_store, folder, alter_at(32, lambda: alter_tokens(own_store)))
    assert directory.rows()[-1]["step"] == 32 and "train.tokens: altered" in directory.failure()
    with pytest.raises(InputError, match=r"train.tokens: does not match its checksum in the manifest"):
        train(run, TokenStore(own_store.folder), folder)
    assert train(run, store, folder) is Outcome.DONE
    assert directory.metrics.read_bytes() == finished.metrics.read_bytes()


def test_the_store_of_a_further_test_set_that_is_altered_while_runs_train_fails_them(
    store: TokenStore, data_spec: DataSpec, runs: list[Run], tmp_path: Path
) -> None:
    data_dir, folder = tmp_path / "data", tmp_path / "runs"
    own_store = TokenStore(Path(shutil.copytree(store.folder, data_dir / store.folder.name)))
    source = {"kind": "files", "paths": [str(Path(os.__file__).parent / "wsgiref")]}
    tested = prepare(EvaluateSpec.model_validate({"name": "other", "source": source}).data(data_spec), data_dir)
    further_tests = (FurtherTest(name="other", fingerprint=tested.fingerprint),)
    run = runs[1].model_copy(update={"further_tests": further_tests})
    altered = tested.folder / "test.tokens"
    intact = altered.read_bytes()
    with pytest.raises(AlteredStore, match=r"test.tokens: altered while runs were evaluated on it; delete the store's"):
        train(run, own_store, folder, alter_at(32, lambda: altered.write_bytes(intact[::-1])))
    directory = RunDirectory(folder / run.name)
    assert directory.rows()[-1]["step"] == 32 and "test.tokens: altered" in directory.failure()
    with pytest.raises(InputError, match=r"test.tokens: does not match its checksum in the manifest"):
        train(run, own_store, folder)
    altered.write_bytes(intact)
    assert train(run, own_store, folder) is Outcome.DONE
    assert "test_loss_other" in directory.rows()[-1]


def test_a_store_with_only_a_new_modification_time_is_accepted(
    own_store: TokenStore, runs: list[Run], tmp_path: Path
) -> None:
    tokens = own_store.folder / "train.tokens"
    assert train(runs[0], own_store, tmp_path / "runs", alter_at(32, lambda: os.utime(tokens))) is Outcome.DONE


@pytest.mark.parametrize("left", [0, 40_000, 150_000])
def test_a_full_disk_is_reported_and_the_run_can_resume(
    left: int, runs: list[Run], store: TokenStore, small_disk: Path, finished: RunDirectory
) -> None:
    """The disk becomes full at the next table, in the middle of a checkpoint, or in a later checkpoint."""
    run, directory = runs[1], RunDirectory(small_disk / runs[1].name)
    filler = small_disk / "filler"

    def fill(progress: Progress) -> None:
        if progress.step == 32:
            filler.write_bytes(bytes(max(shutil.disk_usage(small_disk).free - left, 0)))

    with pytest.raises(InputError, match=r"(parquet|jsonl|last.ckpt): cannot be written: No space left on device"):
        train(run, store, small_disk, fill)
    assert not list(directory.path.rglob("*.tmp")), "no temporary file remains"
    filler.unlink()
    assert train(run, store, small_disk) is Outcome.DONE
    assert directory.metrics.read_bytes() == finished.metrics.read_bytes()


@pytest.mark.parametrize(
    "name",
    ["spec.json", "done.json", "failed.json", "metrics.jsonl", "timing.jsonl", "sessions.jsonl", "heads.parquet",
     "checkpoints/last.ckpt", "checkpoints/last.tmp", "checkpoints/step-000000008.pt", "events.out.tfevents.1"],
)  # fmt: skip
def test_a_folder_in_place_of_a_file_is_reported(
    name: str, damaged: RunDirectory, runs: list[Run], store: TokenStore
) -> None:
    path = damaged.path / name
    path.unlink(missing_ok=True)
    path.mkdir()
    with pytest.raises(InputError, match=rf"{name}: not a regular file; move or delete it"):
        train(runs[1], store, damaged.path.parent)
    path.rmdir()


@pytest.mark.parametrize("name", ["spec.json", "metrics.jsonl", "timing.jsonl"])
def test_json_nested_a_hundred_thousand_deep_causes_a_one_line_error(
    name: str, damaged: RunDirectory, runs: list[Run], store: TokenStore
) -> None:
    (damaged.path / name).write_text("[" * 100_000 + "]" * 100_000 + "\n")
    with pytest.raises(InputError, match=rf"{name}: (not valid JSON|malformed line)"):
        train(runs[1], store, damaged.path.parent)
