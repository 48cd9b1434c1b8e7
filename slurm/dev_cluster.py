"""A SLURM cluster with two nodes on this machine, for testing. It does not need root and keeps all its files in one folder."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from data_prep.errors import InputError
from data_prep.files import exclusive_lock
from slurm.dev_cluster_config import NODES, PARTITIONS, daemon_command, make_folder, write_configuration
from slurm.dev_cluster_processes import daemon_processes, end_processes, job_processes

DAEMONS = (*NODES, "slurmctld", "munged")
INSTALL = "apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
CLIENT_TIMEOUT = 5.0  # seconds; by default, clients retry for 9 s if slurmctld is down
START_TIMEOUT = 60.0  # seconds; starting normally takes 0.2 s
# A daemon is considered dead if this many consecutive checks, 0.05 s apart, do not find it.
# A single check can miss a daemon that is forking into the background.
CHECKS_UNTIL_DEAD = 40


def missing_programs() -> list[str]:
    """Names of the SLURM and munge programs that are neither on the PATH nor in an sbin folder."""
    return [name for name in PROGRAMS if not _find_program(name)]


@dataclass(frozen=True)
class DevCluster:
    """A cluster with nodes n1 and n2, two simulated GPUs per node, and partitions main and urgent.

    Jobs in `urgent` preempt jobs in `main`, which are then requeued. The folder belongs to one user, and only that user
    can submit jobs. Stopping the cluster cancels all jobs but keeps their records, so that job ids are never reused.
    """

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", self.folder.resolve())

    @property
    def conf(self) -> Path:
        """The configuration file that clients and daemons use."""
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that make sbatch and the other clients use this cluster."""
        return {"SLURM_CONF": str(self.conf)}

    def start(self, max_array_size: int = 1001, cpus_per_node: int = 2) -> None:
        """Start all daemons and return when both nodes are idle.

        Each node has `cpus_per_node` CPUs and half of the machine's memory, but these limits are not enforced.
        Raises InputError if programs are missing, the folder cannot be used, the cluster is already running or a daemon
        does not start. A failed start leaves no processes behind.
        """
        if missing := missing_programs():
            raise InputError(f"SLURM programs are missing: {', '.join(missing)}; to install them on Debian: {INSTALL}")
        make_folder(self.folder)
        with exclusive_lock(self.folder / "lock", wait=True):
            if self.running():
                raise InputError(f"{self.folder}: the cluster is already running; stop it first")
            self._end_everything()  # jobs can outlive daemons that were killed
            write_configuration(self.folder, max_array_size, cpus_per_node)
            try:
                self.start_daemon("munged")
                self.start_daemon("slurmctld")
                self._cancel_jobs()  # a previous `stop` could not cancel jobs if slurmctld was down
                for name in NODES:
                    self.start_daemon(name)
                states = ("sinfo", "-h", "-N", "-p", "main", "-o", "%t")
                self._wait_for(lambda: self._run(*states).split() == ["idle", "idle"], *DAEMONS)
            except BaseException:
                self._end_everything()
                raise

    def stop(self) -> bool:
        """Cancel all jobs, and end all processes that belong to the cluster or its jobs. Returns whether there were any.

        Jobs get no time to save their state. Logs and job records are kept. Raises InputError if a process does not exit.
        """
        if not self.running() and not job_processes(self.folder):
            return False
        with exclusive_lock(self.folder / "lock", wait=True):
            if self._daemon("slurmctld"):
                self._cancel_jobs()
            self._end_everything()
        return True

    def running(self) -> bool:
        """Whether any daemon of this cluster is alive."""
        return any(self._daemon(name) for name in DAEMONS)

    def kill_daemon(self, name: str) -> None:
        """Kill slurmctld, munged, or the slurmd of n1 or n2 with SIGKILL, to simulate a crash. Jobs keep running.

        slurmctld saves its state every 5 s, as on any cluster, so a crash loses the most recent changes. A job submitted just
        before a crash is lost. A job requeued just before a crash is considered running for two more minutes. A job started
        just before a crash is held, and its node is drained.
        """
        end_processes(partial(self._daemon, name), signal.SIGKILL)

    def stop_daemon(self, name: str) -> None:
        """Stop a daemon with SIGTERM, as for an upgrade. slurmctld saves its state, and jobs keep running."""
        end_processes(partial(self._daemon, name), signal.SIGTERM)

    def start_daemon(self, name: str) -> None:
        """Start a daemon. Returns once the daemon is running in the background and, if it is slurmctld, responds to clients.

        If slurmctld was killed, the new one may take up to 5 s to start using its nodes.
        """
        if self._daemon(name):
            raise InputError(f"{self.folder}: {name} is already running")
        self._run(*daemon_command(self.folder, name), log=name)
        self._wait_for(lambda: name != "slurmctld" or " UP" in self._run("scontrol", "ping"), name)

    def _daemon(self, name: str) -> list[int]:
        return daemon_processes(self.folder, name)

    def _run(self, program: str, *arguments: str, log: str = "") -> str:
        """Run a client and return its output, or "" after a timeout. With `log`, start a daemon that writes to that log."""
        # Ignore the variables of an enclosing SLURM job.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
        with (self.folder / f"{log or 'clients'}.log").open("a") as errors, suppress(subprocess.TimeoutExpired):
            return subprocess.run(
                [_find_program(program), *arguments],
                env=environment | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=errors if log else subprocess.PIPE,
                stderr=errors,
                start_new_session=True,  # so that Ctrl-C in the caller's terminal does not reach the daemons
                text=True,
                timeout=START_TIMEOUT if log else CLIENT_TIMEOUT,
            ).stdout
        return ""

    def _cancel_jobs(self) -> None:
        for partition in PARTITIONS:
            self._run("scancel", f"--partition={partition}")

    def _wait_for(self, ready: Callable[[], bool], *daemons: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        misses = dict.fromkeys(daemons, 0)
        while True:
            misses = {name: 0 if self._daemon(name) else misses[name] + 1 for name in daemons}
            if not any(misses.values()) and ready():
                return
            dead = [name for name in daemons if misses[name] >= CHECKS_UNTIL_DEAD]
            if dead or time.monotonic() > deadline:
                name = (dead or daemons)[0]
                log = self.folder / f"{name}.log"
                log_end = log.read_text(errors="replace").splitlines()[-2:]
                raise InputError(f"{name} did not start; {log} ends with: {' / '.join(log_end)}")
            time.sleep(0.05)

    def _end_everything(self) -> None:
        for name in NODES:  # SIGTERM would make slurmd wait for jobs that ignore SIGTERM
            end_processes(partial(self._daemon, name), signal.SIGKILL)
        end_processes(partial(job_processes, self.folder), signal.SIGKILL)
        for name in ("slurmctld", "munged"):
            end_processes(partial(self._daemon, name), signal.SIGTERM)  # slurmctld saves its state


def _find_program(program: str) -> str:
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin") or ""
