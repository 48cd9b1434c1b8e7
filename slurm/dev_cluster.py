"""A throw-away SLURM cluster of two nodes on this machine: everything it is lies under one folder, root or not."""

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from data_prep.errors import InputError
from data_prep.files import exclusive_lock, write_atomically

NODES = ("n1", "n2")
DAEMONS = (*NODES, "slurmctld", "munged")
INSTALL = "apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
CLIENT_TIMEOUT = 5.0  # seconds; a client otherwise tries for 9 s to reach a slurmctld that is down
START_TIMEOUT = 20.0  # seconds; measured: 0.2 s
END_TIMEOUT = 5.0  # seconds until a daemon that was asked to end is killed
PORTS = range(20000, 32768)  # below those that the kernel gives to clients, so that a daemon gets its port again
LONGEST_FOLDER = 107 - len("/n1/n1_67043328.4294967294")  # bytes that Linux allows for a socket, less the one of a step

CONFIGURATION = """\
ClusterName=dev
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser={user}
SlurmdUser={user}
# A requeued job waits until its old credential has expired, and a second: 121 s by default. 5 is the least that is taken.
AuthInfo=socket={folder}/munged.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/%n
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
# No cgroups, which a container may lack.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
# Seconds; with the defaults a job waits up to 60. Backfill comes second, for what it starts slurmctld does not save at once.
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# A preempted job gets the signal it asked for with --signal, as at its time limit.
SlurmctldParameters=preempt_send_user_signal
KillWait=10
SlurmdTimeout=20
ReturnToService=2
# Jobs that ended stay listed for a day: there is no accounting to ask.
MinJobAge=86400
MaxArraySize={max_array_size}
# From the clock: a new cluster that began at 1 would meet the files of an old one's jobs.
FirstJobId={first_job}
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports[1]},{ports[2]}] CPUs={cpus} RealMemory={memory} Gres=gpu:2
PartitionName=DEFAULT Nodes=ALL DefMemPerCPU={cpu_memory} DefaultTime=1-00:00:00 MaxTime=INFINITE
PartitionName=main Default=YES PriorityTier=1 GraceTime=15
PartitionName=urgent PriorityTier=10
"""


def missing_programs() -> list[str]:
    """Programs of SLURM and munge that are neither on the PATH nor where daemons lie, which a user's PATH may lack."""
    return [name for name in PROGRAMS if not _find(name)]


@dataclass(frozen=True)
class DevCluster:
    """A cluster in a folder: slurmctld, nodes n1 and n2, partitions main and urgent, two make-believe GPUs per node.

    Jobs of `urgent` preempt jobs of `main`, which are requeued. The folder belongs to one user, who alone can submit jobs.
    What was submitted before a stop is cancelled but stays listed, so job ids go on and never repeat.
    """

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", self.folder.resolve())

    @property
    def conf(self) -> Path:
        """The slurm.conf that clients and daemons read."""
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """What to add to the environment of sbatch and the other clients, so that they speak to this cluster."""
        return {"SLURM_CONF": str(self.conf)}

    def start(self, max_array_size: int = 1001, cpus_per_node: int = 2) -> None:
        """Start all daemons and return when both nodes are idle.

        The nodes claim the CPUs they are told and half of the machine's memory each; nothing enforces either.
        Raises InputError, and leaves no process, when programs are missing, the folder cannot be used, the cluster runs
        already or a daemon does not come up.
        """
        if missing := missing_programs():
            raise InputError(f"SLURM is not complete here, without {', '.join(missing)}; Debian has it: {INSTALL}")
        self._make_folder()
        with exclusive_lock(self.folder / "lock", wait=True):
            if self.running():
                raise InputError(f"{self.folder}: the cluster runs already; stop it first")
            self._end_everything()  # jobs may have outlived daemons that were killed
            self._write_files(max_array_size, cpus_per_node)
            try:
                self.start_daemon("munged")
                self.start_daemon("slurmctld")
                self._cancel_jobs()  # as a stop could not, where slurmctld was killed before
                for name in NODES:
                    self.start_daemon(name)
                states = ("sinfo", "-h", "-N", "-p", "main", "-o", "%t")
                self._wait_for(lambda: self._run(*states).split() == ["idle", "idle"], *DAEMONS)
            except BaseException:
                self._end_everything()
                raise

    def stop(self) -> None:
        """Cancel all jobs and end every process of the cluster, its jobs' too; what was stopped already stays so.

        Jobs have no time to save anything. Logs and the list of jobs stay. Raises InputError when a process does not end.
        """
        if not self.running() and not self._job_processes():
            return
        with exclusive_lock(self.folder / "lock", wait=True):
            if self._daemon("slurmctld"):
                self._cancel_jobs()
            self._end_everything()

    def running(self) -> bool:
        """Whether any daemon of this cluster is alive."""
        return any(self._daemon(name) for name in DAEMONS)

    def kill_daemon(self, name: str) -> None:
        """Kill slurmctld, n1 or n2 (the slurmd of that node) with SIGKILL, as a crash would; its jobs live on.

        slurmctld saves its jobs every 5 s, as on any SLURM: one submitted just before is forgotten, one that left for the
        queue runs for two minutes more by its books, and one that it started is held and its node drained.
        """
        self._end(partial(self._daemon, name), signal.SIGKILL)

    def stop_daemon(self, name: str) -> None:
        """End slurmctld, n1 or n2 in order, as for an upgrade: slurmctld saves what it knows; jobs live on."""
        self._end(partial(self._daemon, name), signal.SIGTERM)

    def start_daemon(self, name: str) -> None:
        """Start slurmctld, n1 or n2 again; returns once slurmctld answers, or slurmd is in the background.

        A slurmctld that was killed takes up to 5 s more to use its nodes again.
        """
        if self._daemon(name):
            raise InputError(f"{self.folder}: {name} runs already")
        self._run(*self._command(name), log=name)
        self._wait_for(lambda: name != "slurmctld" or " UP" in self._run("scontrol", "ping"), name)

    def _make_folder(self) -> None:
        if not re.fullmatch(r"[\w./+-]+", str(self.folder), re.ASCII):
            raise InputError(f"{self.folder}: slurm.conf can name only folders of letters, digits and . _ + - /")
        if len(str(self.folder)) > LONGEST_FOLDER:
            raise InputError(f"{self.folder}: too long; sockets in it leave room for {LONGEST_FOLDER} characters")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be made: {error.strerror}") from error

    def _write_files(self, max_array_size: int, cpus_per_node: int) -> None:
        key = self.folder / "munged.key"
        write_atomically(key, b"")
        key.chmod(0o600)
        key.write_bytes(os.urandom(1024))
        (self.folder / "state").mkdir(exist_ok=True)
        for gpu in ("gpu0", "gpu1"):  # empty files are enough for SLURM to count and grant them
            (self.folder / gpu).touch()
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20 // len(NODES)
        settings = CONFIGURATION.format(
            folder=self.folder,
            user=os.getuid(),
            host=socket.gethostname().split(".")[0],
            ports=_free_ports(1 + len(NODES)),
            max_array_size=max_array_size,
            first_job=1 + int(time.time()) % 60_000_000,  # ids end at 67,043,328
            cpus=cpus_per_node,
            memory=memory,
            cpu_memory=memory // cpus_per_node,
        )
        write_atomically(self.conf, settings.encode())
        gpus = f"AutoDetect=off\nName=gpu File={self.folder}/gpu[0-1]\n"
        write_atomically(self.folder / "gres.conf", gpus.encode())

    def _command(self, name: str) -> list[str]:
        if name == "munged":
            options = ("key-file", "socket", "pid-file", "log-file", "seed-file")
            # Forced: root's munged otherwise refuses a folder below one that others may write.
            return [name, "--force", *(f"--{o}={self.folder}/munged.{o.removesuffix('-file')}" for o in options)]
        of_conf = ["-f", str(self.conf)]
        return ["slurmctld", *of_conf] if name == "slurmctld" else ["slurmd", *of_conf, "-N", name]

    def _run(self, program: str, *arguments: str, log: str = "") -> str:
        """What a client prints, nothing where it takes too long; with a `log`, a daemon starts and prints there."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}  # an outer SLURM's
        with (self.folder / f"{log or 'clients'}.log").open("a") as errors, suppress(subprocess.TimeoutExpired):
            return subprocess.run(
                [_find(program), *arguments],
                env=inherited | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=errors if log else subprocess.PIPE,
                stderr=errors,
                start_new_session=True,  # Ctrl-C in the caller's terminal reaches no daemon
                text=True,
                timeout=START_TIMEOUT if log else CLIENT_TIMEOUT,
            ).stdout
        return ""

    def _cancel_jobs(self) -> None:
        for partition in ("main", "urgent"):
            self._run("scancel", f"--partition={partition}")

    def _wait_for(self, ready: Callable[[], bool], *daemons: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not all(map(self._daemon, daemons)) or not ready():
            dead = [name for name in daemons if not self._daemon(name)]
            if dead or time.monotonic() > deadline:
                name = (dead or daemons)[0]
                log = self.folder / f"{name}.log"
                end = log.read_text(errors="replace").splitlines()[-2:]
                raise InputError(f"{name} did not come up; {log} ends with: {' / '.join(end)}")
            time.sleep(0.1)

    def _daemon(self, name: str) -> list[int]:
        """Processes of a daemon, by their command lines: a number in an old pid file may be another's by now."""
        command = self._command(name)
        return [pid for pid, (program, *rest) in _command_lines() if [Path(program).name, *rest] == command]

    def _job_processes(self) -> list[int]:
        """Processes of jobs and their steps, and everything that these started."""
        jobs: set[int] = set()
        parents: dict[int, int] = {}
        for pid, _ in _command_lines():
            with suppress(OSError):  # it is gone, or another user's
                parents[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
                if self._is_of_a_job(Path(f"/proc/{pid}")):
                    jobs.add(pid)
        while children := {pid for pid, parent in parents.items() if parent in jobs} - jobs:
            jobs |= children
        return list(jobs)

    def _is_of_a_job(self, process: Path) -> bool:
        environment = (process / "environ").read_bytes().split(b"\0")
        ours = f"SLURM_CONF={self.conf}".encode() in environment
        if (process / "exe").readlink().name.startswith("slurmstepd"):
            # Its title soon overwrites its environment, but it writes the log of its node.
            logs = [self.folder / f"{name}.log" for name in NODES]
            return ours or any(file.resolve() in logs for file in (process / "fd").iterdir())
        return ours and any(variable.startswith(b"SLURMD_NODENAME=") for variable in environment)

    def _end_everything(self) -> None:
        for name in NODES:  # asked to end, slurmd first waits for jobs that ignore SIGTERM
            self._end(partial(self._daemon, name), signal.SIGKILL)
        self._end(self._job_processes, signal.SIGKILL)
        for name in ("slurmctld", "munged"):
            self._end(partial(self._daemon, name), signal.SIGTERM)  # slurmctld saves its state

    def _end(self, find: Callable[[], list[int]], number: signal.Signals) -> None:
        since = time.monotonic()
        while processes := find():
            waited = time.monotonic() - since
            if waited > 2 * END_TIMEOUT:
                raise InputError(f"{self.folder}: processes {processes} do not end")
            for process in processes:
                with suppress(ProcessLookupError):
                    os.kill(process, number if waited < END_TIMEOUT else signal.SIGKILL)
            time.sleep(0.02)


def _command_lines() -> Iterator[tuple[int, list[str]]]:
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):
                if line := (process / "cmdline").read_bytes():  # empty: of the kernel, or dead and not waited for
                    yield int(process.name), os.fsdecode(line).rstrip("\0").split("\0")


def _find(program: str) -> str:
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin") or ""


def _free_ports(count: int) -> list[int]:
    ports = set[int]()
    while len(ports) < count:
        port = random.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            ports.add(port)
    return list(ports)
