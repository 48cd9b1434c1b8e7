"""Determine the state of every run in a study from the run directories and the queue."""

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from data_prep.errors import InputError
from repeat_study.config.run import Run
from repeat_study.records.json_lines import last_row
from repeat_study.records.recorded_run import recorded_run
from repeat_study.records.run_directory import RunDirectory, Status
from slurm.client import Queue, QueuedJob
from slurm.preemption import SAVED_MESSAGE
from slurm.submissions import Submission, jobs_by_run, latest_submission_by_run

LOG_LINES = 8  # number of lines to show from an error log
INPUT_ERROR = (
    f"{InputError.__module__}.{InputError.__qualname__}: "  # prefix of the last line of an InputError's traceback
)
FIRST_EVALUATION_SECONDS = 600.0  # assumed until the speed of a run has been measured


class State(StrEnum):
    """The state of a run, as printed by `status`."""

    DONE = "done"
    RUNNING = "running"
    STARTING = "starting"  # has a process or a node, but has not been evaluated yet
    STUCK = "stuck"  # has a node, but has written nothing for much longer than expected
    PENDING = "pending"  # never started
    PREEMPTED = "preempted"  # started before and is waiting in the queue to resume
    INTERRUPTED = "interrupted"  # started before, but is neither running nor in the queue
    CANCELLED = "cancelled"  # stopped with `cancel`
    FAILED = "failed"  # training failed, or the job left the queue without finishing the run


@dataclass(frozen=True)
class RunState:
    """The state of a run and the details that `status` prints."""

    run: Run
    state: State
    step: int = 0
    test_loss: float | None = None
    timing: dict[str, Any] | None = None  # the last line of timing.jsonl
    job_id: str = ""
    note: str = ""
    log: tuple[str, ...] = ()  # the last lines of a failed job's error log


def run_states(
    runs: Iterable[Run],
    study_dir: Path,
    submissions: list[Submission],
    queue: Queue | None,
    stuck_after: float,
) -> Iterator[RunState]:
    """Yield the state of each run. If the queue is unknown (None), only the run directories are used.

    A run on a node is stuck if it has written nothing for `stuck_after` seconds plus three times the expected time between
    evaluations.
    """
    jobs_of = jobs_by_run(submissions, queue or {})
    submission_of = latest_submission_by_run(submissions)
    writers = [str(submission.preparation[-1].job_id) for submission in submissions if submission.preparation]
    for run in runs:
        # A run can have two jobs while one of them is ending.
        job = max(jobs_of.get(run.name, []), key=lambda job: job.has_nodes, default=None)
        state = _run_state(run, study_dir, submission_of.get(run.name), job, queue is not None, stuck_after)
        submission = submission_of.get(run.name)
        if (
            state
            and state.state is State.FAILED
            and not state.log
            and submission
            and run.name in submission.provisional
        ):
            # Its name would be final if the preparation had finished, so its job never started.
            job_id = f" (job {writers[-1]})" if writers else ""
            state = replace(state, note=f"the preparation of its data failed{job_id}")
        yield state or RunState(run, State.PENDING, note="not submitted" if submissions else "")


def _run_state(
    run: Run,
    study_dir: Path,
    submission: Submission | None,
    job: QueuedJob | None,
    queue_known: bool,
    stuck_after: float,
) -> RunState | None:
    """The state of a run; None if it was neither started nor accepted by sbatch."""
    directory = RunDirectory(study_dir / run.name)
    if directory.spec.is_file():
        recorded_run(directory)  # raises InputError if the spec belongs to another run
    status = directory.status()
    accepted = submission is not None and bool(submission.job_id_of(run.name))
    if status is Status.PENDING and not job and not accepted:
        return None
    row, timing = last_row(directory.metrics), last_row(directory.timing)
    state, note = State(status), ""
    log: tuple[str, ...] = ()
    if status is Status.DONE:
        pass
    elif job and job.ending and submission and run.name in submission.cancelled:
        state, note = State.CANCELLED, "its job is ending"
    elif job and not job.has_nodes:
        started = submission is not None and _last_start(directory) > submission.time
        state, note = State.PREEMPTED if started else State.PENDING, job.reason
    elif job or status is Status.RUNNING:
        state, note = _activity(run, directory, job, stuck_after)
    elif status is Status.FAILED:
        note = directory.failure()
        log = error_log(submission, run) if submission else ()
    elif submission and run.name in submission.cancelled:
        state = State.CANCELLED
    elif submission and accepted and queue_known and not saved_before_leaving(submission, run):
        state, log = State.FAILED, error_log(submission, run)
        note = log[-1] if log else "its job left the queue without an error message"
    elif submission and accepted and queue_known:
        note = "the run saved its state and its job left the queue; submit it again with `resume`"
    step, loss = (row["step"], row["test_loss"]) if row else (0, None)
    return RunState(run, state, step, loss, timing, job.job_id if job else "", note, log)


def _activity(run: Run, directory: RunDirectory, job: QueuedJob | None, stuck_after: float) -> tuple[State, str]:
    """The state (running, starting or stuck) and a note for a run that has a node or a process."""
    row, timing = last_row(directory.metrics), last_row(directory.timing)
    step = row["step"] if row else 0
    silent = time.time() - _last_activity(directory, job)
    if silent > stuck_after + 3 * _seconds_to_next_evaluation(run, step, timing):
        return State.STUCK, f"nothing written for {silent / 60:.0f} min"
    note = job.state.lower() if job and job.state != "RUNNING" else ""
    return State.RUNNING if row else State.STARTING, note


def saved_before_leaving(submission: Submission, run: Run) -> bool:
    """Whether the output of the run's job ends with the message that the state has been saved."""
    return saved_state(submission.error_logs(run.name))


def saved_state(error_logs: Sequence[Path]) -> bool:
    """Whether the output of a job ends with the message that its state has been saved."""
    outputs = [path.with_suffix(".out") for path in error_logs[:1]]
    return any(path.is_file() and path.read_text(errors="replace").rstrip().endswith(SAVED_MESSAGE) for path in outputs)


def error_log(submission: Submission, run: Run) -> tuple[str, ...]:
    """The last lines of the job's standard error, taken from the first task that raised an exception, if any."""
    return end_of_logs(submission.error_logs(run.name))


def end_of_logs(paths: Sequence[Path]) -> tuple[str, ...]:
    """The last lines of the first log with an exception, or of the first log if there is none."""
    texts = [path.read_text(errors="replace") for path in paths]
    text = next((text for text in texts if "Traceback" in text), texts[0] if texts else "")
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    own_lines = [line for line in lines if not re.match(r"srun: |slurmstepd|submitit (ERROR|INFO|WARNING)", line)]
    if own_lines and own_lines[-1].startswith(INPUT_ERROR):
        return (own_lines[-1].removeprefix(INPUT_ERROR),)
    return tuple((own_lines or lines)[-LOG_LINES:])


def _last_start(directory: RunDirectory) -> float:
    session = last_row(directory.sessions)
    return float(session.get("time") or 0) if session else 0.0


def _last_activity(directory: RunDirectory, job: QueuedJob | None) -> float:
    """Time at which the run last wrote a file or its job last started, in seconds since the epoch."""
    times = [job.started] if job and job.started else []
    for path in (directory.timing, directory.sessions, directory.checkpoint):
        if path.exists():
            times.append(path.stat().st_mtime)
    return max(times, default=time.time())


def _seconds_to_next_evaluation(run: Run, step: int, timing: dict[str, Any] | None) -> float:
    """Expected seconds between the last evaluation and the next, based on the last measured speed if there is one."""
    if not timing or not timing.get("tokens_per_second"):
        return FIRST_EVALUATION_SECONDS
    due = run.evaluation.steps(run.steps)
    next_step = next((at for at in due if at > step), run.steps)
    overhead = (timing["evaluation_seconds"] + timing["saving_seconds"]) / (due.index(step) + 1 if step in due else 1)
    return float((next_step - step) * run.tokens_per_step / timing["tokens_per_second"] + overhead)
