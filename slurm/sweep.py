"""Submits the runs of a study to SLURM as arrays, and takes them back. A run is never in the queue twice."""

import io
import os
import shlex
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError, JobPaths
from submitit.helpers import clean_env

from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.config.resources import Accelerator, Resources
from repeat_study.config.run import Run
from repeat_study.cost import relative_time
from repeat_study.local.workers import WORKER_ENVIRONMENT
from repeat_study.records.run_directory import RunDirectory, Status
from repeat_study.training.bundles import pack_bundles
from slurm import scheduler
from slurm.allocation import Allocation
from slurm.job import TrainJob
from slurm.preemption import REQUEUE_LINES
from slurm.source_snapshot import commit, keep_source
from slurm.submissions import Array, Submission, held_runs, only_one, submissions, sweeps_dir

# submitit counts every stop towards a limit of its own; runs are requeued for as long as they take.
NO_LIMIT = 10**6
# Seconds to wait for jobs that are being ended: SLURM kills what has not left by itself after KillWait, often 30.
LEAVING = 60.0


@dataclass
class Sorted:
    """What stands of a study's runs, before anything is submitted."""

    done: list[Run] = field(default_factory=list)
    queued: list[Run] = field(default_factory=list)
    leaving: list[Run] = field(default_factory=list)  # in the queue, their processes being ended
    here: list[Run] = field(default_factory=list)  # in training by a process that is no job of a sweep
    failed: list[Run] = field(default_factory=list)  # and to be tried again
    open: list[Run] = field(default_factory=list)

    @property
    def todo(self) -> list[Run]:
        """What is to be submitted, the costliest first."""
        return sorted([*self.open, *self.failed], key=relative_time, reverse=True)


def submit(
    runs: Sequence[Run],
    store: TokenStore,
    study_dir: Path,
    allocation: Allocation,
    resources: Resources,
    given: dict[str, Any],
    say: Callable[[str], None],
) -> Submission | None:
    """Submit every run that is neither done nor in the queue, and `say` what was done; returns what was submitted, if
    anything. `given` is recorded for `resume`: the part of the allocation that neither the study nor the user's file says.

    Raises InputError, with nothing submitted, when the cluster cannot be asked, another process is submitting, or a run's
    directory was made by another spec; and when sbatch refuses, with what it had taken before recorded.
    """
    if "%" in str(study_dir.resolve()):
        raise InputError(f"{study_dir.resolve()}: SLURM takes % in a path for a pattern; accepted is a folder without")
    if allocation.gpus_per_node and resources.accelerator is Accelerator.AUTO:
        # Where a node's GPU cannot be used, the job has to fail: on the CPU it would train for weeks, and in float32.
        resources = resources.model_copy(update={"accelerator": Accelerator.CUDA})
    largest = scheduler.max_array_size()
    with only_one(study_dir):
        found = _sorted_once_left(runs, study_dir, say)
        for run in found.todo:
            RunDirectory(study_dir / run.name).check(run, store)
        say(_account(found))
        if not found.todo:
            return None
        pack = partial(
            pack_bundles, resources=resources, vocabulary=store.vocabulary, gpu=bool(allocation.gpus_per_node)
        )
        parts = in_order(found.todo, study_dir, largest, pack)
        submission = Submission.new(
            study_dir,
            allocation=allocation.model_dump(),
            given=given,
            resources=resources.model_dump(mode="json"),
            store=str(store.folder.resolve()),
            source=keep_source(sweeps_dir(study_dir)).name,
            commit=commit(),
        )
        for array, part in zip(_submitted(submission, parts, study_dir, allocation, resources), parts, strict=True):
            behind = f", once the {_runs(part.after)} they start from {'is' if len(part.after) == 1 else 'are'} done"
            jobs = f"{len(part.bundles)} bundle{'s' * (len(part.bundles) > 1)}"
            together = f" in {jobs}" if len(part.bundles) < len(array.runs) else ""
            say(f"job {array.job}: {_runs(array.runs)}{together}{behind if part.after else ''}")
        return submission


def _sorted_once_left(runs: Sequence[Run], study_dir: Path, say: Callable[[str], None]) -> Sorted:
    """Where runs stand, once jobs that are being ended are gone: each may still go back to the queue by itself."""
    _settle(submissions(study_dir))
    end, found = time.monotonic() + LEAVING, sort(runs, study_dir)
    if found.leaving:
        say(f"waiting for the jobs of {_runs(found.leaving)} to leave")
    while found.leaving and time.monotonic() < end:
        time.sleep(1)
        found = sort(runs, study_dir)
    return found


def _settle(submitted: Sequence[Submission]) -> None:
    """Put right what was cut short between sbatch's answer and its record: a job that has all it needs is recorded, one
    that has not could not run and is taken out of the queue."""
    queue = scheduler.queue()
    for submission in submitted:
        for array in submission.arrays:
            jobs = [job.job for (name, _), job in queue.items() if name == array.name]
            if array.job or not jobs:
                continue
            if all(JobPaths(submission.logs, job_id=job).submitted_pickle.is_file() for job in jobs):
                array.job = jobs[0].split("_")[0]
                submission.write()
            else:
                scheduler.cancel(jobs)


def sort(runs: Iterable[Run], study_dir: Path) -> Sorted:
    """Where runs stand, by their directories and the queue."""
    held, found = held_runs(submissions(study_dir), scheduler.queue()), Sorted()
    for run in runs:
        status, jobs = RunDirectory(study_dir / run.name).status(), held.get(run.name, [])
        if status is Status.DONE:
            found.done.append(run)
        elif jobs:
            (found.leaving if all(job.leaving for job in jobs) else found.queued).append(run)
        elif status is Status.RUNNING:
            found.here.append(run)
        elif status is Status.FAILED:
            found.failed.append(run)
        else:
            found.open.append(run)
    return found


def _account(found: Sorted) -> str:
    counts = {
        "done": found.done,
        "in the queue already": found.queued,
        "still leaving the queue, submit again later": found.leaving,
        "in training outside the queue": found.here,
        "that failed, to be tried again from the last checkpoint": found.failed,
    }
    rest = "".join(f"; {len(runs)} {what}" for what, runs in counts.items() if runs)
    return f"{_runs(found.todo)} to submit{rest}"


def _runs(runs: Sequence[object]) -> str:
    return f"{len(runs)} run" + "s" * (len(runs) != 1)


@dataclass(frozen=True)
class Part:
    """Bundles of one array, a job each, and the jobs that have to leave the queue before they start: those of their parents."""

    bundles: Sequence[Sequence[Run]]
    after: Sequence[str]


def in_order(
    todo: Sequence[Run], study_dir: Path, largest: int, pack: Callable[[Iterable[Run]], list[list[Run]]]
) -> list[Part]:
    """Arrays of at most `largest` bundles: first of runs that can start at once, then of one model's each whose parents are
    still in the queue, so that small models need not wait for large ones.

    Raises InputError where a parent is neither finished nor in the queue.
    """
    queue = scheduler.queue()
    held = {
        study: held_runs(submissions(study_dir.parent / study), queue)
        for study in {run.parent.study for run in todo if run.parent}
    }
    free: list[Run] = []
    waiting: dict[str, tuple[list[Run], dict[str, None]]] = {}
    for run in todo:
        parent = run.parent
        if not parent or RunDirectory(study_dir.parent / parent.study / parent.name).done.is_file():
            free.append(run)
            continue
        if not (jobs := held[parent.study].get(parent.name)):
            raise InputError(
                f"{run.label}: its parent is neither finished nor in the queue: {study_dir.parent / parent.study / parent.name}"
            )
        runs, after = waiting.setdefault(run.model, ([], {}))
        runs.append(run)
        after |= dict.fromkeys(job.job for job in jobs)
    groups = [Part(pack(free), []), *(Part(pack(runs), list(after)) for runs, after in waiting.values())]
    return [
        Part(group.bundles[first : first + largest], group.after)
        for group in groups
        for first in range(0, len(group.bundles), largest)
    ]


def _submitted(
    submission: Submission,
    parts: Sequence[Part],
    study_dir: Path,
    allocation: Allocation,
    resources: Resources,
) -> Iterable[Array]:
    """Submit an array for each part, and give it once it is in the queue."""
    names = [f"{study_dir.name}.{submission.folder.name}.{number}" for number in range(len(parts))]
    submission.arrays = [
        Array(name, [[run.name for run in bundle] for bundle in part.bundles])
        for name, part in zip(names, parts, strict=True)
    ]
    at_once = allocation.array_parallelism
    slots = shares(at_once, [len(part.bundles) for part in parts])
    try:
        submission.logs.mkdir(parents=True)
        submission.write()
        parameters = allocation.parameters(resources)
        source = sweeps_dir(study_dir).resolve() / submission.source
        parameters["additional_parameters"]["chdir"] = str(source)
        parameters["setup"] += [
            "set +e",  # as some sites' modules leave it: the lines after training would be left out
            f"cd {shlex.quote(str(source))}",  # where python -m looks first
            *(f"export {name}={value}" for name, value in WORKER_ENVIRONMENT.items()),
        ]
        # Tasks that share a run cannot go on without one of them; and srun does not ask sbatch for the cores of a task.
        srun = ["--kill-on-bad-exit=1", f"--cpus-per-task={allocation.cpus_per_task}"]
        for number, (array, part) in enumerate(zip(submission.arrays, parts, strict=True)):
            executor = submitit.SlurmExecutor(submission.logs, max_num_timeout=NO_LIMIT)
            executor.update_parameters(
                **parameters,
                job_name=array.name,
                array_parallelism=slots[number],
                teardown=REQUEUE_LINES,
                srun_args=srun,
            )
            after = list(part.after)
            if at_once and number >= at_once:  # more arrays than runs may run at a time: each waits for one before it
                after.append(str(submission.arrays[number - at_once].job))
            if after:
                # Whichever way they ended: a run whose parent is not finished then says so, where SLURM would only hold it.
                executor.update_parameters(dependency=":".join(["afterany", *after]))
            store = Path(submission.store)
            calls = [TrainJob(tuple(bundle), store, study_dir.resolve(), resources) for bundle in part.bundles]
            with _outside_of_allocations(), redirect_stderr(io.StringIO()):  # submitit says there what it raises too
                jobs = executor.submit_array(calls)
            array.job = jobs[0].job_id.split("_")[0]
            submission.write()
            yield array
    except (FailedJobError, FailedSubmissionError) as error:
        _forget_refused(submission)
        taken = sum(len(array.runs) for array in submission.arrays if array.job)
        total = sum(len(array.runs) for array in submission.arrays)
        rest = f"; {taken} of {total} runs are in the queue, `resume` submits the others" if taken else ""
        raise InputError(f"sbatch: {scheduler.first_complaint(str(error))}{rest}") from error
    except OSError as error:
        raise InputError(f"{error.filename or submission.folder}: cannot be written: {error.strerror}") from error


@contextmanager
def _outside_of_allocations() -> Iterator[None]:
    """Hide what a job that this is called from has in its environment: the new one would take it for its own."""
    if "SLURM_JOB_ID" not in os.environ:
        yield
        return
    where = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}  # which cluster it is stays
    with clean_env():
        os.environ |= where
        yield


def shares(at_once: int | None, sizes: Sequence[int]) -> list[int]:
    """How many runs of each array may run at a time, so that `at_once` do of all arrays that may run at a time."""
    if at_once is None:
        return list(sizes)
    count = len(sizes)
    return [max(1, at_once // count + (number < at_once % count)) for number in range(count)]


def _forget_refused(submission: Submission) -> None:
    """Leave nothing of arrays that are not in the queue: sbatch may fail to hear that a job was taken."""
    try:
        there = {name for name, _ in scheduler.queue()}
    except InputError:
        return  # what is recorded and is not in the queue does no harm
    submission.arrays = [array for array in submission.arrays if array.job or array.name in there]
    if not submission.arrays:
        shutil.rmtree(submission.folder, ignore_errors=True)
        return
    submission.write()
    for path in submission.logs.iterdir():
        # submitit's, under names that have no job's id yet; a link stands for a script that was taken
        if len(path.stem) == 32 or (path.name.startswith(".submission_file") and not path.is_symlink()):
            path.unlink()


def sharing(names: Collection[str], study_dir: Path) -> list[str]:
    """Runs in the queue that share a job with some of these, and are none of them."""
    held = held_runs(submissions(study_dir), scheduler.queue())
    jobs = {job.job for name in names for job in held.get(name, [])}
    return sorted(run for run, of_run in held.items() if run not in names and jobs & {job.job for job in of_run})


def cancel(names: Collection[str] | None, study_dir: Path) -> list[str]:
    """Take runs of these names out of the queue, or all of the study's, those in training too, whose state is saved;
    returns the jobs that were ended. Runs that share a job with them leave with them, and are not marked as cancelled."""
    with only_one(study_dir):
        submitted = submissions(study_dir)
        held = held_runs(submitted, scheduler.queue())
        chosen = set(held) if names is None else set(held).intersection(names)
        for submission in submitted:
            mine = {run for array in submission.arrays for run in array.runs}
            if gone := mine & chosen:
                submission.cancelled = sorted({*submission.cancelled, *gone})
                submission.write()
        jobs = list(dict.fromkeys(job.job for name in sorted(chosen) for job in held[name]))
        scheduler.cancel(jobs)
        return jobs
