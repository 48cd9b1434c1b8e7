"""Jobs on a real SLURM train, stop, restart, and end with the same metrics as local runs."""

from pathlib import Path

import pytest

from data_prep.token_store import TokenStore
from repeat_study.config.resources import Resources
from repeat_study.config.run import Run
from repeat_study.local.scheduler import LocalScheduler
from repeat_study.records.outcome import Outcome
from repeat_study.records.run_directory import RunDirectory, Status
from slurm import client
from slurm.allocation import Allocation
from slurm.cancel import cancel
from slurm.dev_cluster import DevCluster
from slurm.status import State
from slurm.sweep import Sweep
from slurm.sweep import submit as submit_sweep
from tests.slurm.conftest import (
    HELD,
    metrics,
    states,
    submit,
    suspend_while_training,
    train_in_this_process,
)
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

# The huge weight decay makes the weights overflow.
DIVERGING = {"learning_rate": 0.9, "gradient_clip": 1e30, "weight_decay": 1e38}


@pytest.mark.usefixtures("preloaded_workers")
def test_an_array_has_the_results_of_local_training_and_no_run_is_submitted_twice(
    cluster: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    diverging, swept, runs = runs[0].model_copy(update=DIVERGING), tmp_path / "swept", runs[1:4]
    runs[-1] = runs[-1].model_copy(update={"model": "2x64", "tokens": 600 * 32 * 8})  # long enough to be suspended
    everything = [diverging, *runs]
    submission, lines = submit(everything, store, swept, array_parallelism=2)
    assert submission and len(submission.arrays) == 1 and lines[0] == "4 runs to submit"
    assert submit(everything, store, swept)[1] == ["0 runs to submit; 4 already in the queue"]

    def done() -> int:
        return sum(RunDirectory(swept / run.name).done.is_file() for run in runs)

    (process,) = suspend_while_training([RunDirectory(swept / runs[-1].name)])
    wait_until(lambda: done() >= 1)
    halfway, lines = submit(runs, store, swept)
    assert halfway is None and " already in the queue" in lines[0] and " done;" in lines[0], lines
    assert states(everything, swept)[runs[-1].name].state is State.RUNNING
    process.resume()
    wait_until(lambda: done() == len(runs) and not client.queued_jobs())
    ended = LocalScheduler(store, tmp_path / "local", 2, lambda event: None).train(runs)
    assert {end.outcome for end in ended.values()} == {Outcome.DONE}
    for run in runs:
        assert metrics(swept, run) == metrics(tmp_path / "local", run), run.label
    failed = states(everything, swept)[diverging.name]
    assert failed.state is State.FAILED and failed.note.startswith("Diverged: test_loss is nan"), failed
    assert any("Diverged" in line for line in failed.log), failed.log


def test_a_cancelled_run_keeps_its_state_and_continues_when_submitted_again(
    cluster: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    run = runs[1].model_copy(update={"model": "4x64", "tokens": 600 * 32 * 8})
    directory = RunDirectory(tmp_path / run.name)
    # The job stays in the queue for five more seconds, so that it is still there when the run is submitted again.
    submission, _ = submit([run, runs[0]], store, tmp_path, extra=HELD, setup=["trap 'sleep 5' EXIT"])
    assert submission
    source = tmp_path / "sweeps" / submission.source
    (source / "slurm" / "job.py").open("a").write("\nprint('imported from the copy')\n")
    jobs = {name: state.job_id for name, state in states([run, runs[0]], tmp_path).items()}
    assert cancel([runs[0].name], tmp_path) == [jobs[runs[0].name]], "a waiting job is cancelled immediately"
    client.run_client("scontrol", "release", jobs[run.name])
    (process,) = suspend_while_training([directory])  # cancelling it resumes it
    assert process.cwd() == str(source)
    assert cancel([run.name], tmp_path) == [jobs[run.name]]
    assert [state.state for state in states([run, runs[0]], tmp_path).values()] == [State.CANCELLED] * 2
    again, lines = submit([run], store, tmp_path)  # while the run is still saving its state
    assert again and lines[:2] == ["waiting for the jobs of 1 run to leave the queue", "1 run to submit"]
    log = submission.error_logs(run.name)[0]
    assert "imported from the copy" in log.with_suffix(".out").read_text()
    assert log.with_suffix(".out").read_text().endswith("SIGTERM received: training stopped and its state is saved\n")
    wait_until(lambda: directory.status() is Status.DONE)
    assert len(directory.session_rows()) == 2 and directory.session_rows()[1]["step"] > 0


def test_a_run_outlives_its_time_limit(cluster: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    """SLURM's shortest time limit is one minute, and SLURM checks it every 30 s. The process is suspended until SLURM's
    signal resumes it."""
    run = runs[1].model_copy(update={"model": "2x64", "tokens": 600 * 32 * 8})
    directory = RunDirectory(tmp_path / "swept" / run.name)
    submission, _ = submit([run], store, tmp_path / "swept", time="1", signal_delay_s=50)
    assert submission
    (process,) = suspend_while_training([directory])
    wait_until(lambda: not process.is_running())
    for job in client.queued_jobs().values():  # a slow machine could not finish a run in sessions of less than a minute
        client.run_client("scontrol", "update", f"JobId={job.job_id}", "TimeLimit=30")
    wait_until(lambda: directory.status() is Status.DONE)
    starts = [session["step"] for session in directory.session_rows()]
    assert len(starts) > 1 and starts == sorted(set(starts)), starts
    assert (
        "SIGUSR2 received: training stopped and its state is saved"
        in submission.error_logs(run.name)[0].with_suffix(".out").read_text()
    )
    train_in_this_process([run], store, tmp_path / "alone")
    assert metrics(tmp_path / "swept", run) == metrics(tmp_path / "alone", run)


@pytest.mark.parametrize("nodes", [1, 2])
def test_tasks_of_a_job_share_its_run(
    nodes: int, cluster: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    shared = runs[:1]
    allocation = Allocation(time="10", nodes=nodes, array_parallelism=1)
    submit_sweep(Sweep(shared, store, tmp_path / "swept", allocation, Resources(processes_per_run=2)), print)
    wait_until(lambda: all(RunDirectory(tmp_path / "swept" / run.name).done.is_file() for run in shared))
    train_in_this_process(shared, store, tmp_path / "alone")
    for run in shared:
        swept, alone = (RunDirectory(tmp_path / where / run.name).rows() for where in ("swept", "alone"))
        assert [row["step"] for row in swept] == [row["step"] for row in alone]
        for row, reference in zip(swept, alone, strict=True):
            assert row["test_loss"] == pytest.approx(reference["test_loss"], abs=1e-4)
        (session,) = RunDirectory(tmp_path / "swept" / run.name).session_rows()
        assert session["processes"] == 2


def test_status_prints_the_end_of_the_log_of_a_job_that_cannot_start(
    cluster: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    submission, _ = submit(runs[:1], store, tmp_path, setup=["export PYTHONHOME=/nowhere"])
    assert submission
    wait_until(lambda: not client.queued_jobs())
    (state,) = states(runs[:1], tmp_path).values()
    assert state.state is State.FAILED
    assert any("ModuleNotFoundError" in line or "init_fs_encoding" in line for line in state.log), state.log


def test_cancelling_or_killing_one_job_of_an_array_does_not_affect_the_others(
    cluster: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    """The job that started last has the same plain id as the entire array."""
    array = [runs[1].model_copy(update={"model": "2x64", "tokens": 1500 * 32 * 8, "seed": seed}) for seed in range(3)]
    submission, _ = submit(array, store, tmp_path, setup=["set -e"])
    assert submission
    directories = [RunDirectory(tmp_path / run.name) for run in array]
    processes = suspend_while_training(directories)
    cancel([array[0].name], tmp_path)
    jobs = [directory.session_rows()[0]["job"] for directory in directories]
    assert jobs.count(submission.arrays[0].job_id) == 1
    assert jobs.index(submission.arrays[0].job_id) == 2, "the last job has the id of the array"
    processes[2].kill()
    processes[1].resume()
    wait_until(lambda: directories[1].done.is_file() and directories[2].done.is_file())
    wait_until(lambda: not client.queued_jobs())
    assert [len(directory.session_rows()) for directory in directories] == [1, 1, 2]
    assert directories[0].status() is Status.INTERRUPTED, "a cancelled run is not restarted"


def test_a_bundle_that_is_requeued_ends_like_single_runs(
    cluster: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    longer = {"tokens": 400 * 32 * 8, "model": "2x32"}
    grid = [run.model_copy(update=longer | {"seed": seed}) for run in runs[:2] for seed in (0, 1)]
    diverging = grid[0].model_copy(update={"seed": 9, **DIVERGING})
    everything, folder, lines = [*grid, diverging], tmp_path / "swept", list[str]()
    sweep = Sweep(everything, store, folder, Allocation(time="10"), Resources(lanes=5))
    submission = submit_sweep(sweep, lines.append)
    assert submission and lines[1].endswith(": 5 runs in 1 bundle"), lines
    assert submit_sweep(sweep, lines.append) is None
    directories = [RunDirectory(folder / run.name) for run in grid]
    suspend_while_training(directories[:1])  # requeueing resumes it
    run_states = states(everything, folder)
    assert {run_states[run.name].state for run in grid} == {State.RUNNING}
    assert len({state.job_id for state in run_states.values()}) == 1
    sessions = max(len(directory.session_rows()) for directory in directories)
    client.run_client("scontrol", "requeue", run_states[grid[0].name].job_id)
    wait_until(lambda: all(directory.done.is_file() for directory in directories) and not client.queued_jobs())
    assert all(len(directory.session_rows()) > sessions for directory in directories)
    run_states = states(everything, folder)
    assert run_states[diverging.name].state is State.FAILED and "Diverged" in run_states[diverging.name].note
    train_in_this_process(grid, store, tmp_path / "alone")
    for run in grid:
        assert metrics(folder, run) == metrics(tmp_path / "alone", run), run.label
    output = submission.error_logs(grid[0].name)[0].with_suffix(".out").read_text()
    assert f"{grid[0].name}: step " in output and f"{grid[0].label}: done" in output
