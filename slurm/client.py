"""Calls SLURM's client programs: squeue, scontrol and scancel. Each call has a time limit.

Without one, they wait for minutes when no slurmctld answers. sacct is not used: clusters without accounting do not have it.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from data_prep.errors import InputError

CLIENT_TIMEOUT = 8.0  # seconds; a busy slurmctld answers within a few
# These environment variables filter or reformat what the programs list. A job missing from the list would be submitted twice.
_FILTER_VARIABLES = ("SQUEUE_", "SCANCEL_", "SCONTROL_", "SLURM_TIME_FORMAT")


@dataclass(frozen=True)
class QueuedJob:
    """A job in the queue: waiting, running or ending."""

    job_id: str  # as SLURM prints it: 17, or 17_3 in an array
    state: str  # SLURM's name for it: PENDING, RUNNING, COMPLETING, ...
    reason: str  # why it waits
    started: float | None  # when it last started, in seconds since the epoch

    @property
    def ending(self) -> bool:
        """Whether SLURM is ending its processes. It may still be requeued."""
        return self.state == "COMPLETING"

    @property
    def has_nodes(self) -> bool:
        """Whether nodes are allocated to it."""
        return self.state not in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")


Queue = dict[tuple[str, int], QueuedJob]  # by job name and array index


def run_client(*command: str) -> str:
    """Run one of SLURM's programs and return its output.

    Raises InputError if it is not installed, does not answer in time, or returns an error.
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
        raise InputError(f"{program}: the cluster does not answer (waited {CLIENT_TIMEOUT:g} s)") from error
    if completed.returncode:
        raise InputError(f"{program}: {main_error(completed.stderr)}")
    return completed.stdout


def main_error(stderr: str) -> str:
    """The most telling line of a SLURM error message: the fatal one, else the first. The program's name is removed."""
    lines = [line for line in stderr.splitlines() if line.strip()] or ["failed without an error message"]
    line = next((line for line in lines if ": fatal: " in line), lines[0])
    return re.sub(r"^\w+: (error|fatal): ", "", line)


def max_array_size() -> int:
    """The cluster's MaxArraySize. Raises InputError if SLURM is missing, does not answer or allows no arrays."""
    try:
        answer = run_client("scontrol", "show", "config")
    except InputError as error:
        raise InputError(
            f"{error}; to train on this machine, use `sweep --cluster local` or `repeat-study run`"
        ) from error
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", answer, re.MULTILINE)
    if not match or int(match[1]) < 1:
        raise InputError("scontrol: this cluster's MaxArraySize allows no job arrays")
    return int(match[1])


def check_partition(names: str) -> None:
    """Raises InputError if the cluster lacks one of these partitions (comma-separated)."""
    known = re.findall(r"PartitionName=(\S+)", run_client("scontrol", "show", "partition", "--all", "--oneliner"))
    for name in names.split(","):
        if name not in known:
            raise InputError(f"slurm.partition: no {name!r} on this cluster; expected {', '.join(sorted(known))}")


def queued_jobs() -> Queue:
    """This user's jobs in the queue. A job outside an array has index 0."""
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
