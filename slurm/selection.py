"""Select the runs in a study that still need to be submitted, based on their directories and the queue."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from submitit.core.utils import JobPaths

from repeat_study.config.run import Run
from repeat_study.cost import relative_time
from repeat_study.records.run_directory import RunDirectory, Status
from slurm import client
from slurm.submissions import Submission, jobs_by_run, read_submissions

# Seconds to wait for jobs that are ending. SLURM kills a job's processes after KillWait, often 30 s.
ENDING_TIMEOUT = 60.0


@dataclass
class RunsByState:
    """A study's runs before a submission, grouped by state."""

    done: list[Run] = field(default_factory=list)
    queued: list[Run] = field(default_factory=list)
    ending: list[Run] = field(default_factory=list)  # in the queue, but SLURM is terminating their processes
    outside: list[Run] = field(default_factory=list)  # being trained by a process that does not belong to a queued job
    failed: list[Run] = field(default_factory=list)  # will be retried
    unfinished: list[Run] = field(default_factory=list)  # never started, or interrupted

    @property
    def todo(self) -> list[Run]:
        """The runs to submit, most expensive first."""
        return sorted([*self.unfinished, *self.failed], key=relative_time, reverse=True)

    def summary(self) -> str:
        """One line for the console with the number of runs in each state."""
        counts = {
            "done": self.done,
            "already in the queue": self.queued,
            "still stopping (submit again later)": self.ending,
            "training outside the queue": self.outside,
            "of them failed before and will be retried from the last checkpoint": self.failed,
        }
        others = "".join(f"; {len(runs)} {state}" for state, runs in counts.items() if runs)
        return f"{count_runs(self.todo)} to submit{others}"


def count_runs(runs: Sequence[object]) -> str:
    """The number of runs with its noun, such as `1 run` or `2 runs`."""
    return f"{len(runs)} run" + "s" * (len(runs) != 1)


def group_by_state(runs: Iterable[Run], study_dir: Path) -> RunsByState:
    """Group runs by state, based on their directories and the queue."""
    jobs_of, groups = jobs_by_run(read_submissions(study_dir), client.queued_jobs()), RunsByState()
    for run in runs:
        status, jobs = RunDirectory(study_dir / run.name).status(), jobs_of.get(run.name, [])
        if status is Status.DONE:
            groups.done.append(run)
        elif jobs:
            (groups.ending if all(job.ending for job in jobs) else groups.queued).append(run)
        elif status is Status.RUNNING:
            groups.outside.append(run)
        elif status is Status.FAILED:
            groups.failed.append(run)
        else:
            groups.unfinished.append(run)
    return groups


def group_after_ending(runs: Sequence[Run], study_dir: Path, report: Callable[[str], None]) -> RunsByState:
    """Wait until ending jobs, which may still requeue themselves, have left the queue. Then group runs by state.

    Waits at most ENDING_TIMEOUT.
    """
    reconcile(read_submissions(study_dir))
    deadline, groups = time.monotonic() + ENDING_TIMEOUT, group_by_state(runs, study_dir)
    if groups.ending:
        report(f"waiting for the jobs of {count_runs(groups.ending)} to leave the queue")
    while groups.ending and time.monotonic() < deadline:
        time.sleep(0.5)
        groups = group_by_state(runs, study_dir)
    return groups


def reconcile(submissions: Sequence[Submission]) -> None:
    """Repair submissions that were interrupted after sbatch accepted a job but before its id was recorded.

    A job whose pickle exists can run, and its id is recorded. A job without a pickle cannot run and is cancelled.
    """
    queue = client.queued_jobs()
    for submission in submissions:
        for array in [*submission.arrays, *submission.preparation]:
            job_ids = [job.job_id for (name, _), job in queue.items() if name == array.name]
            if array.job_id or not job_ids:
                continue
            if all(JobPaths(submission.logs, job_id=job_id).submitted_pickle.is_file() for job_id in job_ids):
                array.job_id = job_ids[0].split("_")[0]
                submission.write()
            else:
                client.cancel_jobs(job_ids)
