"""A real SLURM cluster on this machine for the tests of sweeps; tests that need it are skipped where SLURM is missing."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from data_prep.token_store import TokenStore
from repeat_study.config.resources import Resources
from repeat_study.config.run import Run
from repeat_study.records.json_lines import last_row
from repeat_study.records.outcome import Outcome
from repeat_study.records.run_directory import RunDirectory
from repeat_study.training.trainer import train
from slurm import client, sweep
from slurm.allocation import Allocation
from slurm.dev_cluster import DevCluster, missing_programs
from slurm.status import RunState, run_states
from slurm.submissions import Submission, read_submissions
from tests.waiting import PATIENCE, wait_until

HELD = {"hold": True}  # sbatch --hold: the job waits until it is released


def require_slurm() -> None:
    """Skip the test if SLURM is not installed; fail it instead if REPEAT_STUDY_REQUIRE_SLURM is 1."""
    if missing := missing_programs():
        reason = f"no SLURM on this machine ({', '.join(missing)} not found)"
        if os.environ.get("REPEAT_STUDY_REQUIRE_SLURM") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


@contextmanager
def cluster_folder() -> Iterator[Path]:
    """A folder with a short path, because the paths of pytest are too long for SLURM's sockets."""
    require_slurm()
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    try:
        yield folder / "cluster"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def session_cluster() -> Iterator[DevCluster]:
    """A cluster of two nodes that all tests of a process share."""
    with cluster_folder() as folder:
        cluster = DevCluster(folder)
        try:
            # Arrays are small, so that a sweep of 20 runs needs three. One node has room for the jobs of both.
            cluster.start(max_array_size=8, cpus_per_node=3)
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture
def cluster(session_cluster: DevCluster, monkeypatch: pytest.MonkeyPatch) -> DevCluster:
    """The shared cluster, with an empty queue. All SLURM commands of the test use it."""
    monkeypatch.setenv("SLURM_CONF", str(session_cluster.conf))
    monkeypatch.setattr(client, "CLIENT_TIMEOUT", PATIENCE)
    client.run_client("scancel", f"--user={os.getuid()}")
    wait_until(lambda: not client.queued_jobs())
    return session_cluster


def submit(
    runs: list[Run], store: TokenStore, folder: Path, **allocation: object
) -> tuple[Submission | None, list[str]]:
    """Submit runs with these keys of the [slurm] table. Returns the submission and the console lines."""
    lines: list[str] = []
    resources = Resources(processes_per_run=int(str(allocation.get("nodes", 1))))
    table = Allocation.model_validate({"time": "10", **allocation})
    return sweep.submit(sweep.Sweep(runs, store, folder, table, resources), lines.append), lines


def states(runs: list[Run], folder: Path) -> dict[str, RunState]:
    """The state of each run, by name."""
    submissions, queue = read_submissions(folder), client.queued_jobs()
    return {state.run.name: state for state in run_states(runs, folder, submissions, queue, 600)}


def metrics(folder: Path, run: Run) -> bytes:
    return RunDirectory(folder / run.name).metrics.read_bytes()


def train_in_this_process(runs: list[Run], store: TokenStore, folder: Path) -> None:
    """Train reference runs without SLURM, in this process because it has already imported torch."""
    for run in runs:
        assert train(run, store, folder) is Outcome.DONE


def wait_until_saved(cluster: DevCluster, job: str) -> None:
    """Wait until slurmctld, which saves changes within 5 s, has saved its state. If killed before, it would forget the job."""
    saved = cluster.folder / "state" / "job_state"
    before = saved.stat().st_mtime_ns if saved.exists() else 0
    change = ["scontrol", "update", f"JobId={job}", "Comment=changed"]
    subprocess.run(change, env=os.environ | cluster.environment, check=True, capture_output=True)
    wait_until(lambda: saved.exists() and saved.stat().st_mtime_ns > before)


@contextmanager
def no_job_starts(partition: str = "main") -> Iterator[None]:
    """Jobs that are submitted while the context is open wait until it closes."""
    client.run_client("scontrol", "update", f"PartitionName={partition}", "State=DOWN")
    try:
        yield
    finally:
        client.run_client("scontrol", "update", f"PartitionName={partition}", "State=UP")


def suspend_while_training(directories: list[RunDirectory]) -> list[psutil.Process]:
    """Suspend the process of each run as soon as it has trained a few steps, so that none ends before a test acts on it.

    Returns the processes in the order of the directories. A signal from SLURM also resumes a process.
    """
    suspended: dict[Path, psutil.Process] = {}

    def all_suspended() -> bool:
        for directory in directories:
            if directory.path not in suspended and (row := last_row(directory.metrics)) and row["step"]:
                (suspended[directory.path],) = training_processes(directory)
                suspended[directory.path].suspend()
        return len(suspended) == len(directories)

    wait_until(all_suspended)
    return [suspended[directory.path] for directory in directories]


def training_processes(directory: RunDirectory) -> Iterator[psutil.Process]:
    """Processes that have the lock file of a run directory open."""
    for process in psutil.process_iter():
        try:
            if str(directory.lock) in (file.path for file in process.open_files()):
                yield process
        except psutil.Error:
            continue
