"""Where every run of a study stands: what its directory tells, and which job of the queue has it."""

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from data_prep.errors import InputError
from repeat_study.config.run import Run
from repeat_study.records.run_directory import RunDirectory, Status
from slurm.preemption import SAVED_WORDS
from slurm.scheduler import Queued
from slurm.submissions import Submission, held_runs, latest

TAIL = 8  # lines of an error log
BAD_INPUT = f"{InputError.__module__}.{InputError.__qualname__}: "  # how a traceback of it ends


class State(StrEnum):
    """Of a run, as people ask for it."""

    DONE = "done"
    RUNNING = "running"
    STUCK = "stuck"  # has a node, and has written nothing for far longer than it should take
    PENDING = "pending"  # not begun
    PREEMPTED = "preempted"  # begun, and waits in the queue to go on
    INTERRUPTED = "interrupted"  # begun, and nobody has it
    CANCELLED = "cancelled"  # by `cancel`
    FAILED = "failed"  # by its own fault, or its job has left the queue without finishing it


@dataclass(frozen=True)
class Standing:
    """One run."""

    run: Run
    state: State
    step: int = 0
    test_loss: float | None = None
    timing: dict[str, Any] | None = None  # the last line of timing.jsonl
    job: str = ""
    note: str = ""
    log: tuple[str, ...] = ()  # the end of a failed job's error log


def standings(
    runs: Iterable[Run],
    study_dir: Path,
    submitted: list[Submission],
    queue: dict[tuple[str, int], Queued] | None,
    stuck_after: float,
) -> Iterator[Standing]:
    """Where each run stands. `queue` is None where it is not known; then only the directories are believed.

    A run is stuck when it has a node and has been silent for `stuck_after` seconds and three times what it needs to its
    next evaluation at the speed of the last.
    """
    held = held_runs(submitted, queue or {})
    last = latest(submitted)
    now = time.time()
    for run in runs:
        directory = RunDirectory(study_dir / run.name)
        jobs, submission = held.get(run.name, []), last.get(run.name)
        job = max(jobs, key=lambda job: job.on_a_node, default=None)
        taken = submission is not None and bool(submission.job_of(run.name))
        if (status := directory.status()) is Status.PENDING and not job and not taken:
            yield Standing(run, State.PENDING, note="not submitted" if submitted else "")
            continue
        row, timing = directory.last(directory.metrics), directory.last(directory.timing)
        step, loss = (row["step"], row["test_loss"]) if row else (0, None)
        state, note = State(status), ""
        log: tuple[str, ...] = ()
        if status is Status.DONE:
            pass
        elif job and job.leaving and submission and run.name in submission.cancelled:
            state, note = State.CANCELLED, "leaving"
        elif job and not job.on_a_node:
            begun = submission is not None and _last_start(directory) > submission.time
            state, note = State.PREEMPTED if begun else State.PENDING, job.reason
        elif job or status is Status.RUNNING:
            silent = now - _last_sign(directory, job)
            stuck = silent > stuck_after + 3 * _to_next_evaluation(run, step, timing)
            state = State.STUCK if stuck else State.RUNNING
            note = f"nothing written for {silent / 60:.0f} min" if stuck else ""
            note = note or (job.state.lower() if job and job.state != "RUNNING" else "")
        elif status is Status.FAILED:
            note = directory.failure()
            log = error_log(submission, run) if submission else ()
        elif submission and run.name in submission.cancelled:
            state = State.CANCELLED
        elif submission and taken and queue is not None and not left_in_order(submission, run):
            state, log = State.FAILED, error_log(submission, run)
            note = log[-1] if log else "its job left the queue without a word"
        elif submission and taken and queue is not None:
            note = "its state is saved, and its job has left the queue; `resume` submits it again"
        yield Standing(run, state, step, loss, timing, job.job if job else "", note, log)


def left_in_order(submission: Submission, run: Run) -> bool:
    """Whether the last thing that the run's job did was to save its state."""
    logs = [path.with_suffix(".out") for path in submission.log_files(run.name)[:1]]
    return any(path.is_file() and path.read_text(errors="replace").rstrip().endswith(SAVED_WORDS) for path in logs)


def error_log(submission: Submission, run: Run) -> tuple[str, ...]:
    """The end of what the run's job wrote to standard error; of its task that raised something, where one did."""
    texts = [path.read_text(errors="replace") for path in submission.log_files(run.name)]
    text = next((text for text in texts if "Traceback" in text), texts[0] if texts else "")
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    own = [line for line in lines if not re.match(r"srun: |slurmstepd|submitit (ERROR|INFO|WARNING)", line)]
    if own and own[-1].startswith(BAD_INPUT):  # one line says it all
        return (own[-1].removeprefix(BAD_INPUT),)
    return tuple((own or lines)[-TAIL:])


def _last_start(directory: RunDirectory) -> float:
    session = directory.last(directory.sessions)
    return float(session["time"]) if session else 0.0


def _last_sign(directory: RunDirectory, job: Queued | None) -> float:
    """When the run was last heard of, in seconds since the epoch."""
    times = [job.started] if job and job.started else []
    for path in (directory.timing, directory.sessions, directory.checkpoint):
        if path.exists():
            times.append(path.stat().st_mtime)
    return max(times, default=time.time())


def _to_next_evaluation(run: Run, step: int, timing: dict[str, Any] | None) -> float:
    """Seconds from one evaluation to the next at the last one's speed; a guess where none is known."""
    if not timing or not timing["tokens_per_second"]:
        return 600.0
    due = run.evaluation.steps(run.steps)
    after = next((at for at in due if at > step), run.steps)
    overhead = (timing["evaluation_seconds"] + timing["saving_seconds"]) / (due.index(step) + 1 if step in due else 1)
    return float((after - step) * run.tokens_per_step / timing["tokens_per_second"] + overhead)
