"""Training in run directories, with interruptions, kills, resumes, divergence and unusable input."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import threading
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyarrow import parquet
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from data_prep.errors import InputError
from data_prep.files import exclusive_lock
from data_prep.token_store import TokenStore
from repeat_study.config.corpora import StudyTexts
from repeat_study.config.resources import Keep, Resources
from repeat_study.config.run import Run
from repeat_study.local import workers
from repeat_study.local.scheduler import Event, LocalScheduler
from repeat_study.model.decoder import Decoder
from repeat_study.probes.evaluation import evaluator
from repeat_study.records.digests import record_digests
from repeat_study.records.outcome import Outcome, Progress
from repeat_study.records.run_directory import RunDirectory, Status
from repeat_study.records.tables import read_table, up_to, write_table
from repeat_study.training.divergence import Diverged
from repeat_study.training.lightning_module import LanguageModeling
from repeat_study.training.trainer import train


def same_value(actual: Any, expected: Any) -> bool:
    if isinstance(actual, torch.Tensor):
        return torch.equal(actual, expected)
    if isinstance(actual, dict):
        return actual.keys() == expected.keys() and all(same_value(actual[key], expected[key]) for key in actual)
    if isinstance(actual, list | tuple):
        return len(actual) == len(expected) and all(map(same_value, actual, expected))
    return bool(actual == expected)


def assert_same_result(actual_run: Path, expected_run: Path) -> None:
    """Assert that metrics, tables, weights, optimizer state and TensorBoard points of two runs are identical."""
    assert (actual_run / "metrics.jsonl").read_bytes() == (expected_run / "metrics.jsonl").read_bytes()
    for table in ("heads.parquet", "paragraph.parquet", "test_sequences.parquet", "pool_sequences.parquet"):
        actual, expected = parquet.read_table(actual_run / table), parquet.read_table(expected_run / table)
        assert actual.num_rows and actual.equals(expected), table
    states = [torch.load(path / "checkpoints/last.ckpt", weights_only=True) for path in (actual_run, expected_run)]
    for key in ("state_dict", "optimizer_states", "global_step"):
        assert same_value(states[0][key], states[1][key]), key
    assert tensorboard_points(actual_run) == tensorboard_points(expected_run)


def tensorboard_points(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run), size_guidance={"tensors": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["tensors"] if not tag.startswith(("machine/", "heads/", "_hparams_/"))]
    return {
        tag: [(event.step, float(make_ndarray(event.tensor_proto))) for event in events.Tensors(tag)] for tag in tags
    }


@pytest.fixture(scope="module")
def undisturbed(study: Any, store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    for run in study.runs(StudyTexts(store.fingerprint)):
        assert train(run, store, folder) is Outcome.DONE
    return folder


@pytest.mark.slow
def test_a_finished_run_has_complete_records(undisturbed: Path, runs: list[Run]) -> None:
    for run in runs:
        directory = RunDirectory(undisturbed / run.name)
        rows = directory.rows()
        assert directory.status() is Status.DONE
        assert [row["step"] for row in rows] == run.evaluation.steps(run.steps)
        assert [row["tokens"] for row in rows] == [row["step"] * 8 * 32 for row in rows]
        spec = json.loads(directory.spec.read_text())
        assert (spec["repeats"], spec["seed"], spec["model"]) == (run.repeats, run.seed, run.model)
        assert spec["pool_tokens"] * run.repeats + spec["unique_tokens"] == spec["trained_tokens"]
        assert rows[0]["seen_unique_loss"] is None and rows[-1]["seen_unique_loss"] is not None
        assert rows[-1]["test_loss"] < rows[0]["test_loss"] - 0.5, "the model learns"
        points = tensorboard_points(directory.path)
        assert [step for step, _ in points["loss/test"]] == [row["tokens"] for row in rows]
        assert [loss for _, loss in points["loss/test"]] == pytest.approx([row["test_loss"] for row in rows])
        assert len([tag for tag in points if tag.startswith("loss_by_copy/")]) == 4
        layers, heads = run.shape.layers, run.shape.heads
        table = read_table(directory.heads).to_pylist()
        places = [(row["step"], row["layer"], row["head"]) for row in table]
        steps = [row["step"] for row in rows]
        assert places == [(step, layer, head) for step in steps for layer in range(layers) for head in range(heads)]
        best = {step: max(row["prefix_matching"] for row in table if row["step"] == step) for step in steps}
        assert best == {row["step"]: row["prefix_matching"] for row in rows}
        assert read_table(directory.paragraph).num_rows == len(steps) * 4 * 8
        sequences = read_table(directory.test_sequences).to_pylist()
        for row in rows:
            losses = [entry["loss"] for entry in sequences if entry["step"] == row["step"]]
            assert len(losses) == run.evaluation.test_sequences
            assert np.mean(losses) == pytest.approx(row["test_loss"], rel=1e-12)
        pool = read_table(directory.pool_sequences)
        for row in rows:
            losses = [entry["loss"] for entry in pool.to_pylist() if entry["step"] == row["step"]]
            assert len(losses) == min(run.evaluation.pool_sequences, run.pool or run.evaluation.pool_sequences)
            assert np.mean(losses) == pytest.approx(row["pool_loss"], rel=1e-12)


def test_repetition_lowers_the_pool_loss_below_that_of_the_clean_run(undisturbed: Path, runs: list[Run]) -> None:
    def final(run: Run) -> float:
        return float(RunDirectory(undisturbed / run.name).rows()[-1]["pool_loss"])

    clean, _, most_repeated = (run for run in runs if run.model == "2x16")
    assert final(most_repeated) < final(clean) - 0.1


def test_a_run_stopped_at_random_steps_has_the_results_of_an_undisturbed_run(
    undisturbed: Path, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    run, dice = runs[-1], random.Random(0)
    outcomes = []
    while Outcome.DONE not in outcomes:
        steps_left = iter(range(dice.randint(1, 20)))
        outcomes.append(train(run, store, tmp_path, should_stop=lambda left=steps_left: next(left, None) is None))
    assert outcomes.count(Outcome.INTERRUPTED) >= 3
    assert_same_result(undisturbed / run.name, tmp_path / run.name)


def _train_in_child(run: Run, store_dir: Path, folder: Path, kill_after: float | None) -> None:
    """kill_after: seconds between an evaluation and this process's SIGKILL, which comes before the run ends in any case. None: no kill."""

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def listen(progress: Progress) -> None:
        if kill_after is not None and not progress.resumed and progress.step > 0:
            if progress.step == run.steps:
                kill()
            threading.Timer(kill_after, kill).start()

    torch.set_num_threads(1)
    train(run, TokenStore(store_dir), folder, listen)


@pytest.mark.slow
@pytest.mark.usefixtures("preloaded_workers")  # otherwise every process imports torch
def test_a_run_killed_at_random_moments_has_the_results_of_an_undisturbed_run(
    undisturbed: Path, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    run, dice = runs[1], random.Random(1)
    directory = RunDirectory(tmp_path / run.name)
    for kill_after in [*(dice.random() * 0.05 for _ in range(4)), None]:
        child = workers.PROCESSES.Process(target=_train_in_child, args=(run, store.folder, tmp_path, kill_after))
        child.start()
        child.join()
        assert child.exitcode == (0 if kill_after is None else -signal.SIGKILL)
    assert_same_result(undisturbed / run.name, directory.path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("preloaded_workers")
def test_twenty_kills_at_random_moments_do_not_change_the_results(
    runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    """One run is usually long enough for all kills. On a busy machine, it may end earlier; then another run continues."""
    evaluation = runs[1].evaluation.model_copy(update={"even_points": 60})
    longer = runs[1].model_copy(update={"tokens": 6 * runs[1].tokens, "evaluation": evaluation})
    dice, kills = random.Random(2), list[signal.Signals]()
    pids = set[int | None]()

    def kill(pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, kills[-1])

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.step > 0 and not event.resumed and len(kills) < 20:
            # There is no worker if its process ended after sending the event.
            for worker in multiprocessing.active_children():
                if worker.pid not in pids:
                    pids.add(worker.pid)
                    kills.append(dice.choice([signal.SIGKILL, signal.SIGTERM]))
                    threading.Timer(dice.random() * 0.1, kill, [worker.pid]).start()

    for seed in range(20):
        before, run = len(kills), longer.model_copy(update={"seed": seed})
        assert LocalScheduler(store, tmp_path / "killed", 1, listen).train([run])[run.name].outcome is Outcome.DONE
        sessions = RunDirectory(tmp_path / "killed" / run.name).session_rows()
        assert len(sessions) >= len(kills) - before - 1, (
            "every kill starts another session, except one after the run's end"
        )
        assert train(run, store, tmp_path / "undisturbed") is Outcome.DONE
        assert_same_result(tmp_path / "undisturbed" / run.name, tmp_path / "killed" / run.name)
        if len(kills) == 20:
            break
    assert len(kills) == 20 and len(set(kills)) == 2


def test_sigterm_saves_the_current_step(runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    def listen(progress: Progress) -> None:
        if progress.step == 16:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    assert train(runs[0], store, tmp_path, listen) is Outcome.INTERRUPTED
    assert signal.getsignal(signal.SIGTERM) == before
    step = torch.load(RunDirectory(tmp_path / runs[0].name).checkpoint, weights_only=True)["global_step"]
    assert step in (16, 17)


def test_a_run_recovers_from_a_crash_between_two_writes(
    undisturbed: Path, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    run = runs[0]
    steps_left = iter(range(20))
    train(run, store, tmp_path, should_stop=lambda: next(steps_left, None) is None)
    directory = RunDirectory(tmp_path / run.name)
    # Imitate a process that wrote the metrics of a later step and then died in the middle of the next line.
    with directory.metrics.open("a") as file:
        file.write(json.dumps(directory.rows()[-1] | {"step": 60}) + '\n{"step": 61, "tok')
    assert train(run, store, tmp_path) is Outcome.DONE
    assert_same_result(undisturbed / run.name, directory.path)


def test_a_finished_run_is_not_trained_again(undisturbed: Path, runs: list[Run], store: TokenStore) -> None:
    before = {path: path.stat().st_mtime_ns for path in (undisturbed / runs[0].name).rglob("*") if path.is_file()}
    assert train(runs[0], store, undisturbed) is Outcome.ALREADY_DONE
    before.pop(undisturbed / runs[0].name / ".lock")
    assert all(path.stat().st_mtime_ns == at for path, at in before.items())


def test_a_run_is_never_trained_by_two_processes_at_once(runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    with exclusive_lock(RunDirectory(tmp_path / runs[0].name).lock):
        assert RunDirectory(tmp_path / runs[0].name).status() is Status.RUNNING
        assert train(runs[0], store, tmp_path) is Outcome.BUSY
    assert not RunDirectory(tmp_path / runs[0].name).spec.exists()


def test_a_directory_made_by_another_spec_is_refused_and_left_alone(
    runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    directory = RunDirectory(tmp_path / runs[0].name)
    train(runs[0], store, tmp_path, should_stop=lambda: True)
    spec = json.loads(directory.spec.read_text())
    directory.spec.write_text(json.dumps(spec | {"learning_rate": 0.5}))
    before = {path: path.read_bytes() for path in directory.path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"contains another spec \(learning_rate: found 0.5, expected 0.003\)"):
        train(runs[0], store, tmp_path)
    assert {path: path.read_bytes() for path in directory.path.rglob("*") if path.is_file()} == before
    directory.spec.unlink()
    with pytest.raises(InputError, match=r"has results but no spec.json"):
        train(runs[0], store, tmp_path)


def test_a_failure_is_recorded_and_cleared_by_the_next_attempt(
    runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    run, directory = runs[0], RunDirectory(tmp_path / runs[0].name)

    def fail(progress: Progress) -> None:
        if progress.step >= 16:
            raise RuntimeError("report failed")

    with pytest.raises(RuntimeError, match="report failed"):
        train(run, store, tmp_path, report=fail)
    assert directory.status() is Status.FAILED
    assert directory.failure() == "RuntimeError: report failed (step 16)"
    assert train(run, store, tmp_path) is Outcome.DONE
    assert directory.status() is Status.DONE and not directory.failed.exists()


def test_a_loss_of_nan_stops_the_run(runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    run = runs[0].model_copy(update={"learning_rate": 1e30, "gradient_clip": 1e30})
    with pytest.raises(Diverged, match="test_loss is nan"):
        train(run, store, tmp_path)
    directory = RunDirectory(tmp_path / run.name)
    assert directory.status() is Status.FAILED
    assert all(row["train_loss"] is None or row["train_loss"] == row["train_loss"] for row in directory.rows())


def test_a_run_that_diverges_keeps_its_last_good_checkpoint(
    undisturbed: Path, runs: list[Run], store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, directory = runs[0], RunDirectory(tmp_path / runs[0].name)
    intact = LanguageModeling.learning_rate
    with monkeypatch.context() as patched:
        patched.setattr(
            LanguageModeling,
            "learning_rate",
            lambda self, step, lane=0: 1e4 if step == 20 else intact(self, step, lane),
        )
        with pytest.raises(
            Diverged, match=r"training loss (nan|inf|[\d.e+]+) nats, gradient norm .*; expected a loss up to 11.54"
        ):
            train(run, store, tmp_path)
    assert directory.failure().endswith("(step 22)"), "step 21 ruins the weights and step 22 notices it, counted from 1"
    assert torch.load(directory.checkpoint, weights_only=True)["global_step"] == 16
    assert train(run, store, tmp_path) is Outcome.DONE
    assert_same_result(undisturbed / run.name, directory.path)


def test_ruined_weights_are_never_saved(runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    run = runs[0].model_copy(update={"learning_rate": 3.0, "warmup_fraction": 0.0})
    with pytest.raises(Diverged, match=r"test loss [\d.]+ and pool loss [\d.]+ nats; expected up to 11.54"):
        train(run, store, tmp_path)
    directory = RunDirectory(tmp_path / run.name)
    assert not directory.checkpoint.exists() and all(row["test_loss"] < 11.5 for row in directory.rows())


def test_a_run_keeps_the_precision_it_started_with(runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    directory = interrupted(runs[0], store, tmp_path)
    with pytest.raises(
        InputError, match=r"started in float32 and would continue in bfloat16; set resources\.precision="
    ):
        train(runs[0], store, tmp_path, resources=Resources(precision="bfloat16"))
    assert directory.status() is Status.INTERRUPTED, "the run is not marked as failed"
    assert train(runs[0], store, tmp_path) is Outcome.DONE


@pytest.mark.parametrize("keep", ["last", "log", "all"])
def test_weights_are_kept_at_the_requested_evaluations(
    keep: Keep, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    run, directory = runs[1], RunDirectory(tmp_path / runs[1].name)
    assert train(run, store, tmp_path, resources=Resources(keep_checkpoints=keep)) is Outcome.DONE
    steps = {"last": [], "log": run.evaluation.log_steps(run.steps), "all": run.evaluation.steps(run.steps)[1:]}
    kept = [directory.weights_at(step) for step in steps[keep]]
    assert sorted(directory.checkpoint.parent.iterdir()) == sorted([directory.checkpoint, *kept])
    losses = {row["step"]: row["test_loss"] for row in directory.rows()}
    evaluate = evaluator(run, store)
    model = Decoder(run.shape, store.vocabulary, run.context, [0])
    for path, step in zip(kept, steps[keep], strict=True):
        saved = torch.load(path, weights_only=True)
        model.load_state_dict(saved["model"])
        assert (saved["step"], saved["run"]) == (step, run.identity) and evaluate(model, step).row[
            "test_loss"
        ] == losses[step]


def test_a_run_records_its_machine_its_time_and_its_memory(undisturbed: Path, runs: list[Run]) -> None:
    directory = RunDirectory(undisturbed / runs[0].name)
    (session,) = map(json.loads, (directory.path / "sessions.jsonl").read_text().splitlines())
    assert (session["step"], session["precision"], session["processes"]) == (0, "float32", 1)
    done, last = json.loads(directory.done.read_text()), directory.timings()[-1]
    seconds = [last[f"{account}_seconds"] for account in ("train", "evaluation", "saving")]
    assert min(seconds) > 0 and done["evaluation_share"] == pytest.approx(seconds[1] / sum(seconds))
    assert 0 < last["utilisation"] < 1 and last["memory_bytes"] > 1e8 and last["seconds_left"] == 0


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_damaged_checkpoint_is_reported_and_no_file_is_changed(
    content: bytes | None, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    run, directory = runs[0], interrupted(runs[0], store, tmp_path)
    intact = directory.checkpoint.read_bytes()
    directory.checkpoint.write_bytes(intact[: len(intact) // 2] if content is None else content)
    rows = directory.metrics.read_bytes()
    with pytest.raises(InputError, match=r"last.ckpt: damaged \(.*\); delete it to train the run from the beginning"):
        train(run, store, tmp_path)
    assert directory.metrics.read_bytes() == rows
    directory.checkpoint.unlink()
    assert train(run, store, tmp_path) is Outcome.DONE


@pytest.mark.parametrize("which", ["metrics.jsonl", "timing.jsonl"])
@pytest.mark.parametrize("kept", [0, 2])
def test_missing_evaluations_are_refused(
    which: str, kept: int, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    directory = interrupted(runs[0], store, tmp_path)
    lines = (directory.path / which).read_text().splitlines(keepends=True)
    (directory.path / which).write_text("".join(lines[:kept]))
    with pytest.raises(InputError, match=rf"{which}: evaluations up to the checkpoint at step 40 are missing"):
        train(runs[0], store, tmp_path)


@pytest.mark.parametrize("which", ["heads.parquet", "paragraph.parquet"])
def test_missing_or_damaged_tables_are_refused(which: str, runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    directory = interrupted(runs[0], store, tmp_path)
    path = directory.path / which
    intact = path.read_bytes()
    path.unlink()
    with pytest.raises(InputError, match=rf"{which}: evaluations up to the checkpoint at step 40 are missing"):
        train(runs[0], store, tmp_path)
    path.write_bytes(intact[:-9])
    with pytest.raises(InputError, match=rf"{which}: damaged"):
        train(runs[0], store, tmp_path)
    assert path.read_bytes() == intact[:-9], "nothing is changed"
    path.write_bytes(intact)
    assert train(runs[0], store, tmp_path) is Outcome.DONE
    path.write_bytes(intact)
    with pytest.raises(InputError, match=rf"{which}: altered after the run finished"):
        directory.check_unaltered()


@pytest.mark.parametrize("which", ["test_sequences.parquet", "pool_sequences.parquet"])
def test_damaged_losses_of_sequences_are_refused(
    which: str, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    directory = interrupted(runs[1], store, tmp_path)
    path = directory.path / which
    intact = path.read_bytes()
    write_table(path, up_to(read_table(path), 10))
    with pytest.raises(InputError, match=rf"{which}: evaluations up to the checkpoint at step 40 are missing"):
        train(runs[1], store, tmp_path)
    path.write_bytes(intact)
    assert train(runs[1], store, tmp_path) is Outcome.DONE
    path.write_bytes(intact)
    with pytest.raises(InputError, match=rf"{which}: altered after the run finished"):
        directory.check_unaltered()


@pytest.mark.parametrize("which", ["test_sequences.parquet", "pool_sequences.parquet"])
def test_a_run_from_a_version_without_a_table_resumes_without_it(
    which: str, runs: list[Run], store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_table(directory: RunDirectory, step: int) -> dict[str, str]:
        return {name: digest for name, digest in record_digests(directory, step).items() if name != which}

    with monkeypatch.context() as earlier_version:
        earlier_version.setattr("repeat_study.training.callback.record_digests", without_table)
        directory = interrupted(runs[1], store, tmp_path)
    (directory.path / which).unlink()
    assert train(runs[1], store, tmp_path) is Outcome.DONE
    assert not (directory.path / which).exists()
    directory.check_unaltered()


def test_a_checkpoint_of_another_run_is_refused(runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    first, second = (interrupted(run, store, tmp_path) for run in runs[:2])
    shutil.copy(first.checkpoint, second.checkpoint)
    with pytest.raises(InputError, match=rf"last.ckpt: belongs to another spec \({runs[0].identity[:8]}\)"):
        train(runs[1], store, tmp_path)


def interrupted(run: Run, store: TokenStore, folder: Path) -> RunDirectory:
    steps_left = iter(range(39))
    assert train(run, store, folder, should_stop=lambda: next(steps_left, None) is None) is Outcome.INTERRUPTED
    return RunDirectory(folder / run.name)


def test_the_clock_resumes_from_the_checkpoint(runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    directory = interrupted(runs[0], store, tmp_path)
    before = directory.timings()[-1]
    assert train(runs[0], store, tmp_path) is Outcome.DONE
    timings = directory.timings()
    assert all(b["train_seconds"] > a["train_seconds"] for a, b in pairwise(timings))
    rates = [timing["tokens_per_second"] for timing in timings if timing["step"] > 1]
    assert max(rates) < 20 * min(rates), "tokens from before the stop do not count towards the speed after it"
    assert timings[-1]["train_seconds"] > before["train_seconds"]


def test_reading_the_status_never_blocks_training(runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / runs[0].name)
    directory.make()
    directory.lock.touch()
    done = threading.Event()

    def read_status() -> None:
        while not done.is_set():
            directory.status()

    watcher = threading.Thread(target=read_status)
    watcher.start()
    try:
        for _ in range(100):
            with exclusive_lock(directory.lock):
                pass
    finally:
        done.set()
        watcher.join()


def test_runs_of_one_seed_and_size_start_from_the_same_weights(
    undisturbed: Path, runs: list[Run], store: TokenStore
) -> None:
    first = {run.label: RunDirectory(undisturbed / run.name).rows()[0]["test_loss"] for run in runs}
    assert len({loss for label, loss in first.items() if label.startswith("1x16")}) == 1
    other = runs[0].model_copy(update={"seed": 1})
    assert other.identity != runs[0].identity
