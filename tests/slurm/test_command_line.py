"""The commands for sweeps, with a real SLURM."""

import os
from pathlib import Path

import pytest

from slurm import client
from slurm.dev_cluster import DevCluster
from tests.command import call
from tests.slurm.conftest import wait_until_saved
from tests.waiting import wait_until

A_MINUTE = 60.0  # seconds; on an idle machine, these commands take at most ten


def test_a_sweep_is_submitted_listed_cancelled_and_resumed(cluster: DevCluster, workplace: Path) -> None:
    """Nothing is trained, because all jobs are held."""
    held = ("--set", "slurm.extra={hold=true}")
    swept = call("sweep", "tiny", *held, "--time", "20", "--partition", "main", cwd=workplace)
    assert swept.returncode == 0 and "2 runs to submit" in swept.stdout and "logs: " in swept.stdout, swept.stderr
    again = call("sweep", "tiny", *held, cwd=workplace)
    assert again.returncode == 0 and "0 runs to submit; 2 already in the queue" in again.stdout
    status = call("status", "tiny", cwd=workplace).stdout
    assert "2 pending" in status and status.count("JobHeldUser") == 2, status
    edited = call("status", "tiny", "--set", "training.learning_rate=1e-3", cwd=workplace).stdout
    assert "2 runs in the queue that the study no longer declares" in edited, edited
    cancelled = call("cancel", "tiny", "1x16-clean-s0", cwd=workplace)
    assert "cancelled jobs: 1" in cancelled.stdout, cancelled.stderr
    assert "1 pending, 1 cancelled" in call("status", "tiny", cwd=workplace).stdout
    resumed = call("resume", "tiny", *held, "--set", "slurm.account=lab", cwd=workplace)
    assert "1 run to submit; 1 already in the queue" in resumed.stdout, resumed.stderr
    jobs = [client.run_client("scontrol", "show", "job", "-o", job.job_id) for job in client.queued_jobs().values()]
    assert all("TimeLimit=00:20:00" in job and "Partition=main" in job for job in jobs), (
        "options of the first submission"
    )
    assert sum("Account=lab" in job for job in jobs) == 1, "option of the second submission"
    assert "cancelled jobs: 2" in call("cancel", "tiny", "--all", cwd=workplace).stdout
    wait_until(lambda: not client.queued_jobs())


@pytest.mark.slow
def test_a_sweep_on_this_machine_needs_no_cluster_and_has_the_same_results(workplace: Path) -> None:
    for cluster in ("local", "debug"):
        done = call("sweep", "tiny", "--cluster", cluster, "--runs-dir", cluster, "--processes", 1, cwd=workplace)
        assert done.returncode == 0 and done.stdout.count(": done\n") == 2, done.stdout
    for path in (workplace / "local/tiny").glob("*/metrics.jsonl"):
        assert path.read_bytes() == (workplace / "debug/tiny" / path.parent.name / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_children_wait_for_their_parents_and_report_a_missing_one(cluster: DevCluster, with_child: Path) -> None:
    def jobs() -> dict[str, str]:
        return {job.job_id: job.reason for job in client.queued_jobs().values()}

    held = ("--set", "parent.slurm.extra={hold=true}")
    swept = call("sweep", "child", *held, cwd=with_child)
    assert "parent runs in study tiny:\n2 runs to submit" in swept.stdout, swept.stderr
    assert "2 runs, waiting for 2 parent jobs" in swept.stdout
    again = call("sweep", "child", *held, cwd=with_child).stdout
    assert again.count("0 runs to submit") == 2, again
    worst = call("sweep", "child", *held, "--set", "grid.0.parent='worst'", cwd=with_child)
    assert worst.returncode == 0 and "1 more run not known yet: grid.0.parent: worst depends on" in worst.stdout
    wait_until(lambda: len(list(with_child.glob("runs/child/*/done.json"))) == 1)  # the run that starts from scratch
    wait_until(lambda: len(jobs()) == 4)
    assert sorted(jobs().values()) == ["Dependency"] * 2 + ["JobHeldUser"] * 2
    assert "cancelled jobs: 1" in call("cancel", "tiny", "1x16-clean-s0", cwd=with_child).stdout
    client.run_client("scontrol", "release", next(job for job, reason in jobs().items() if reason == "JobHeldUser"))
    wait_until(lambda: not jobs())
    status = call("status", "child", cwd=with_child).stdout
    assert "2 done, 1 failed" in status and "the parent of 1x16-from-clean-s0 is not finished (pending)" in status, (
        status
    )
    assert "Traceback" not in status, "a job also reports bad input in one line"
    resumed = call("resume", "child", cwd=with_child)
    assert resumed.stdout.count("1 run to submit") == 2, resumed.stderr
    assert "1 run, waiting for 1 parent job" in resumed.stdout
    wait_until(lambda: not jobs())
    assert "3 done" in call("status", "child", cwd=with_child).stdout
    local = call("run", "child", "--runs-dir", "local", "--processes", 1, cwd=with_child)
    assert local.returncode == 0, local.stderr
    for path in (with_child / "runs").glob("*/*/metrics.jsonl"):
        assert path.read_bytes() == (with_child / "local" / path.relative_to(with_child / "runs")).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--partition", "gpu"), "slurm.partition: no partition 'gpu' on this cluster; expected main, urgent"),
        (("--set", "slurm.extra={nodelist='n9'}"), "sbatch: Batch job submission failed: Invalid node name specified"),
        (("--runs-dir", "studies/tiny.toml"), "cannot be written: Not a directory"),
    ],
)
def test_a_rejected_submission_is_reported_in_one_line(
    arguments: tuple[str, ...], message: str, cluster: DevCluster, workplace: Path
) -> None:
    refused = call("sweep", "tiny", *arguments, cwd=workplace, timeout=A_MINUTE)
    assert refused.returncode == 2 and message in refused.stderr and refused.stderr.count("\n") == 1, refused.stderr
    assert not client.queued_jobs() and not list(workplace.glob("runs/tiny/sweeps/*/sweep.json"))


@pytest.mark.slow
def test_a_missing_or_silent_slurm_is_reported_in_one_line_without_a_long_wait(
    cluster: DevCluster, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("sweep", "tiny", "--set", "slurm.extra={hold=true}", cwd=workplace)
    wait_until_saved(cluster, next(iter(client.queued_jobs().values())).job_id)
    cluster.kill_daemon("slurmctld")
    try:
        silent = call("resume", "tiny", cwd=workplace, timeout=A_MINUTE)
        assert silent.returncode == 2 and silent.stderr.count("\n") == 1, silent.stderr
        assert "the cluster did not respond" in silent.stderr, silent.stderr
        status = call("status", "tiny", cwd=workplace, timeout=A_MINUTE)
        assert status.returncode == 0 and "2 pending" in status.stdout, status.stderr
        assert "states come from the run directories only" in status.stdout
    finally:
        cluster.start_daemon("slurmctld")
    assert "cancelled jobs: 2" in call("cancel", "tiny", "--all", cwd=workplace).stdout
    monkeypatch.setenv("PATH", os.devnull)
    absent = call("sweep", "tiny", cwd=workplace, timeout=A_MINUTE)
    assert absent.returncode == 2 and "scontrol: not found on the PATH" in absent.stderr
    assert "to train on this machine, use `sweep --cluster local` or `repeat-study run`" in absent.stderr
