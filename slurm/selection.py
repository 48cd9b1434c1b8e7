"""Which runs of a study still have to be submitted, judged by their directories and the queue."""

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
    ending: list[Run] = field(default_factory=list)  # in the queue, but their processes are being ended
    outside: list[Run] = field(default_factory=list)  # training in a process that no job of the queue started
    failed: list[Run] = field(default_factory=list)  # will be tried again
    unfinished: list[Run] = field(default_factory=list)  # never started, or interrupted

    @property
    def todo(self) -> list[Run]:
        """The runs to submit, most expensive first."""
        return sorted([*self.unfinished, *self.failed], key=relative_time, reverse=True)

    def summary(self) -> str:
        """One line for the console: how many runs are in each state."""
        counts = {
            "done": self.done,
            "already in the queue": self.queued,
            "still leaving the queue (submit again later)": self.ending,
            "training outside the queue": self.outside,
            "that failed before, retried from the last checkpoint": self.failed,
        }
        others = "".join(f"; {len(runs)} {state}" for state, runs in counts.items() if runs)
        return f"{count_runs(self.todo)} to submit{others}"


def count_runs(runs: Sequence[object]) -> str:
    """`1 run` or `2 runs`."""
    return f"{len(runs)} run" + "s" * (len(runs) != 1)


def group_by_state(runs: Iterable[Run], study_dir: Path) -> RunsByState:
    """Group runs by the state of their directories and of the queue."""
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
    """Group runs by state once their ending jobs are gone, because such a job may still requeue itself.

    Returns after ENDING_TIMEOUT in any case.
    """
    _reconcile(read_submissions(study_dir))
    deadline, groups = time.monotonic() + ENDING_TIMEOUT, group_by_state(runs, study_dir)
    if groups.ending:
        report(f"waiting for the jobs of {count_runs(groups.ending)} to leave the queue")
    while groups.ending and time.monotonic() < deadline:
        time.sleep(0.5)
        groups = group_by_state(runs, study_dir)
    return groups


def _reconcile(submissions: Sequence[Submission]) -> None:
    """Repair submissions that were interrupted between sbatch's answer and its record.

    A job that has its pickle can run and is recorded; one without cannot run and is cancelled.
    """
    queue = client.queued_jobs()
    for submission in submissions:
        for array in submission.arrays:
            job_ids = [job.job_id for (name, _), job in queue.items() if name == array.name]
            if array.job_id or not job_ids:
                continue
            if all(JobPaths(submission.logs, job_id=job_id).submitted_pickle.is_file() for job_id in job_ids):
                array.job_id = job_ids[0].split("_")[0]
                submission.write()
            else:
                client.cancel_jobs(job_ids)
