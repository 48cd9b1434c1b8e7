"""Call SLURM's client programs squeue, scontrol and scancel.

Each call has a timeout, because the programs wait for minutes if slurmctld does not respond. sacct is never called, since
some clusters have no accounting.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from data_prep.errors import InputError

CLIENT_TIMEOUT = 8.0  # seconds; even a busy slurmctld responds within a few
# Prefixes of environment variables that filter or reformat the output. If a filter hid a job, its runs would be submitted twice.
_FILTER_VARIABLES = ("SQUEUE_", "SCANCEL_", "SCONTROL_", "SLURM_TIME_FORMAT")


@dataclass(frozen=True)
class QueuedJob:
    """A job that is waiting, running or ending."""

    job_id: str  # as SLURM prints it: 17, or 17_3 in an array
    state: str  # SLURM's job state: PENDING, RUNNING, COMPLETING, ...
    reason: str  # why the job is waiting
    started: float | None  # time of the last start, in seconds since the epoch

    @property
    def ending(self) -> bool:
        """Whether SLURM is terminating the job's processes. The job may still be requeued."""
        return self.state == "COMPLETING"

    @property
    def has_nodes(self) -> bool:
        """Whether nodes are allocated to the job."""
        return self.state not in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")


Queue = dict[tuple[str, int], QueuedJob]  # keys: job name and array index


def run_client(*command: str) -> str:
    """Run a SLURM program and return its output.

    Raises InputError if the program is not installed, times out or fails.
    """
    program = command[0]
    if not shutil.which(program):
        raise InputError(f"{program}: not found on the PATH, so this machine cannot submit SLURM jobs")
    unfiltered = {name: value for name, value in os.environ.items() if not name.startswith(_FILTER_VARIABLES)}
    try:
        completed = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=CLIENT_TIMEOUT, env=unfiltered
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{program}: the cluster did not respond within {CLIENT_TIMEOUT:g} s") from error
    if completed.returncode:
        raise InputError(f"{program}: {main_error(completed.stderr)}")
    return completed.stdout


def main_error(stderr: str) -> str:
    """The fatal line of a SLURM error message, or the first line if none is fatal, without the program's name."""
    lines = [line for line in stderr.splitlines() if line.strip()] or ["failed without an error message"]
    line = next((line for line in lines if ": fatal: " in line), lines[0])
    return re.sub(r"^\w+: (error|fatal): ", "", line)


def max_array_size() -> int:
    """The cluster's MaxArraySize. Raises InputError if SLURM is missing or does not respond, or if arrays are disabled."""
    try:
        config = run_client("scontrol", "show", "config")
    except InputError as error:
        raise InputError(
            f"{error}; to train on this machine, use `sweep --cluster local` or `repeat-study run`"
        ) from error
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", config, re.MULTILINE)
    if not match or int(match[1]) < 1:
        raise InputError("scontrol: this cluster does not allow job arrays (MaxArraySize)")
    return int(match[1])


def check_partition(names: str) -> None:
    """Raise InputError if a partition in this comma-separated list does not exist."""
    partitions = re.findall(r"PartitionName=(\S+)", run_client("scontrol", "show", "partition", "--all", "--oneliner"))
    for name in names.split(","):
        if name not in partitions:
            raise InputError(
                f"slurm.partition: no partition {name!r} on this cluster; expected {', '.join(sorted(partitions))}"
            )


def queued_jobs() -> Queue:
    """The current user's jobs in the queue. A job that is not in an array has index 0."""
    jobs = {}
    output = run_client(
        "squeue", "--noheader", "--all", "--array", f"--user={os.getuid()}", "--format=%i|%K|%T|%r|%S|%j"
    )
    for line in output.split("\n"):
        fields = line.split("|", 5)
        if len(fields) == 6:  # a job name can contain anything, including line breaks
            job_id, index, state, reason, started, name = fields
            jobs[name, int(index) if index.isdigit() else 0] = QueuedJob(job_id, state, reason, _timestamp(started))
    return jobs


def cancel_jobs(job_ids: Sequence[str]) -> None:
    """Cancel jobs. A job that has already left the queue is not an error."""
    for start in range(0, len(job_ids), 500):
        run_client("scancel", "--quiet", *job_ids[start : start + 500])


def _timestamp(time: str) -> float | None:
    try:
        return datetime.fromisoformat(time).timestamp()
    except ValueError:
        return None
