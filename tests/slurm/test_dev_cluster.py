"""The development cluster runs, requeues and remembers jobs, and leaves nothing behind."""

import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from data_prep.errors import InputError
from slurm.dev_cluster import DevCluster, missing_programs
from tests.slurm.conftest import cluster_folder, require_slurm, wait_until_saved
from tests.waiting import PATIENCE, wait_until


@pytest.fixture(scope="module")
def module_cluster() -> Iterator[DevCluster]:
    with cluster_folder() as folder:
        cluster = DevCluster(folder)
        try:
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture
def cluster(module_cluster: DevCluster) -> DevCluster:
    """This module's cluster, started again if a test has stopped it."""
    if not module_cluster.running():
        module_cluster.start()
    return module_cluster


def client(cluster: DevCluster, command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | cluster.environment
    return subprocess.run(shlex.split(command), env=environment, capture_output=True, text=True, timeout=PATIENCE)


def submit(cluster: DevCluster, script: str, options: str = "") -> tuple[str, Path]:
    """Submit a job. Returns its id and its output file, to which the job also appends after a requeue."""
    path = cluster.folder / "job.sh"
    path.write_text(f"#!/bin/bash\n{script}\n")
    output = cluster.folder / "job-%j.out"
    done = client(cluster, f"sbatch --parsable --open-mode=append --output={output} {options} {path}")
    assert done.returncode == 0, done.stderr
    job = done.stdout.strip()
    return job, Path(str(output).replace("%j", job))


def state(cluster: DevCluster, job: str) -> str:
    return client(cluster, f"squeue --noheader --states=all --jobs={job} --format=%T").stdout.strip()


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def processes_of(cluster: DevCluster) -> list[str]:
    """Command lines of the cluster's daemons and of all processes of its jobs."""
    lines = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
            if str(cluster.folder) in line or process.environ().get("SLURM_CONF") == str(cluster.conf):
                lines.append(line)
        except psutil.Error:
            continue
    return lines


def test_a_job_runs_to_its_end_and_submits_another(cluster: DevCluster) -> None:
    job, output = submit(cluster, "echo $SLURM_JOB_ID $SLURMD_NODENAME; sbatch --output=/dev/null --wrap=true", "-w n2")
    wait_until(lambda: state(cluster, job) == "COMPLETED")
    assert text(output).splitlines() == [f"{job} n2", f"Submitted batch job {int(job) + 1}"]
    wait_until(lambda: state(cluster, str(int(job) + 1)) == "COMPLETED")


def test_a_second_start_is_refused_without_harm(cluster: DevCluster) -> None:
    with pytest.raises(InputError, match="already running"):
        cluster.start()
    assert cluster.running()


def test_two_gpus_of_a_node_are_granted_and_three_refused(cluster: DevCluster) -> None:
    granted = client(cluster, "srun --gpus-per-node=2 printenv SLURM_GPUS_ON_NODE")
    assert granted.stdout == "2\n"
    refused = client(cluster, "srun --gpus-per-node=3 true")
    assert refused.returncode != 0 and "not available" in refused.stderr


@pytest.mark.slow
def test_an_urgent_job_preempts_a_main_job_which_is_requeued(cluster: DevCluster) -> None:
    script = "trap 'echo signal; scontrol requeue $SLURM_JOB_ID' USR1; echo start ${SLURM_RESTART_COUNT-0}; sleep 600 & wait; wait"
    preempted, output = submit(cluster, script, "-p main -w n1 -c 2 --signal=B:USR1@60")
    wait_until(lambda: "start 0" in text(output))
    urgent, _ = submit(cluster, "true", "-p urgent -w n1 -c 2")
    wait_until(lambda: state(cluster, urgent) == "COMPLETED")
    wait_until(lambda: "start 1" in text(output))
    assert state(cluster, preempted) == "RUNNING"
    assert "signal" in text(output), "without the signal, SLURM kills the job after the grace time"


def test_stop_leaves_no_process_and_job_ids_never_repeat(cluster: DevCluster) -> None:
    stubborn = "trap '' TERM; setsid sleep 601 & env -i /bin/sleep 602 & echo started; while :; do sleep 1; done"
    first, output = submit(cluster, stubborn)
    wait_until(lambda: "started" in text(output))
    cluster.stop()
    assert not processes_of(cluster) and not cluster.running()
    cluster.stop()
    cluster.start()
    assert state(cluster, first) == "CANCELLED"
    assert int(submit(cluster, "true")[0]) > int(first)


def test_stop_ends_jobs_that_outlived_their_daemons(cluster: DevCluster) -> None:
    _, output = submit(cluster, "echo started; exec sleep 603")
    wait_until(lambda: "started" in text(output))
    for daemon in ("slurmctld", "n1", "n2", "munged"):
        cluster.kill_daemon(daemon)
    assert not cluster.running() and any("sleep 603" in line for line in processes_of(cluster))
    cluster.stop()
    assert not processes_of(cluster)


def test_two_clusters_run_side_by_side(cluster: DevCluster) -> None:
    with cluster_folder() as folder:
        other = DevCluster(folder)
        try:
            other.start(max_array_size=11, cpus_per_node=3)
            assert client(other, "sbatch --array=0-11 --wrap=true").returncode != 0
            assert client(other, "srun --nodes=1 --ntasks=3 hostname").stdout.count("\n") == 3
            assert client(cluster, "srun --nodes=1 --ntasks=3 true").returncode != 0, "two cores per node"
        finally:
            other.stop()
    assert cluster.running() and not processes_of(other)


@pytest.mark.slow
def test_a_restarted_slurmctld_remembers_its_jobs(cluster: DevCluster) -> None:
    job, output = submit(cluster, "echo started; exec sleep 600")
    wait_until(lambda: "started" in text(output))
    wait_until_saved(cluster, job)
    cluster.kill_daemon("slurmctld")
    assert cluster.running()
    cluster.start_daemon("slurmctld")
    assert state(cluster, job) == "RUNNING"


def test_a_daemon_that_does_not_start_is_reported_with_the_reason() -> None:
    with (
        cluster_folder() as folder,
        pytest.raises(InputError, match=r"slurmctld did not start; .*slurmctld\.log ends with: .*fatal"),
    ):
        DevCluster(folder).start(max_array_size=-1)
    assert not processes_of(DevCluster(folder))


def test_folders_that_slurm_cannot_use_are_refused(tmp_path: Path) -> None:
    require_slurm()
    (tmp_path / "file").touch()
    for name, reason in (("x" * 80, "too long"), ("a b", "accepts only letters"), ("file", "cannot be created")):
        with pytest.raises(InputError, match=reason):
            DevCluster(tmp_path / name).start()


def test_missing_programs_are_reported_with_the_command_that_installs_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", "")
    assert "sbatch" in missing_programs()
    with pytest.raises(InputError, match=r"missing: .*sbatch.*apt-get install .*slurm-client munge$"):
        DevCluster(tmp_path / "cluster").start()
    assert not (tmp_path / "cluster").exists()
