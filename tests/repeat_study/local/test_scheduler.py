"""The local scheduler with real worker processes: runs that finish, fail, die or are stopped."""

import multiprocessing
import multiprocessing.resource_tracker as resource_tracker
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.config.resources import Resources
from repeat_study.config.run import Run
from repeat_study.local.scheduler import Event, LocalScheduler, Restarted, Started
from repeat_study.local.workers import visible_gpus
from repeat_study.records.outcome import Outcome, Progress
from repeat_study.records.run_directory import RunDirectory, Status
from tests.waiting import PATIENCE, wait_until

LONG = {"tokens": 1000 * 32 * 8}  # long enough to be interrupted
DIVERGING = {"learning_rate": 1e30, "gradient_clip": 1e30}


def scheduler(store: TokenStore, folder: Path, events: list[Event], processes: int = 2) -> LocalScheduler:
    return LocalScheduler(store, folder, processes, events.append)


@pytest.mark.slow
@pytest.mark.usefixtures("preloaded_workers")
def test_every_run_is_trained_once_and_never_again(runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    events: list[Event] = []
    ended = scheduler(store, tmp_path, events).train(runs)
    assert {name: end.outcome for name, end in ended.items()} == {run.name: Outcome.DONE for run in runs}
    assert {event.run for event in events if isinstance(event, Progress)} == {run.name for run in runs}
    started = [event for event in events if isinstance(event, Started)]
    assert sorted(run for event in started for run in event.runs) == sorted(run.name for run in runs)
    assert [event.new_process for event in started] == [True] * 2 + [False] * (len(runs) - 2)
    again = scheduler(store, tmp_path, []).train(runs)
    assert {end.outcome for end in again.values()} == {Outcome.ALREADY_DONE}


@pytest.mark.slow
def test_a_run_counts_as_running_while_its_process_imports_torch(
    runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    """A new process takes seconds to import torch. It already holds the run's lock during this time."""
    directory = RunDirectory(tmp_path / runs[0].name)
    before_training: list[Status] = []

    def watch() -> None:
        while not directory.sessions.exists() and len(before_training) < 10_000:
            before_training.append(directory.status())
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)

    def listen(event: Event) -> None:
        if isinstance(event, Started):
            watcher.start()

    LocalScheduler(store, tmp_path, 1, listen).train(runs[:1])
    watcher.join()
    running = before_training.index(Status.RUNNING)
    assert before_training.count(Status.RUNNING) > running, "the run is running for most of the time before training"


@pytest.mark.slow
@pytest.mark.usefixtures("preloaded_workers")
def test_a_failed_run_is_reported_and_the_others_finish(runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    bad = runs[0].model_copy(update=DIVERGING)
    ended = scheduler(store, tmp_path, []).train([bad, *runs[1:4]])
    assert ended[bad.name].outcome is Outcome.FAILED and "test_loss is nan" in ended[bad.name].reason
    assert {ended[run.name].outcome for run in runs[1:4]} == {Outcome.DONE}
    assert RunDirectory(tmp_path / bad.name).status() is Status.FAILED


def kill_worker() -> None:
    (worker,) = multiprocessing.active_children()
    worker.kill()


def kill_once(events: list[Event]) -> Callable[[Event], None]:
    """Return a listener that records all events and kills the worker at its first evaluation after step 0."""

    def listen(event: Event) -> None:
        first = not any(isinstance(earlier, Progress) and earlier.step > 0 for earlier in events)
        events.append(event)
        if first and isinstance(event, Progress) and event.step > 0:
            kill_worker()

    return listen


@pytest.mark.usefixtures("preloaded_workers")
def test_a_killed_process_is_replaced_and_its_run_resumed(runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    events: list[Event] = []
    run = runs[1]
    ended = LocalScheduler(store, tmp_path / "killed", 1, kill_once(events)).train([run])
    assert ended[run.name].outcome is Outcome.DONE
    assert [event.reason for event in events if isinstance(event, Restarted)] == ["process killed by SIGKILL"]
    undisturbed = scheduler(store, tmp_path / "undisturbed", [], 1).train([run])
    assert undisturbed[run.name].outcome is Outcome.DONE
    metrics = [(tmp_path / name / run.name / "metrics.jsonl").read_bytes() for name in ("killed", "undisturbed")]
    assert metrics[0] == metrics[1]


@pytest.mark.slow
@pytest.mark.usefixtures("preloaded_workers")
def test_a_run_that_is_stopped_repeatedly_does_not_fail(runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    """This happens under a job scheduler that preempts the run before every evaluation."""
    run = runs[0].model_copy(update={"evaluation": runs[0].evaluation.model_copy(update={"even_points": 1})})
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        stops = sum(isinstance(event, Restarted) for event in events)
        if stops < 3 and isinstance(event, Progress) and (event.resumed or event.step == 0):
            (worker,) = multiprocessing.active_children()
            worker.terminate()

    ended = LocalScheduler(store, tmp_path, 1, listen).train([run])
    assert ended[run.name].outcome is Outcome.DONE
    reasons = [event.reason for event in events if isinstance(event, Restarted)]
    assert reasons == ["stopped from outside, state saved"] * 3


def test_a_worker_group_sees_a_subset_of_the_allocated_gpus() -> None:
    assert visible_gpus([0, 1], None) == "0,1"
    assert visible_gpus([1], "4,5") == "5"
    assert visible_gpus([0], "GPU-8932f937,GPU-46a3a1f8") == "GPU-8932f937"


def test_more_processes_per_run_than_available_are_refused(runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="processes_per_run: 4 requested, but only 2 processes are available"):
        LocalScheduler(store, tmp_path, 2, print, Resources(processes_per_run=4)).train(runs)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("preloaded_workers")
def test_a_run_whose_process_always_dies_is_marked_as_failed(
    runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.run == runs[1].name:
            kill_worker()

    ended = LocalScheduler(store, tmp_path, 1, listen).train(runs[:2])
    assert ended[runs[1].name].outcome is Outcome.FAILED and "SIGKILL" in ended[runs[1].name].reason
    assert RunDirectory(tmp_path / runs[1].name).failure().startswith("process killed by SIGKILL")
    assert ended[runs[0].name].outcome is Outcome.DONE


def test_a_directory_of_another_spec_is_refused_before_anything_starts(
    runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    foreign = tmp_path / runs[3].name / "spec.json"
    foreign.parent.mkdir()
    foreign.write_text("{}")
    with pytest.raises(InputError, match="contains another spec"):
        scheduler(store, tmp_path, []).train(runs)
    assert [path.name for path in tmp_path.iterdir()] == [runs[3].name]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ctrl-c", "parent killed"])
def test_stopping_the_scheduler_saves_every_run(how: str, runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    run = runs[0].model_copy(update=LONG)
    directory = RunDirectory(tmp_path / run.name)
    script = (
        "import sys; from repeat_study.local.scheduler import LocalScheduler; from data_prep.token_store import TokenStore\n"
        "from pathlib import Path; from repeat_study.config.run import Run\n"
        "if __name__ == '__main__':\n"
        "    run = Run.model_validate_json(sys.argv[1], strict=True)\n"
        "    LocalScheduler(TokenStore(Path(sys.argv[2])), Path(sys.argv[3]), 1, print).train([run])\n"
    )
    (tmp_path / "train.py").write_text(script)
    arguments = [sys.executable, tmp_path / "train.py", run.model_dump_json(), store.folder, tmp_path]
    parent = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # background jobs and their children ignore SIGINT
    )
    while not (rows := directory.rows()) or rows[-1]["step"] == 0:
        assert parent.poll() is None, parent.stdout and parent.stdout.read()
        time.sleep(0.01)
    if how == "ctrl-c":
        os.killpg(parent.pid, signal.SIGINT)  # a terminal sends it to the parent and its children
    else:
        parent.kill()
    parent.wait(PATIENCE)
    wait_until(lambda: directory.status() is not Status.RUNNING)
    assert directory.status() is Status.INTERRUPTED
    import torch

    step = torch.load(directory.checkpoint, weights_only=True)["global_step"]
    assert 0 < step < run.steps and step >= directory.rows()[-1]["step"]


@pytest.mark.slow
@pytest.mark.usefixtures("preloaded_workers")
def test_bundled_runs_have_the_results_of_single_runs_despite_a_kill_and_a_failure(
    runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    """Six runs of two shapes train in bundles of three. One run diverges, and the process is killed at its first evaluation."""
    bad = runs[1].model_copy(update=DIVERGING)
    grid = [runs[0], bad, *runs[2:]]
    events: list[Event] = []
    ended = LocalScheduler(store, tmp_path / "bundles", 1, kill_once(events), Resources(lanes=3)).train(grid)
    assert ended[bad.name].outcome is Outcome.FAILED and "is nan" in ended[bad.name].reason
    assert {ended[run.name].outcome for run in grid if run is not bad} == {Outcome.DONE}
    restarted = {event.run for event in events if isinstance(event, Restarted)}
    assert restarted in ({run.name for run in grid[:3]}, {run.name for run in grid[3:]}), (
        "exactly the runs of the killed bundle are restarted"
    )
    sessions = [RunDirectory(tmp_path / "bundles" / run.name).session_rows() for run in grid]
    assert {row["lanes"] for rows in sessions for row in rows} <= {1, 2, 3} and sessions[-1][0]["lanes"] == 3
    alone = scheduler(store, tmp_path / "alone", [], 1).train([run for run in grid if run is not bad])
    for name in alone:
        metrics = [(tmp_path / where / name / "metrics.jsonl").read_bytes() for where in ("bundles", "alone")]
        assert metrics[0] == metrics[1], name


def test_a_run_whose_process_cannot_start_records_the_reason(
    runs: list[Run], store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies before it creates the run's folder."""
    resource_tracker.ensure_running()
    monkeypatch.setattr("multiprocessing.spawn._python_exe", os.fsencode(shutil.which("false") or ""))
    ended = scheduler(store, tmp_path, []).train(runs[:2])
    for run in runs[:2]:
        assert ended[run.name].outcome is Outcome.FAILED and ended[run.name].reason == "process exited with code 1"
        assert RunDirectory(tmp_path / run.name).failure() == "process exited with code 1 (step 0)"
