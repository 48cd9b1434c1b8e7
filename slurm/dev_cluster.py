"""A SLURM cluster of two nodes on this machine, for trials and tests. All its files are in one folder; it needs no root."""

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
CLIENT_TIMEOUT = 5.0  # seconds; a client otherwise tries for 9 s to reach a slurmctld that is down
START_TIMEOUT = 20.0  # seconds; measured: 0.2 s
# Looks, 0.05 s apart, that must miss a daemon before it counts as dead: while it forks into the background, one look can.
LOOKS_UNTIL_DEAD = 10


def missing_programs() -> list[str]:
    """SLURM and munge programs that are neither on the PATH nor in the sbin folders, which a user's PATH may lack."""
    return [name for name in PROGRAMS if not _find_program(name)]


@dataclass(frozen=True)
class DevCluster:
    """A cluster in a folder: slurmctld, nodes n1 and n2, partitions main and urgent, two pretended GPUs per node.

    Jobs in `urgent` preempt jobs in `main`, which are requeued. The folder belongs to one user, and only that user can
    submit jobs. Stopping cancels the jobs but keeps them listed, so that job ids never repeat.
    """

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", self.folder.resolve())

    @property
    def conf(self) -> Path:
        """The slurm.conf of clients and daemons."""
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that make sbatch and the other clients use this cluster."""
        return {"SLURM_CONF": str(self.conf)}

    def start(self, max_array_size: int = 1001, cpus_per_node: int = 2) -> None:
        """Start all daemons and return when both nodes are idle.

        Each node offers `cpus_per_node` CPUs and half of the machine's memory; nothing enforces these limits.
        Raises InputError, and leaves no process behind, if programs are missing, the folder cannot be used, the cluster is
        already running or a daemon does not start.
        """
        if missing := missing_programs():
            raise InputError(f"SLURM is incomplete on this machine, without {', '.join(missing)}; on Debian: {INSTALL}")
        make_folder(self.folder)
        with exclusive_lock(self.folder / "lock", wait=True):
            if self.running():
                raise InputError(f"{self.folder}: the cluster is already running; stop it first")
            self._end_everything()  # jobs can outlive daemons that were killed
            write_configuration(self.folder, max_array_size, cpus_per_node)
            try:
                self.start_daemon("munged")
                self.start_daemon("slurmctld")
                self._cancel_jobs()  # a stop cannot do this if slurmctld was killed before
                for name in NODES:
                    self.start_daemon(name)
                states = ("sinfo", "-h", "-N", "-p", "main", "-o", "%t")
                self._wait_for(lambda: self._run(*states).split() == ["idle", "idle"], *DAEMONS)
            except BaseException:
                self._end_everything()
                raise

    def stop(self) -> None:
        """Cancel all jobs and end every process of the cluster and its jobs; does nothing if it is already stopped.

        Jobs get no time to save anything. Logs and the list of jobs remain. Raises InputError if a process does not end.
        """
        if not self.running() and not job_processes(self.folder):
            return
        with exclusive_lock(self.folder / "lock", wait=True):
            if self._daemon("slurmctld"):
                self._cancel_jobs()
            self._end_everything()

    def running(self) -> bool:
        """Whether any daemon of this cluster is alive."""
        return any(self._daemon(name) for name in DAEMONS)

    def kill_daemon(self, name: str) -> None:
        """Kill slurmctld, n1 or n2 (the slurmd of that node) with SIGKILL, like a crash. Jobs keep running.

        slurmctld saves its jobs every 5 s, as on any cluster. After a crash it has forgotten a job that was submitted just
        before, believes for two more minutes that a requeued job still runs, and holds a job that it had just started and
        drains its node.
        """
        end_processes(partial(self._daemon, name), signal.SIGKILL)

    def stop_daemon(self, name: str) -> None:
        """Stop slurmctld, n1 or n2 with SIGTERM, as for an upgrade: slurmctld saves its state, jobs keep running."""
        end_processes(partial(self._daemon, name), signal.SIGTERM)

    def start_daemon(self, name: str) -> None:
        """Start slurmctld, n1 or n2 again; returns once slurmctld answers, or slurmd is in the background.

        A killed and restarted slurmctld takes up to 5 s longer to use its nodes again.
        """
        if self._daemon(name):
            raise InputError(f"{self.folder}: {name} is already running")
        self._run(*daemon_command(self.folder, name), log=name)
        self._wait_for(lambda: name != "slurmctld" or " UP" in self._run("scontrol", "ping"), name)

    def _daemon(self, name: str) -> list[int]:
        return daemon_processes(self.folder, name)

    def _run(self, program: str, *arguments: str, log: str = "") -> str:
        """A client's output, empty if it takes too long. With `log`, start a daemon that writes there."""
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("SLURM")
        }  # of an outer job
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
            dead = [name for name in daemons if misses[name] >= LOOKS_UNTIL_DEAD]
            if dead or time.monotonic() > deadline:
                name = (dead or daemons)[0]
                log = self.folder / f"{name}.log"
                log_end = log.read_text(errors="replace").splitlines()[-2:]
                raise InputError(f"{name} did not start; {log} ends with: {' / '.join(log_end)}")
            time.sleep(0.05)

    def _end_everything(self) -> None:
        for name in NODES:  # slurmd would first wait for jobs that ignore SIGTERM
            end_processes(partial(self._daemon, name), signal.SIGKILL)
        end_processes(partial(job_processes, self.folder), signal.SIGKILL)
        for name in ("slurmctld", "munged"):
            end_processes(partial(self._daemon, name), signal.SIGTERM)  # slurmctld saves its state


def _find_program(program: str) -> str:
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin") or ""
