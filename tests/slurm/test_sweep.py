"""Submissions to a real SLURM. No job in these tests trains anything."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.config.resources import Resources
from repeat_study.config.run import Run
from slurm import client
from slurm.allocation import Allocation
from slurm.arrays import split_parallelism
from slurm.cancel import cancel
from slurm.dev_cluster import DevCluster
from slurm.status import State
from slurm.submissions import read_submissions
from slurm.sweep import Sweep
from slurm.sweep import submit as submit_sweep
from tests.slurm.conftest import HELD, states, submit
from tests.waiting import PATIENCE, wait_until


def twenty(runs: list[Run]) -> list[Run]:
    return [run.model_copy(update={"seed": seed}) for run in runs for seed in range(4)][:20]


def test_arrays_have_at_most_as_many_jobs_as_the_cluster_allows(
    cluster: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    submission, lines = submit(twenty(runs), store, tmp_path, extra=HELD, array_parallelism=4)
    assert submission and [len(array.runs) for array in submission.arrays] == [8, 8, 4]
    assert len(client.queued_jobs()) == 20
    assert submit(twenty(runs), store, tmp_path)[1] == ["0 runs to submit; 20 already in the queue"]
    limits = [
        client.run_client("scontrol", "show", "job", "--oneliner", f"{array.job_id}_0") for array in submission.arrays
    ]
    assert ["ArrayTaskThrottle=2" in limits[0], *("ArrayTaskThrottle=1" in limit for limit in limits[1:])] == [True] * 3
    assert len(cancel([run.name for run in twenty(runs)[3:]], tmp_path)) == 17
    wait_until(lambda: len(client.queued_jobs()) == 3)
    again, lines = submit(twenty(runs), store, tmp_path, extra=HELD)
    assert again and lines[0] == "17 runs to submit; 3 already in the queue"
    assert len(client.queued_jobs()) == 20
    cancel(None, tmp_path)


def test_the_limit_on_parallel_jobs_is_split_among_arrays() -> None:
    assert split_parallelism(None, [8, 8, 4]) == [8, 8, 4]
    assert split_parallelism(8, [8, 8, 4]) == [3, 3, 2]
    assert split_parallelism(2, [8, 8, 4]) == [1, 1, 1]


def test_with_a_limit_of_two_jobs_the_third_array_waits_for_the_first(
    cluster: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    submission, _ = submit(twenty(runs), store, tmp_path, extra=HELD, array_parallelism=2)
    assert submission
    job_record = client.run_client("scontrol", "show", "job", "--oneliner", f"{submission.arrays[2].job_id}_0")
    assert f"Dependency=afterany:{submission.arrays[0].job_id}" in job_record
    cancel(None, tmp_path)


@pytest.mark.slow
def test_a_sweep_can_be_submitted_from_inside_a_job(
    cluster: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    script = tmp_path / "inside.py"
    script.write_text(
        "import sys; from pathlib import Path; from data_prep.token_store import TokenStore\n"
        "from repeat_study.config.resources import Resources; from repeat_study.config.run import Run\n"
        "from slurm.allocation import Allocation; from slurm.sweep import Sweep, submit\n"
        "run = Run.model_validate_json(sys.argv[1], strict=True)\n"
        "allocation = Allocation(time='10', extra={'hold': True})\n"
        "submit(Sweep([run], TokenStore(Path(sys.argv[2])), Path(sys.argv[3]), allocation, Resources()), print)\n"
    )
    arguments = [runs[0].model_dump_json(), str(store.folder), str(tmp_path / "swept")]
    outer = ["sbatch", "--wait", "--ntasks=2", "--gpus-per-node=2", "--time=3", f"--output={tmp_path}/outer.log"]
    (tmp_path / "outer.sh").write_text(f'#!/bin/bash\n{sys.executable} {script} "$@"\n')
    subprocess.run([*outer, tmp_path / "outer.sh", *arguments], check=True, timeout=PATIENCE, env={**os.environ})
    (state,) = states([runs[0]], tmp_path / "swept").values()
    assert state.state is State.PENDING, (tmp_path / "outer.log").read_text()
    job_record = client.run_client("scontrol", "show", "job", "--oneliner", state.job_id)
    assert " NumTasks=1 " in job_record and "gpu" not in job_record and "TimeLimit=00:10:00" in job_record
    cancel([runs[0].name], tmp_path / "swept")


def test_gpus_are_requested_per_node(cluster: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    allocation = Allocation(time="10", gpus_per_node=2, mem_gb=0.5, extra=HELD)
    submission = submit_sweep(Sweep(runs[:1], store, tmp_path, allocation, Resources(processes_per_run=2)), print)
    assert submission
    job_record = client.run_client("scontrol", "show", "job", "--oneliner", str(submission.arrays[0].job_id))
    assert submission.resources["accelerator"] == "cuda", "a job that cannot use its GPU must fail"
    assert "TresPerNode=gres:gpu:2" in job_record and "MinMemoryNode=512M" in job_record and "NumTasks=2" in job_record
    cancel(None, tmp_path)


def test_a_submission_that_sbatch_refuses_leaves_nothing_behind(
    cluster: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"sbatch: .*invalid partition specified: elsewhere"):
        submit(runs, store, tmp_path, partition="elsewhere")
    assert not read_submissions(tmp_path) and not client.queued_jobs()
    assert {path.name.split("-")[0] for path in (tmp_path / "sweeps").iterdir()} == {".lock", "source"}


def fake_sbatch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install an sbatch that submits the job and then fails."""
    real = shutil.which("sbatch")
    (folder / "sbatch").write_text(
        f"#!/bin/sh\n{real} \"$@\" >/dev/null\necho 'sbatch: error: Batch job submission failed: Socket timed out' >&2\nexit 1\n"
    )
    (folder / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_jobs_are_not_submitted_twice_after_sbatch_failed(
    cluster: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        (tmp_path / "bin").mkdir()
        fake_sbatch(tmp_path / "bin", patched)
        with pytest.raises(InputError, match="sbatch: Batch job submission failed: Socket timed out"):
            submit(runs[:4], store, tmp_path, extra=HELD)
    assert len(client.queued_jobs()) == 4
    assert {state.state for state in states(runs[:4], tmp_path).values()} == {State.PENDING}
    assert all(state.job_id for state in states(runs[:4], tmp_path).values()), (
        "jobs are found by the name of their array"
    )
    again, lines = submit(runs[:4], store, tmp_path, extra=HELD)
    assert again and lines[-2] == "4 runs to submit", "jobs without a pickle cannot run and are cancelled first"
    assert len(client.queued_jobs()) == 4
    monkeypatch.setenv("SQUEUE_PARTITION", "urgent")
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    assert submit(runs[:4], store, tmp_path)[1] == ["0 runs to submit; 4 already in the queue"]
    again.arrays[0].job_id = None  # as if killed before it recorded sbatch's answer
    again.write()
    assert submit(runs[:4], store, tmp_path)[1] == ["0 runs to submit; 4 already in the queue"]
    assert read_submissions(tmp_path)[-1].arrays[0].job_id, "now it is recorded"
    assert len(cancel(None, tmp_path)) == 4


def test_other_jobs_of_the_user_can_have_any_name(
    cluster: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    for name in (b"\xff\xfe", b"two\nlines", b"a|b"):
        subprocess.run(["sbatch", "--hold", "-J", name, "--output=/dev/null", "--wrap", "true"], check=True)
    submit(runs[:2], store, tmp_path, extra=HELD)
    assert {state.state for state in states(runs[:2], tmp_path).values()} == {State.PENDING}
    assert submit(runs[:2], store, tmp_path)[1] == ["0 runs to submit; 2 already in the queue"]
    cancel(None, tmp_path)
    assert len(client.queued_jobs()) >= 2, "the other jobs are still there"
    subprocess.run(["scancel", "--user=root" if os.getuid() == 0 else f"--user={os.getuid()}"], check=True)


def test_a_folder_that_slurm_would_read_as_a_pattern_is_refused(
    cluster: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    for name, message in (
        ("a%j", "SLURM interprets % in a path as a pattern"),
        ("a\\b", r"SLURM interprets \\ in a path as an escape"),
    ):
        with pytest.raises(InputError, match=message):
            submit(runs, store, tmp_path / name)
    with pytest.raises(InputError, match="cannot contain control characters"):
        submit(runs, store, tmp_path / "a\nb")
    assert not client.queued_jobs()
