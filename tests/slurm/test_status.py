"""The states of runs, given run directories and queues made for each test."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.config.run import Run
from repeat_study.records.json_lines import last_row
from repeat_study.records.run_directory import RunDirectory, Status
from repeat_study.training.trainer import train
from slurm.client import QueuedJob, main_error
from slurm.start_log import MAX_STARTS, StartLog
from slurm.status import State, run_states
from slurm.submissions import Array, Position, Submission, read_submissions


def submitted(folder: Path, run: Run, time_: float, **more: Any) -> list[Submission]:
    fields: dict[str, Any] = {
        "allocation": {},
        "options": {},
        "resources": {},
        "store": "",
        "source": "",
        "commit": None,
    }
    submission = Submission.new(folder, **fields)
    submission.time, submission.arrays = time_, [Array("sweep.0", [[run.name]], "7")]
    submission.cancelled = more.get("cancelled", [])
    submission.logs.mkdir(parents=True)
    submission.write()
    assert read_submissions(folder) == [submission], "the record can be read"
    return [submission]


def state(
    run: Run, folder: Path, submissions: list[Submission], job: QueuedJob | None, stuck_after: float = 60
) -> State:
    queue = {("sweep.0", 0): job} if job else {}
    (run_state,) = run_states([run], folder, submissions, queue, stuck_after)
    return run_state.state


def test_the_queue_decides_the_state_of_an_unfinished_run(runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    run, now = runs[0], time.time()
    waiting, running = QueuedJob("7", "PENDING", "Priority", None), QueuedJob("7", "RUNNING", "None", now)
    submissions = submitted(tmp_path, run, now)
    assert state(run, tmp_path, submissions, waiting) is State.PENDING
    assert state(run, tmp_path, submissions, running) is State.STARTING, "no evaluation yet"
    assert state(run, tmp_path, submissions, None) is State.FAILED, "its job left the queue without writing anything"
    steps = iter(range(30))
    train(run, store, tmp_path, should_stop=lambda: next(steps, None) is None)
    assert state(run, tmp_path, submissions, waiting) is State.PREEMPTED
    submissions[0].cancelled.append(run.name)
    assert state(run, tmp_path, submissions, None) is State.CANCELLED
    assert next(run_states([run], tmp_path, submissions, None, 60)).state is State.CANCELLED, (
        "even if the queue is unknown"
    )
    later = submitted(tmp_path / "later", run, time.time() + 1)
    assert state(run, tmp_path, later, waiting) is State.PENDING, "it has not started since it was submitted again"


def test_a_run_whose_preparation_failed_says_so(runs: list[Run], tmp_path: Path) -> None:
    submissions = submitted(tmp_path, runs[0], time.time())
    submissions[0].preparation = [Array("sweep.encode", [["encode 0"]], "5"), Array("sweep.write", [["write"]], "6")]
    submissions[0].provisional = {runs[0].name: Position(0, 1, runs[0].label, 0)}
    (run_state,) = run_states([runs[0]], tmp_path, submissions, {}, 60)
    assert (run_state.state, run_state.note) == (State.FAILED, "the preparation of its data failed (job 6)")


def test_a_job_trains_all_runs_of_its_bundle_and_its_record_can_be_read(runs: list[Run], tmp_path: Path) -> None:
    (submission,) = submitted(tmp_path, runs[0], 1.0)
    submission.arrays = [Array("sweep.0", [[run.name for run in runs[:2]], [runs[2].name]], "7")]
    assert [submission.job_id_of(run.name) for run in runs[:3]] == ["7_0", "7_0", "7_1"]
    running = QueuedJob("7_0", "RUNNING", "None", time.time())
    bundle_states = [
        run_state.state for run_state in run_states(runs[:3], tmp_path, [submission], {("sweep.0", 0): running}, 60)
    ]
    assert bundle_states == [State.STARTING, State.STARTING, State.FAILED]
    submission.write()
    assert read_submissions(tmp_path)[0].arrays == submission.arrays


def test_a_run_that_writes_nothing_for_a_long_time_is_stuck(runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    run = runs[0]
    steps = iter(range(30))
    train(run, store, tmp_path, should_stop=lambda: next(steps, None) is None)
    long_ago = time.time() - 1000
    running = QueuedJob("7", "RUNNING", "None", long_ago)
    submissions = submitted(tmp_path, run, long_ago)
    assert state(run, tmp_path, submissions, running, 600) is State.RUNNING
    directory = RunDirectory(tmp_path / run.name)
    for path in (directory.timing, directory.sessions, directory.checkpoint):
        os.utime(path, (long_ago, long_ago))
    assert state(run, tmp_path, submissions, running, 600) is State.STUCK
    assert state(run, tmp_path, submissions, running, 1200) is State.RUNNING


def test_the_last_line_is_read_without_the_others(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    assert last_row(directory.metrics) is None
    for count in (1, 2, 3):
        lines = [
            f'{{"step": {step}, "tokens": 0, "test_loss": 1.0, "long": "{"x" * 20_000}"}}\n' for step in range(count)
        ]
        directory.metrics.write_text("".join(lines) + '{"step": 9')  # a crash truncated the last line
        assert (last_row(directory.metrics) or {})["step"] == count - 1
    directory.metrics.write_text('{"step": 4')
    assert last_row(directory.metrics) is None


def test_a_run_that_is_repeatedly_killed_without_progress_is_marked_as_failed(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.make()
    starts = StartLog(tmp_path / "7_starts.jsonl", [directory])
    for _ in range(MAX_STARTS - 1):
        starts.record_start()
    directory.metrics.write_text('{"step": 10, "tokens": 0, "test_loss": 1.0}\n')  # it made progress
    for _ in range(MAX_STARTS):
        starts.record_start()
    starts.clear()  # a signal stopped the job
    for _ in range(MAX_STARTS):
        starts.record_start()
    with pytest.raises(InputError, match="killed 5 times in a row without progress"):
        starts.record_start()
    assert directory.status() is Status.FAILED and "killed 5 times" in directory.failure()
    StartLog(tmp_path / "8_starts.jsonl", [directory]).record_start()  # a new submission may start again


def test_the_first_line_of_a_slurm_error_is_reported() -> None:
    stderr = "sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: Invalid name\n"
    assert main_error(stderr) == "invalid partition specified: x"
