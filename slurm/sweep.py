"""Submits the unfinished runs of a study to SLURM as job arrays. A run is never in the queue twice."""

import io
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import clean_env

from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.config.resources import Accelerator, Resources
from repeat_study.config.run import Run
from repeat_study.local.workers import WORKER_ENVIRONMENT
from repeat_study.records.run_directory import RunDirectory
from repeat_study.training.bundles import pack_bundles
from slurm import client
from slurm.allocation import Allocation
from slurm.arrays import ArrayPlan, plan_arrays, split_parallelism
from slurm.job import TrainJob
from slurm.preemption import requeue_lines
from slurm.selection import count_runs, group_after_ending
from slurm.source_snapshot import commit, keep_source
from slurm.submissions import Array, Submission, submission_lock, sweeps_dir

# submitit counts every preemption and time limit towards this; runs are requeued as often as they need.
NO_LIMIT = 10**6


@dataclass(frozen=True)
class Sweep:
    """Runs of one study, and how to train them on a cluster."""

    runs: Sequence[Run]
    store: TokenStore
    study_dir: Path
    allocation: Allocation
    resources: Resources = field(default_factory=Resources)
    options: dict[str, Any] = field(
        default_factory=dict
    )  # the part of `allocation` from the command line, for `resume`


def submit(sweep: Sweep, report: Callable[[str], None]) -> Submission | None:
    """Submit every run that is neither done nor in the queue; returns the submission, or None if there was nothing to do.

    `report` receives lines for the console. Raises InputError, with nothing submitted, if the cluster does not answer,
    another process is submitting, or a run's directory was made by another spec. Raises it too if sbatch refuses an array;
    arrays accepted before that one are recorded.
    """
    study_dir, allocation = sweep.study_dir, sweep.allocation
    _check_path(study_dir.resolve())
    resources = sweep.resources
    if allocation.gpus_per_node and resources.accelerator is Accelerator.AUTO:
        # If the node's GPU cannot be used, the job has to fail: on the CPU it would train for weeks, and in float32.
        resources = resources.model_copy(update={"accelerator": Accelerator.CUDA})
    largest = client.max_array_size()
    with submission_lock(study_dir):
        groups = group_after_ending(sweep.runs, study_dir, report)
        for run in groups.todo:
            RunDirectory(study_dir / run.name).check(run, sweep.store)
        report(groups.summary())
        if not groups.todo:
            return None
        on_gpu = bool(allocation.gpus_per_node)
        pack = partial(pack_bundles, resources=resources, vocabulary=sweep.store.vocabulary, gpu=on_gpu)
        plans = plan_arrays(groups.todo, study_dir, largest, pack)
        submission = Submission.new(
            study_dir,
            allocation=allocation.model_dump(),
            options=sweep.options,
            resources=resources.model_dump(mode="json"),
            store=str(sweep.store.folder.resolve()),
            source=keep_source(sweeps_dir(study_dir)).name,
            commit=commit(),
        )
        names = [f"{study_dir.name}.{submission.folder.name}.{number}" for number in range(len(plans))]
        submission.arrays = [
            Array(name, [[run.name for run in bundle] for bundle in plan.bundles])
            for name, plan in zip(names, plans, strict=True)
        ]
        for array, plan in zip(_submit_arrays(submission, plans, sweep, resources), plans, strict=True):
            report(_describe(array, plan))
        return submission


def _check_path(folder: Path) -> None:
    """Raise InputError if SLURM would write the output of jobs elsewhere, which loses them."""
    for mark, meaning in (("%", "a pattern"), ("\\", "an escape, which turns patterns off")):
        if mark in str(folder):
            raise InputError(f"{folder}: SLURM reads {mark} in a path as {meaning}; use a folder without {mark}")
    if not str(folder).isprintable():
        raise InputError(f"{str(folder)!r}: a batch script cannot name this folder; use one without control characters")


def _describe(array: Array, plan: ArrayPlan) -> str:
    line = f"job {array.job_id}: {count_runs(array.runs)}"
    if len(plan.bundles) < len(array.runs):
        line += f" in {len(plan.bundles)} bundle" + "s" * (len(plan.bundles) > 1)
    if plan.after:
        line += f", waiting for {len(plan.after)} parent job" + "s" * (len(plan.after) > 1)
    return line


def _submit_arrays(
    submission: Submission, plans: Sequence[ArrayPlan], sweep: Sweep, resources: Resources
) -> Iterator[Array]:
    """Submit the arrays in order, yielding each once it is in the queue."""
    limit = sweep.allocation.array_parallelism
    slots = split_parallelism(limit, [len(plan.bundles) for plan in plans])
    try:
        submission.logs.mkdir(parents=True)
        submission.write()
        parameters = _sbatch_parameters(submission, sweep, resources)
        for number, (array, plan) in enumerate(zip(submission.arrays, plans, strict=True)):
            executor = submitit.SlurmExecutor(submission.logs, max_num_timeout=NO_LIMIT)
            executor.update_parameters(**parameters, job_name=array.name, array_parallelism=slots[number])
            after = list(plan.after)
            if limit and number >= limit:  # more arrays than jobs may run at a time: each waits for an earlier one
                after.append(str(submission.arrays[number - limit].job_id))
            if after:
                # afterany: if a parent failed, the run says so itself. With afterok, SLURM would hold it forever.
                executor.update_parameters(dependency=":".join(["afterany", *after]))
            store, study_dir = Path(submission.store), sweep.study_dir.resolve()
            calls = [TrainJob(tuple(bundle), store, study_dir, resources) for bundle in plan.bundles]
            with _outside_allocation(), redirect_stderr(io.StringIO()):  # submitit also prints the errors it raises
                jobs = executor.submit_array(calls)
            array.job_id = jobs[0].job_id.split("_")[0]
            submission.write()
            yield array
    except (FailedJobError, FailedSubmissionError) as error:
        _discard_refused(submission)
        accepted = sum(len(array.runs) for array in submission.arrays if array.job_id)
        total = sum(len(bundle) for plan in plans for bundle in plan.bundles)
        rest = f"; {accepted} of {total} runs are in the queue, `resume` submits the rest" if accepted else ""
        raise InputError(f"sbatch: {client.main_error(str(error))}{rest}") from error
    except OSError as error:
        raise InputError(f"{error.filename or submission.folder}: cannot be written: {error.strerror}") from error


def _sbatch_parameters(submission: Submission, sweep: Sweep, resources: Resources) -> dict[str, Any]:
    """What all arrays of a submission pass to sbatch through submitit."""
    parameters = sweep.allocation.parameters(resources)
    source = sweeps_dir(sweep.study_dir).resolve() / submission.source
    parameters["additional_parameters"]["chdir"] = str(source)
    parameters["setup"] += [
        "set +e",  # a site's modules may leave `set -e` on; the lines after training would then be skipped
        f"cd {shlex.quote(str(source))}",  # python -m looks for packages here first
        *(f"export {name}={value}" for name, value in WORKER_ENVIRONMENT.items()),
    ]
    parameters["teardown"] = requeue_lines()
    # Tasks that share a run cannot continue if one of them dies; and srun does not inherit sbatch's cores per task.
    parameters["srun_args"] = ["--kill-on-bad-exit=1", f"--cpus-per-task={sweep.allocation.cpus_per_task}"]
    return parameters


@contextmanager
def _outside_allocation() -> Iterator[None]:
    """Hide the environment of a surrounding SLURM job, whose settings the new job would otherwise inherit."""
    if "SLURM_JOB_ID" not in os.environ:
        yield
        return
    cluster = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}  # still the same cluster
    with clean_env():
        os.environ |= cluster
        yield


def _discard_refused(submission: Submission) -> None:
    """Remove every trace of arrays that are not in the queue. sbatch can fail after its job was accepted."""
    try:
        queued_names = {name for name, _ in client.queued_jobs()}
    except InputError:
        return  # a recorded array that is not in the queue does no harm
    submission.arrays = [array for array in submission.arrays if array.job_id or array.name in queued_names]
    if not submission.arrays:
        shutil.rmtree(submission.folder, ignore_errors=True)
        return
    submission.write()
    for path in submission.logs.iterdir():
        # submitit's files that are not named after a job id yet; a link belongs to a script that was accepted
        if len(path.stem) == 32 or (path.name.startswith(".submission_file") and not path.is_symlink()):
            path.unlink()
