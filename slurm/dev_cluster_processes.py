"""Find and end the development cluster's processes: its daemons, its jobs and their child processes."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from data_prep.errors import InputError
from slurm.dev_cluster_config import NODES, daemon_command

END_TIMEOUT = 5.0  # seconds before a process that ignores SIGTERM is killed


def daemon_processes(folder: Path, name: str) -> list[int]:
    """Process ids of a daemon, found by its command line because the id in an old pid file may have been reused."""
    expected = daemon_command(folder, name)
    return [pid for pid, (program, *rest) in _command_lines() if [Path(program).name, *rest] == expected]


def job_processes(folder: Path) -> list[int]:
    """Process ids of all jobs and job steps, and of all their descendants."""
    jobs: set[int] = set()
    parents: dict[int, int] = {}
    for pid, _ in _command_lines():
        with suppress(OSError):  # the process has ended, or belongs to another user
            parents[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            if _belongs_to_a_job(Path(f"/proc/{pid}"), folder):
                jobs.add(pid)
    while children := {pid for pid, parent in parents.items() if parent in jobs} - jobs:
        jobs |= children
    return list(jobs)


def end_processes(find: Callable[[], list[int]], number: signal.Signals) -> None:
    """Send a signal to the processes that `find` returns until none are left. Switch to SIGKILL after END_TIMEOUT.

    Raises InputError if processes remain after twice that time.
    """
    start = time.monotonic()
    while processes := find():
        waited = time.monotonic() - start
        if waited > 2 * END_TIMEOUT:
            raise InputError(f"the cluster's processes {processes} did not exit")
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, number if waited < END_TIMEOUT else signal.SIGKILL)
        time.sleep(0.02)


def _belongs_to_a_job(process: Path, folder: Path) -> bool:
    environment = (process / "environ").read_bytes().split(b"\0")
    uses_cluster = f"SLURM_CONF={folder / 'slurm.conf'}".encode() in environment
    if (process / "exe").readlink().name.startswith("slurmstepd"):
        # slurmstepd soon overwrites its environment with its process title, but it keeps its node's log open.
        logs = [folder / f"{name}.log" for name in NODES]
        return uses_cluster or any(file.resolve() in logs for file in (process / "fd").iterdir())
    return uses_cluster and any(variable.startswith(b"SLURMD_NODENAME=") for variable in environment)


def _command_lines() -> Iterator[tuple[int, list[str]]]:
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):
                if line := (process / "cmdline").read_bytes():  # empty for kernel threads and zombies
                    yield int(process.name), os.fsdecode(line).rstrip("\0").split("\0")
