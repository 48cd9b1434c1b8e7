"""Write the development cluster's configuration: slurm.conf, gres.conf and a munge key."""

import os
import random
import re
import socket
import time
from contextlib import suppress
from pathlib import Path

from data_prep.errors import InputError
from data_prep.files import write_atomically

NODES = ("n1", "n2")
PARTITIONS = ("main", "urgent")
PORTS = range(20000, 32768)  # below the kernel's ephemeral ports, so that a restarted daemon finds its port free
# Maximum length of the folder's path in bytes. Linux limits a socket's path to 107 bytes.
# The longest path in the folder is a job step's socket.
MAX_FOLDER_LENGTH = 107 - len("/n1/n1_67043328.4294967294")

SLURM_CONF = """\
ClusterName=dev
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser={user}
SlurmdUser={user}
# A requeued job waits until its old credential has expired, by default for 121 s. The minimum is 5 s.
AuthInfo=socket={folder}/munged.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/%n
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
# Containers may not have cgroups.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
# In seconds; with the defaults, a job waits up to 60 s.
# Backfill runs less often than the main scheduler, because slurmctld does not immediately save the jobs that backfill starts.
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# A preempted job receives the signal that it requested with --signal, as it would before its time limit.
SlurmctldParameters=preempt_send_user_signal
KillWait=10
SlurmdTimeout=20
ReturnToService=2
# Without accounting, finished jobs are listed only until they are purged. Keep them for a day.
MinJobAge=86400
MaxArraySize={max_array_size}
# Derived from the clock. If every cluster started at 1, new jobs would find the files of old jobs with the same ids.
FirstJobId={first_job}
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports[1]},{ports[2]}] CPUs={cpus} RealMemory={memory} Gres=gpu:2
PartitionName=DEFAULT Nodes=ALL DefMemPerCPU={cpu_memory} DefaultTime=1-00:00:00 MaxTime=INFINITE
PartitionName=main Default=YES PriorityTier=1 GraceTime=15
PartitionName=urgent PriorityTier=10
"""


def make_folder(folder: Path) -> None:
    """Create the cluster's folder. Raises InputError if the folder cannot be created or SLURM does not support its path."""
    if not re.fullmatch(r"[\w./+-]+", str(folder), re.ASCII):
        raise InputError(f"{folder}: slurm.conf accepts only letters, digits and . _ + - / in a path")
    if len(str(folder)) > MAX_FOLDER_LENGTH:
        raise InputError(
            f"{folder}: the path is too long for SLURM's sockets; expected at most {MAX_FOLDER_LENGTH} characters"
        )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be created: {error.strerror}") from error


def write_configuration(folder: Path, max_array_size: int, cpus_per_node: int) -> None:
    """Write slurm.conf, gres.conf, a new munge key, and the files that represent GPUs."""
    key = folder / "munged.key"
    write_atomically(key, b"")
    key.chmod(0o600)
    key.write_bytes(os.urandom(1024))
    (folder / "state").mkdir(exist_ok=True)
    for gpu in ("gpu0", "gpu1"):  # SLURM accepts any file as a GPU device
        (folder / gpu).touch()
    write_atomically(folder / "gres.conf", f"AutoDetect=off\nName=gpu File={folder}/gpu[0-1]\n".encode())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20 // len(NODES)
    settings = SLURM_CONF.format(
        folder=folder,
        user=os.getuid(),
        host=socket.gethostname().split(".")[0],
        ports=_free_ports(1 + len(NODES)),
        max_array_size=max_array_size,
        first_job=1 + int(time.time()) % 60_000_000,  # the largest job id is 67,043,328
        cpus=cpus_per_node,
        memory=memory,
        cpu_memory=memory // cpus_per_node,
    )
    write_atomically(folder / "slurm.conf", settings.encode())


def daemon_command(folder: Path, name: str) -> list[str]:
    """The command line of munged, slurmctld or the slurmd of node n1 or n2."""
    if name == "munged":
        options = ("key-file", "socket", "pid-file", "log-file", "seed-file")
        # Without --force, munged refuses to use a folder whose parent is writable by others if root starts it.
        return [name, "--force", *(f"--{o}={folder}/munged.{o.removesuffix('-file')}" for o in options)]
    conf = ["-f", str(folder / "slurm.conf")]
    return ["slurmctld", *conf] if name == "slurmctld" else ["slurmd", *conf, "-N", name]


def _free_ports(count: int) -> list[int]:
    ports = set[int]()
    while len(ports) < count:
        port = random.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            ports.add(port)
    return list(ports)
