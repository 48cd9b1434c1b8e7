"""Submit job arrays through submitit, and record them."""

import io
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import clean_env

from data_prep.errors import InputError
from repeat_study.config.resources import Resources
from repeat_study.local.workers import WORKER_ENVIRONMENT
from slurm import client
from slurm.allocation import Allocation
from slurm.preemption import requeue_lines
from slurm.submissions import Array, Submission

# submitit limits how often a job may be requeued after preemptions and timeouts. Runs need no such limit.
NO_LIMIT = 10**6


@contextmanager
def recording(submission: Submission) -> Iterator[None]:
    """Record a submission while its arrays are submitted. If sbatch rejects an array, its record is deleted.

    Raises InputError if sbatch rejects an array or a file cannot be written.
    """
    try:
        submission.logs.mkdir(parents=True)
        submission.write()
        yield
    except (FailedJobError, FailedSubmissionError) as error:
        _discard_rejected(submission)
        accepted = sum(len(array.runs) for array in submission.arrays if array.job_id)
        total = sum(len(array.runs) for array in submission.arrays)
        rest = f"; {accepted} of {total} runs are in the queue; submit the rest with `resume`" if accepted else ""
        raise InputError(f"sbatch: {client.main_error(str(error))}{rest}") from error
    except OSError as error:
        raise InputError(f"{error.filename or submission.folder}: cannot be written: {error.strerror}") from error


def submit_array(
    submission: Submission,
    array: Array,
    calls: Sequence[Callable[[], object]],
    allocation: Allocation,
    resources: Resources,
    most_simultaneous: int,
    after: Sequence[str] = (),
) -> None:
    """Submit one array of a submission that is being recorded, and record its id.

    calls: one per job. after: conditions for the start, such as `afterok:17`. A job whose condition can no longer be met is cancelled.
    """
    executor = submitit.SlurmExecutor(submission.logs, max_num_timeout=NO_LIMIT)
    parameters = _sbatch_parameters(submission, allocation, resources)
    if after:
        parameters["dependency"] = ",".join(after)
        parameters["additional_parameters"]["kill_on_invalid_dep"] = "yes"
    executor.update_parameters(**parameters, job_name=array.name, array_parallelism=most_simultaneous)
    with _outside_allocation(), redirect_stderr(io.StringIO()):  # submitit also prints the errors it raises
        jobs = executor.submit_array(list(calls))
    array.job_id = jobs[0].job_id.split("_")[0]
    submission.write()


def _sbatch_parameters(submission: Submission, allocation: Allocation, resources: Resources) -> dict[str, Any]:
    """The sbatch parameters that all arrays of a submission share, as arguments for submitit."""
    parameters = allocation.parameters(resources)
    source = submission.folder.parent.resolve() / submission.source
    parameters["additional_parameters"]["chdir"] = str(source)
    parameters["setup"] += [
        "set +e",  # modules may leave `set -e` on, which would skip the lines after training
        f"cd {shlex.quote(str(source))}",  # python -m imports packages from here first
        *(f"export {name}={value}" for name, value in WORKER_ENVIRONMENT.items()),
    ]
    parameters["teardown"] = requeue_lines()
    # If one task dies, the others cannot continue. srun does not inherit --cpus-per-task from sbatch.
    parameters["srun_args"] = ["--kill-on-bad-exit=1", f"--cpus-per-task={allocation.cpus_per_task}"]
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
    for key in ("arrays", "preparation"):
        kept = [array for array in getattr(submission, key) if array.job_id or array.name in queued_names]
        setattr(submission, key, kept)
    if not submission.arrays and not submission.preparation:
        shutil.rmtree(submission.folder, ignore_errors=True)
        return
    submission.write()
    for path in submission.logs.iterdir():
        # Delete files that submitit has not yet renamed to include a job id. A link points to an accepted script.
        if len(path.stem) == 32 or (path.name.startswith(".submission_file") and not path.is_symlink()):
            path.unlink()
