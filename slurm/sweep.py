"""Submit a study's unfinished runs to SLURM as job arrays. A run is never in the queue twice."""

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

# submitit limits how often a job may be requeued after preemptions and timeouts. Runs need no such limit.
NO_LIMIT = 10**6


@dataclass(frozen=True)
class Sweep:
    """A study's runs and the resources for training them on a cluster."""

    runs: Sequence[Run]
    store: TokenStore
    study_dir: Path
    allocation: Allocation
    resources: Resources = field(default_factory=Resources)
    options: dict[str, Any] = field(default_factory=dict)  # from the command line, recorded for `resume`


def submit(sweep: Sweep, report: Callable[[str], None]) -> Submission | None:
    """Submit every run that is neither done nor in the queue. Returns the submission, or None if there is nothing to submit.

    `report` is called with each line for the console. Raises InputError without submitting anything if the cluster does not
    respond, another process is submitting, or a run directory belongs to a different spec. Also raises InputError if sbatch
    rejects an array; the arrays accepted before it are recorded.
    """
    study_dir, allocation = sweep.study_dir, sweep.allocation
    _check_path(study_dir.resolve())
    resources = sweep.resources
    if allocation.gpus_per_node and resources.accelerator is Accelerator.AUTO:
        # If the GPU cannot be used, the job must fail. Otherwise it would train on the CPU for weeks, and in float32.
        resources = resources.model_copy(update={"accelerator": Accelerator.CUDA})
    max_array_size = client.max_array_size()
    with submission_lock(study_dir):
        for run in sweep.runs:
            RunDirectory(study_dir / run.name).check(run, sweep.store)
        groups = group_after_ending(sweep.runs, study_dir, report)
        report(groups.summary())
        if not groups.todo:
            return None
        on_gpu = bool(allocation.gpus_per_node)
        pack = partial(pack_bundles, resources=resources, vocabulary=sweep.store.vocabulary, gpu=on_gpu)
        plans = plan_arrays(groups.todo, study_dir, max_array_size, pack)
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
    """Raise InputError if SLURM would misread this path and write job output to a different folder."""
    for mark, meaning in (("%", "a pattern"), ("\\", "an escape character")):
        if mark in str(folder):
            raise InputError(f"{folder}: SLURM interprets {mark} in a path as {meaning}; use a folder without {mark}")
    if not str(folder).isprintable():
        raise InputError(
            f"{str(folder)!r}: a path in a batch script cannot contain control characters; use another folder"
        )


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
    """Submit the arrays in order, yielding each one after sbatch has accepted it."""
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
            if limit and number >= limit:  # more arrays than jobs allowed, so wait for an earlier array
                after.append(str(submission.arrays[number - limit].job_id))
            if after:
                # With afterok, SLURM would hold the run forever if a parent failed. With afterany, the run starts and reports the failure.
                executor.update_parameters(dependency=":".join(["afterany", *after]))
            store, study_dir = Path(submission.store), sweep.study_dir.resolve()
            calls = [TrainJob(tuple(bundle), store, study_dir, resources) for bundle in plan.bundles]
            with _outside_allocation(), redirect_stderr(io.StringIO()):  # submitit also prints the errors it raises
                jobs = executor.submit_array(calls)
            array.job_id = jobs[0].job_id.split("_")[0]
            submission.write()
            yield array
    except (FailedJobError, FailedSubmissionError) as error:
        _discard_rejected(submission)
        accepted = sum(len(array.runs) for array in submission.arrays if array.job_id)
        total = sum(len(bundle) for plan in plans for bundle in plan.bundles)
        rest = f"; {accepted} of {total} runs are in the queue; submit the rest with `resume`" if accepted else ""
        raise InputError(f"sbatch: {client.main_error(str(error))}{rest}") from error
    except OSError as error:
        raise InputError(f"{error.filename or submission.folder}: cannot be written: {error.strerror}") from error


def _sbatch_parameters(submission: Submission, sweep: Sweep, resources: Resources) -> dict[str, Any]:
    """The sbatch parameters that all arrays of a submission share, as arguments for submitit."""
    parameters = sweep.allocation.parameters(resources)
    source = sweeps_dir(sweep.study_dir).resolve() / submission.source
    parameters["additional_parameters"]["chdir"] = str(source)
    parameters["setup"] += [
        "set +e",  # modules may leave `set -e` on, which would skip the lines after training
        f"cd {shlex.quote(str(source))}",  # python -m imports packages from here first
        *(f"export {name}={value}" for name, value in WORKER_ENVIRONMENT.items()),
    ]
    parameters["teardown"] = requeue_lines()
    # If one task dies, the others cannot continue. srun does not inherit --cpus-per-task from sbatch.
    parameters["srun_args"] = ["--kill-on-bad-exit=1", f"--cpus-per-task={sweep.allocation.cpus_per_task}"]
    return parameters


@contextmanager
def _outside_allocation() -> Iterator[None]:
    """Hide the environment variables of an enclosing SLURM job, because new jobs would inherit its settings."""
    if "SLURM_JOB_ID" not in os.environ:
        yield
        return
    cluster = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}  # keep using the same cluster
    with clean_env():
        os.environ |= cluster
        yield


def _discard_rejected(submission: Submission) -> None:
    """Delete the records of arrays that are not in the queue. sbatch can fail even after it has submitted an array."""
    try:
        queued_names = {name for name, _ in client.queued_jobs()}
    except InputError:
        return  # the record of an array that is not in the queue is harmless
    submission.arrays = [array for array in submission.arrays if array.job_id or array.name in queued_names]
    if not submission.arrays:
        shutil.rmtree(submission.folder, ignore_errors=True)
        return
    submission.write()
    for path in submission.logs.iterdir():
        # Delete files that submitit has not yet renamed to include a job id. A link points to an accepted script.
        if len(path.stem) == 32 or (path.name.startswith(".submission_file") and not path.is_symlink()):
            path.unlink()
