"""What is asked of SLURM's own programs. Each call has a time limit: they wait for minutes where no slurmctld answers.

Only squeue, scontrol and scancel are used, so that a cluster without accounting, which has no sacct, is a cluster too.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from data_prep.errors import InputError

PATIENCE = 8.0  # seconds; a busy slurmctld answers within a few
# Of a user's environment, these change what the programs list and how: a job left out would be submitted again.
_FILTERS = ("SQUEUE_", "SCANCEL_", "SCONTROL_", "SLURM_TIME_FORMAT")


@dataclass(frozen=True)
class Queued:
    """A job that is in the queue: waiting, running, or on its way out."""

    job: str  # as people write it: 17, or 17_3 in an array
    state: str  # SLURM's word: PENDING, RUNNING, COMPLETING, ...
    reason: str  # why it waits
    started: float | None  # seconds since the epoch, of the present stay on a node

    @property
    def leaving(self) -> bool:
        """Whether its processes are being ended; it may be on its way back to the queue."""
        return self.state == "COMPLETING"

    @property
    def on_a_node(self) -> bool:
        """Whether it has nodes now."""
        return self.state not in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")


def ask(*command: str) -> str:
    """What one of SLURM's programs prints.

    Raises InputError when it is not installed, does not answer, or refuses.
    """
    program = command[0]
    if not shutil.which(program):
        raise InputError(f"{program}: not found on the PATH; accepted is a machine from which SLURM jobs are submitted")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(_FILTERS)}
    try:
        found = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=PATIENCE, env=plain)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{program}: the cluster does not answer (waited {PATIENCE:g} s)") from error
    if found.returncode:
        raise InputError(f"{program}: {first_complaint(found.stderr)}")
    return found.stdout


def first_complaint(stderr: str) -> str:
    """The line of an error message that says most, without the name of the program that every line begins with: what
    is fatal, else the first."""
    lines = [line for line in stderr.splitlines() if line.strip()] or ["refused without a word"]
    line = next((line for line in lines if ": fatal: " in line), lines[0])
    return re.sub(r"^\w+: (error|fatal): ", "", line)


def max_array_size() -> int:
    """Elements that one array may have here; also finds out whether the cluster answers."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"), re.MULTILINE)
    if not found or int(found[1]) < 1:
        raise InputError("scontrol: this cluster's MaxArraySize allows no arrays")
    return int(found[1])


def check_partition(name: str) -> None:
    """Raises InputError where the cluster has no such partition."""
    there = re.findall(r"PartitionName=(\S+)", ask("scontrol", "show", "partition", "--all", "--oneliner"))
    for wanted in name.split(","):
        if wanted not in there:
            raise InputError(f"slurm.partition: no {wanted!r} on this cluster; accepted are {', '.join(sorted(there))}")


def queue() -> dict[tuple[str, int], Queued]:
    """This user's jobs in the queue, by name and index in their array; 0 is the index of a job that is no array."""
    jobs = {}
    listed = ask("squeue", "--noheader", "--all", "--array", f"--user={os.getuid()}", "--format=%i|%K|%T|%r|%S|%j")
    for line in listed.split("\n"):
        fields = line.split("|", 5)
        if len(fields) == 6:  # a job's name may hold anything, a line break too
            job, index, state, reason, started, name = fields
            jobs[name, int(index) if index.isdigit() else 0] = Queued(job, state, reason, _seconds(started))
    return jobs


def cancel(jobs: Sequence[str]) -> None:
    """End jobs, waiting or running; one that has left the queue meanwhile is no error."""
    for first in range(0, len(jobs), 500):
        ask("scancel", "--quiet", *jobs[first : first + 500])


def _seconds(time: str) -> float | None:
    try:
        return datetime.fromisoformat(time).timestamp()
    except ValueError:
        return None
