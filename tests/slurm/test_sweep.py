"""Sweeps on a real SLURM: what is submitted, what is not, and what people are told of it."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.config.resources import Resources
from repeat_study.config.run import Run
from repeat_study.local.scheduler import LocalScheduler
from repeat_study.records.json_lines import last_row
from repeat_study.records.outcome import Outcome
from repeat_study.records.run_directory import RunDirectory, Status
from slurm import client
from slurm.allocation import Allocation
from slurm.arrays import split_parallelism
from slurm.cancel import cancel
from slurm.dev_cluster import DevCluster
from slurm.status import RunState, State, run_states
from slurm.submissions import Submission, read_submissions
from slurm.sweep import Sweep
from slurm.sweep import submit as submit_sweep
from tests.slurm.conftest import require_slurm, wait_until

HELD = {"hold": True}  # sbatch --hold: a job that waits until it is released


def submit(runs: list[Run], store: TokenStore, folder: Path, **asked: object) -> tuple[Submission | None, list[str]]:
    said: list[str] = []
    allocation = Allocation.model_validate({"time": "10", **asked})
    resources = Resources(processes_per_run=int(str(asked.get("nodes", 1))))
    return submit_sweep(Sweep(runs, store, folder, allocation, resources), said.append), said


def states(runs: list[Run], folder: Path) -> dict[str, RunState]:
    found = run_states(runs, folder, read_submissions(folder), client.queued_jobs(), 600)
    return {standing.run.name: standing for standing in found}


def metrics(folder: Path, run: Run) -> bytes:
    return RunDirectory(folder / run.name).metrics.read_bytes()


def test_an_array_ends_as_the_local_pool_does_and_no_run_is_submitted_twice(
    cluster: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    grid = [run.model_copy(update={"seed": seed}) for run in runs for seed in (0, 1)]
    diverging = runs[0].model_copy(update={"learning_rate": 1e30, "gradient_clip": 1e30})
    everything = [diverging, *grid]
    submission, said = submit(everything, store, tmp_path / "swept", array_parallelism=2)
    assert submission and len(submission.arrays) == 1 and said[0] == "13 runs to submit"
    assert submit(everything, store, tmp_path / "swept")[1] == ["0 runs to submit; 13 already in the queue"]

    def done() -> int:
        return sum(RunDirectory(tmp_path / "swept" / run.name).done.is_file() for run in grid)

    wait_until(lambda: done() >= 4, 180)
    halfway, said = submit(everything, store, tmp_path / "swept")
    assert halfway is None and " already in the queue" in said[0] and " done;" in said[0], said
    wait_until(lambda: State.RUNNING in {one.state for one in states(everything, tmp_path / "swept").values()})
    wait_until(lambda: done() == len(grid) and not client.queued_jobs(), 180)
    ended = LocalScheduler(store, tmp_path / "pool", 2, lambda event: None).train(grid)
    assert {end.outcome for end in ended.values()} == {Outcome.DONE}
    assert len(grid) == 12
    for run in grid:
        assert metrics(tmp_path / "swept", run) == metrics(tmp_path / "pool", run), run.label
    failed = states(everything, tmp_path / "swept")[diverging.name]
    assert failed.state is State.FAILED and failed.note.startswith("Diverged: test_loss is nan"), failed
    assert any("Diverged" in line for line in failed.log), failed.log


def test_a_cancelled_run_keeps_its_state_and_goes_on_when_submitted_again(
    cluster: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    run = runs[1].model_copy(update={"model": "4x64", "tokens": 600 * 32 * 8})
    directory = RunDirectory(tmp_path / run.name)
    submission, _ = submit([run, runs[0]], store, tmp_path, extra=HELD)
    assert submission
    source = tmp_path / "sweeps" / submission.source
    (source / "slurm" / "job.py").open("a").write("\nprint('imported from the copy')\n")
    jobs = {name: standing.job_id for name, standing in states([run, runs[0]], tmp_path).items()}
    assert cancel([runs[0].name], tmp_path) == [jobs[runs[0].name]], "one that waits is taken out at once"
    client.run_client("scontrol", "release", jobs[run.name])
    wait_until(lambda: (row := last_row(directory.metrics)) and row["step"] > 1)
    (process,) = (p for p in psutil.process_iter() if str(directory.lock) in {file.path for file in files(p)})
    assert process.cwd() == str(source)
    assert cancel([run.name], tmp_path) == [jobs[run.name]]
    assert [standing.state for standing in states([run, runs[0]], tmp_path).values()] == [State.CANCELLED] * 2
    again, said = submit([run], store, tmp_path)  # while it is still saving its state
    assert again and said[:2] == ["waiting for the jobs of 1 run to leave the queue", "1 run to submit"]
    log = submission.error_logs(run.name)[0]
    assert "imported from the copy" in log.with_suffix(".out").read_text()
    assert log.with_suffix(".out").read_text().endswith("SIGTERM: its state is saved\n")
    wait_until(lambda: directory.status() is Status.DONE)
    assert len(directory.session_rows()) == 2 and directory.session_rows()[1]["step"] > 0


def files(process: psutil.Process) -> list[object]:
    try:
        return list(process.open_files())
    except psutil.Error:
        return []


def test_a_run_outlives_its_time_limit(cluster: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    """A minute is the least that SLURM knows, and it looks at limits every half minute: the process is made to wait for
    the signal, with which SLURM wakes it."""
    run = runs[1].model_copy(update={"model": "2x64", "tokens": 600 * 32 * 8})
    directory = RunDirectory(tmp_path / "swept" / run.name)
    submission, _ = submit([run], store, tmp_path / "swept", time="1", signal_delay_s=50)
    assert submission
    wait_until(lambda: (row := last_row(directory.metrics)) and row["step"])
    (process,) = (p for p in psutil.process_iter() if str(directory.lock) in {file.path for file in files(p)})
    process.suspend()
    wait_until(lambda: directory.status() is Status.DONE, 180)
    starts = [session["step"] for session in directory.session_rows()]
    assert len(starts) > 1 and starts == sorted(set(starts)), starts
    assert "SIGUSR2: its state is saved" in submission.error_logs(run.name)[0].with_suffix(".out").read_text()
    LocalScheduler(store, tmp_path / "pool", 1, lambda event: None).train([run])
    assert metrics(tmp_path / "swept", run) == metrics(tmp_path / "pool", run)


@pytest.mark.parametrize("nodes", [1, 2])
def test_tasks_of_an_array_element_share_its_run(
    nodes: int, cluster: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    shared = runs[: 3 - nodes]
    allocation = Allocation(time="10", nodes=nodes, array_parallelism=1)
    submit_sweep(Sweep(shared, store, tmp_path / "swept", allocation, Resources(processes_per_run=2)), print)
    wait_until(lambda: all(RunDirectory(tmp_path / "swept" / run.name).done.is_file() for run in shared), 120)
    LocalScheduler(store, tmp_path / "alone", 2, lambda event: None).train(shared)
    for run in shared:
        found, wanted = (RunDirectory(tmp_path / where / run.name).rows() for where in ("swept", "alone"))
        assert [row["step"] for row in found] == [row["step"] for row in wanted]
        for one, other in zip(found, wanted, strict=True):
            assert one["test_loss"] == pytest.approx(other["test_loss"], abs=1e-4)
        (session,) = RunDirectory(tmp_path / "swept" / run.name).session_rows()
        assert session["processes"] == 2


@pytest.fixture(scope="module")
def small_arrays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevCluster]:
    """Another cluster, which takes arrays of 8."""
    require_slurm()
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    made = DevCluster(folder / "cluster")
    made.start(max_array_size=8)
    yield made
    made.stop()
    shutil.rmtree(folder, ignore_errors=True)


def many(runs: list[Run]) -> list[Run]:
    return [run.model_copy(update={"seed": seed}) for run in runs for seed in range(4)][:20]


def test_arrays_are_split_at_what_the_cluster_takes(
    small_arrays: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(small_arrays.conf))
    submission, said = submit(many(runs), store, tmp_path, extra=HELD, array_parallelism=4)
    assert submission and [len(array.runs) for array in submission.arrays] == [8, 8, 4]
    assert len(client.queued_jobs()) == 20
    assert submit(many(runs), store, tmp_path)[1] == ["0 runs to submit; 20 already in the queue"]
    limits = [
        client.run_client("scontrol", "show", "job", "--oneliner", f"{array.job_id}_0") for array in submission.arrays
    ]
    assert ["ArrayTaskThrottle=2" in limits[0], *("ArrayTaskThrottle=1" in one for one in limits[1:])] == [True] * 3
    assert len(cancel([run.name for run in many(runs)[3:]], tmp_path)) == 17
    wait_until(lambda: len(client.queued_jobs()) == 3)
    again, said = submit(many(runs), store, tmp_path, extra=HELD)
    assert again and said[0] == "17 runs to submit; 3 already in the queue"
    assert len(client.queued_jobs()) == 20
    cancel(None, tmp_path)


def test_more_arrays_than_runs_at_a_time_wait_for_one_another() -> None:
    assert split_parallelism(None, [8, 8, 4]) == [8, 8, 4]
    assert split_parallelism(8, [8, 8, 4]) == [3, 3, 2]
    assert split_parallelism(2, [8, 8, 4]) == [1, 1, 1]


def test_the_third_of_three_arrays_depends_on_the_first_where_two_runs_may_run(
    small_arrays: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(small_arrays.conf))
    submission, _ = submit(many(runs), store, tmp_path, extra=HELD, array_parallelism=2)
    assert submission
    shown = client.run_client("scontrol", "show", "job", "--oneliner", f"{submission.arrays[2].job_id}_0")
    assert f"Dependency=afterany:{submission.arrays[0].job_id}" in shown
    cancel(None, tmp_path)


def test_a_sweep_may_be_submitted_from_inside_an_allocation(
    small_arrays: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(small_arrays.conf))
    script = tmp_path / "inside.py"
    script.write_text(
        "import sys; from pathlib import Path; from data_prep.token_store import TokenStore\n"
        "from repeat_study.config.resources import Resources; from repeat_study.config.run import Run\n"
        "from slurm.allocation import Allocation; from slurm.sweep import Sweep, submit\n"
        "run = Run.model_validate_json(sys.argv[1], strict=True)\n"
        "asked = Allocation(time='10', extra={'hold': True})\n"
        "submit(Sweep([run], TokenStore(Path(sys.argv[2])), Path(sys.argv[3]), asked, Resources()), print)\n"
    )
    arguments = [runs[0].model_dump_json(), str(store.folder), str(tmp_path / "swept")]
    outer = ["sbatch", "--wait", "--ntasks=2", "--gpus-per-node=2", "--time=3", f"--output={tmp_path}/outer.log"]
    (tmp_path / "outer.sh").write_text(f'#!/bin/bash\n{sys.executable} {script} "$@"\n')
    subprocess.run([*outer, tmp_path / "outer.sh", *arguments], check=True, timeout=60, env={**os.environ})
    (standing,) = states([runs[0]], tmp_path / "swept").values()
    assert standing.state is State.PENDING, (tmp_path / "outer.log").read_text()
    shown = client.run_client("scontrol", "show", "job", "--oneliner", standing.job_id)
    assert " NumTasks=1 " in shown and "gpu" not in shown and "TimeLimit=00:10:00" in shown
    cancel([runs[0].name], tmp_path / "swept")


def test_gpus_are_asked_for_by_node(cluster: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    allocation = Allocation(time="10", gpus_per_node=2, mem_gb=0.5, extra=HELD)
    submission = submit_sweep(Sweep(runs[:1], store, tmp_path, allocation, Resources(processes_per_run=2)), print)
    assert submission
    shown = client.run_client("scontrol", "show", "job", "--oneliner", str(submission.arrays[0].job_id))
    assert submission.resources["accelerator"] == "cuda", "a job whose GPU cannot be used fails"
    assert "TresPerNode=gres:gpu:2" in shown and "MinMemoryNode=512M" in shown and "NumTasks=2" in shown
    cancel(None, tmp_path)


def test_what_sbatch_refuses_leaves_nothing(
    cluster: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"sbatch: .*invalid partition specified: elsewhere"):
        submit(runs, store, tmp_path, partition="elsewhere")
    assert not read_submissions(tmp_path) and not client.queued_jobs()
    assert {path.name.split("-")[0] for path in (tmp_path / "sweeps").iterdir()} == {".lock", "source"}


def test_a_job_that_cannot_begin_is_shown_with_the_end_of_its_log(
    cluster: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    submission, _ = submit(runs[:1], store, tmp_path, setup=["export PYTHONHOME=/nowhere"])
    assert submission
    wait_until(lambda: not client.queued_jobs())
    (standing,) = states(runs[:1], tmp_path).values()
    assert standing.state is State.FAILED
    assert any("ModuleNotFoundError" in line or "init_fs_encoding" in line for line in standing.log), standing.log


def test_what_befalls_one_element_of_an_array_befalls_no_other(
    cluster: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    """The last element to start has, as a job, the number of the whole array."""
    array = [runs[1].model_copy(update={"model": "2x64", "tokens": 1500 * 32 * 8, "seed": seed}) for seed in range(3)]
    submission, _ = submit(array, store, tmp_path, setup=["set -e"])
    assert submission
    directories = [RunDirectory(tmp_path / run.name) for run in array]
    wait_until(lambda: all((row := last_row(one.metrics)) and row["step"] for one in directories))
    cancel([array[0].name], tmp_path)
    (last,) = [
        number for number, one in enumerate(directories) if one.session_rows()[0]["job"] == submission.arrays[0].job_id
    ]
    assert last == 2, "the number of the array is that of its last element"
    (process,) = (p for p in psutil.process_iter() if str(directories[2].lock) in {file.path for file in files(p)})
    process.kill()
    wait_until(lambda: directories[1].done.is_file() and directories[2].done.is_file(), 120)
    wait_until(lambda: not client.queued_jobs())
    assert [len(one.session_rows()) for one in directories] == [1, 1, 2]
    assert directories[0].status() is Status.INTERRUPTED, "cancelled is cancelled"


def fake_sbatch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An sbatch that submits, and whose answer is lost."""
    real = shutil.which("sbatch")
    (folder / "sbatch").write_text(
        f"#!/bin/sh\n{real} \"$@\" >/dev/null\necho 'sbatch: error: Batch job submission failed: Socket timed out' >&2\nexit 1\n"
    )
    (folder / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_jobs_of_a_submission_whose_answer_is_lost_are_not_submitted_twice(
    small_arrays: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(small_arrays.conf))
    with monkeypatch.context() as patched:
        (tmp_path / "bin").mkdir()
        fake_sbatch(tmp_path / "bin", patched)
        with pytest.raises(InputError, match="sbatch: Batch job submission failed: Socket timed out"):
            submit(runs[:4], store, tmp_path, extra=HELD)
    assert len(client.queued_jobs()) == 4
    assert {one.state for one in states(runs[:4], tmp_path).values()} == {State.PENDING}
    assert all(one.job_id for one in states(runs[:4], tmp_path).values()), "they are known by their array's name"
    again, said = submit(runs[:4], store, tmp_path, extra=HELD)
    assert again and said[-2] == "4 runs to submit", "what cannot run without its pickle is taken out first"
    assert len(client.queued_jobs()) == 4
    monkeypatch.setenv("SQUEUE_PARTITION", "urgent")
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    assert submit(runs[:4], store, tmp_path)[1] == ["0 runs to submit; 4 already in the queue"]
    again.arrays[0].job_id = None  # killed before it could write down sbatch's answer
    again.write()
    assert submit(runs[:4], store, tmp_path)[1] == ["0 runs to submit; 4 already in the queue"]
    assert read_submissions(tmp_path)[-1].arrays[0].job_id, "and now it is written down"
    assert len(cancel(None, tmp_path)) == 4


def test_other_jobs_of_the_user_may_be_called_anything(
    small_arrays: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(small_arrays.conf))
    for name in (b"\xff\xfe", b"two\nlines", b"a|b"):
        subprocess.run(["sbatch", "--hold", "-J", name, "--output=/dev/null", "--wrap", "true"], check=True)
    submit(runs[:2], store, tmp_path, extra=HELD)
    assert {one.state for one in states(runs[:2], tmp_path).values()} == {State.PENDING}
    assert submit(runs[:2], store, tmp_path)[1] == ["0 runs to submit; 2 already in the queue"]
    cancel(None, tmp_path)
    assert len(client.queued_jobs()) >= 2, "theirs stay"
    subprocess.run(["scancel", "--user=root" if os.getuid() == 0 else f"--user={os.getuid()}"], check=True)


def test_a_folder_that_slurm_would_take_for_a_pattern_is_refused(
    cluster: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="SLURM takes % in a path for a pattern"):
        submit(runs, store, tmp_path / "a%j")


def test_a_job_with_a_bundle_is_requeued_and_ends_as_the_runs_alone(
    cluster: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    longer = {"tokens": 600 * 32 * 8, "model": "2x32"}
    grid = [run.model_copy(update=longer | {"seed": seed}) for run in runs[:2] for seed in (0, 1)]
    diverging = grid[0].model_copy(update={"seed": 9, "learning_rate": 1e30, "gradient_clip": 1e30})
    said: list[str] = []
    allocation, resources = Allocation.model_validate({"time": "10"}), Resources(lanes=5)
    everything, folder = [*grid, diverging], tmp_path / "swept"
    sweep = Sweep(everything, store, folder, allocation, resources)
    submission = submit_sweep(sweep, said.append)
    assert submission and said[1].endswith(": 5 runs in 1 bundle"), said
    assert submit_sweep(sweep, said.append) is None
    directories = [RunDirectory(folder / run.name) for run in grid]
    wait_until(lambda: (row := last_row(directories[0].metrics)) and row["step"] > 30)
    shown = states(everything, folder)
    assert {shown[run.name].state for run in grid} == {State.RUNNING} and len(
        {one.job_id for one in shown.values()}
    ) == 1
    client.run_client("scontrol", "requeue", shown[grid[0].name].job_id)
    wait_until(lambda: all(directory.done.is_file() for directory in directories) and not client.queued_jobs(), 180)
    assert all(len(directory.session_rows()) > 1 for directory in directories)
    shown = states(everything, folder)
    assert shown[diverging.name].state is State.FAILED and "Diverged" in shown[diverging.name].note
    LocalScheduler(store, tmp_path / "pool", 2, lambda event: None).train(grid)
    for run in grid:
        assert metrics(folder, run) == metrics(tmp_path / "pool", run), run.label
    told = submission.error_logs(grid[0].name)[0].with_suffix(".out").read_text()
    assert f"{grid[0].name}: step " in told and f"{grid[0].label}: done" in told
