"""Runs on a real SLURM that are killed, preempted, requeued or lose their node end with the same metrics as undisturbed runs."""

import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.config.run import Run
from repeat_study.records.json_lines import last_row
from repeat_study.records.run_directory import RunDirectory, Status
from slurm import client
from slurm.allocation import Allocation
from slurm.dev_cluster import DevCluster
from slurm.submissions import jobs_by_run, read_submissions
from slurm.sweep import Sweep, submit
from tests.slurm.conftest import train_in_this_process, training_processes
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

# Each tuple is applied to one run, in order. Restarting the controller also disturbs the other runs.
DISTURBANCES = (("node lost",), ("requeued", "killed", "preempted"), ("terminated", "controller restarted"))


def longer(runs: list[Run]) -> list[Run]:
    """One run per series of disturbances, each long enough to be disturbed."""
    changes = {
        "model": "2x64",
        "tokens": 900 * 32 * 8,
        "evaluation": runs[0].evaluation.model_copy(update={"even_points": 12}),
    }
    return [runs[1].model_copy(update={**changes, "seed": seed}) for seed in range(len(DISTURBANCES))]


@dataclass
class RunWatch:
    """Progress and restarts of a run, as observed in its directory."""

    directory: RunDirectory
    due: list[int]  # the steps of its evaluations
    reached: int = 0  # the last evaluation seen so far
    sessions: int = 0
    lost: list[int] = field(default_factory=list)  # for each restart, the number of evaluations to repeat

    def observe(self) -> None:
        """Record the last evaluation and new sessions."""
        starts = self.directory.session_rows()
        for session in starts[self.sessions :]:
            if self.sessions:
                self.lost.append(sum(session["step"] < step <= self.reached for step in self.due))
            self.sessions += 1
        if row := last_row(self.directory.metrics):
            self.reached = max(self.reached, row["step"])


def test_whatever_happens_to_a_job_its_run_ends_with_the_same_metrics(
    cluster: DevCluster, runs: list[Run], store: TokenStore, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    disturbed, undisturbed = longer(runs), tmp_path_factory.mktemp("undisturbed")
    allocation = Allocation(time="30", signal_delay_s=20)
    submission = submit(Sweep(disturbed[:1], store, tmp_path, allocation), print)
    assert submission
    # These start on the other node, so that losing the first node disturbs only one run.
    submit(Sweep(disturbed, store, tmp_path, allocation.model_copy(update={"exclude": "n1"})), print)
    watched = {
        run.name: RunWatch(RunDirectory(tmp_path / run.name), run.evaluation.steps(run.steps)) for run in disturbed
    }
    finished = threading.Event()

    def watch() -> None:
        while not finished.is_set():
            for run_watch in watched.values():
                run_watch.observe()
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()

    def job_of(run: Run) -> client.QueuedJob:
        return jobs_by_run(read_submissions(tmp_path), client.queued_jobs())[run.name][0]

    def node_of(run: Run) -> str:
        return client.run_client("squeue", "--noheader", f"--jobs={job_of(run).job_id}", "--format=%N").strip()

    def preempt(run: Run) -> None:
        command = ["sbatch", "--parsable", "--partition=urgent", f"--nodelist={node_of(run)}", "--exclusive"]
        subprocess.run([*command, "--output=/dev/null", "--wrap", "sleep 1"], check=True, capture_output=True)

    def lose_node(run: Run) -> None:
        """The node stops responding while the run trains on it. SLURM restarts the job on the other node, then the node returns."""
        (process,) = training_processes(RunDirectory(tmp_path / run.name))
        node = node_of(run)
        process.suspend()
        cluster.kill_daemon(node)
        log = Path(str(submission.error_logs(run.name)[0]).replace(".err", ".out"))
        wait_until(lambda: "another process is training this run" in log.read_text())
        assert process.is_running(), "the suspended process still locks the run"
        cluster.start_daemon(node)

    def restart_controller(run: Run) -> None:
        cluster.stop_daemon("slurmctld")
        (process,) = training_processes(RunDirectory(tmp_path / run.name))
        process.send_signal(signal.SIGTERM)  # a job that stops now has to wait for the controller
        wait_until(lambda: not psutil.pid_exists(process.pid))
        time.sleep(1)
        cluster.start_daemon("slurmctld")

    actions: dict[str, Callable[[Run], object]] = {
        "requeued": lambda run: client.run_client("scontrol", "requeue", job_of(run).job_id),
        "terminated": lambda run: client.run_client("scancel", "--signal=TERM", job_of(run).job_id),
        "killed": lambda run: [process.kill() for process in training_processes(RunDirectory(tmp_path / run.name))],
        "preempted": preempt,
        "controller restarted": restart_controller,
        "node lost": lose_node,
    }

    def disturb(names: tuple[str, ...], run: Run) -> None:
        reached = 0
        for name in names:
            reached = disturb_once(name, run, reached)

    def disturb_once(name: str, run: Run, reached: int) -> int:
        watch_of_run = watched[run.name]
        wait_until(lambda: watch_of_run.reached > reached)
        before, start, done = watch_of_run.sessions, time.monotonic(), False
        while not done:  # another disturbance may have stopped the controller or the job
            with suppress(InputError, KeyError, ValueError):
                actions[name](run)
                done = True
        wait_until(lambda: watch_of_run.sessions > before)
        print(f"{name}: at step {watch_of_run.reached}, training again after {time.monotonic() - start:.1f} s")
        return watch_of_run.reached

    with ThreadPoolExecutor() as executor:
        try:
            disturbing = executor.map(disturb, DISTURBANCES, disturbed)
            train_in_this_process(disturbed, store, undisturbed)  # train the reference runs in the meantime
            list(disturbing)  # raises the exceptions of the threads
            wait_until(lambda: all(run_watch.directory.status() is Status.DONE for run_watch in watched.values()))
        finally:
            finished.set()
            watcher.join()
    for names, run in zip(DISTURBANCES, disturbed, strict=True):
        end = watched[run.name]
        assert end.sessions > len(names) and max(end.lost) <= 1, end
        assert end.directory.metrics.read_bytes() == (undisturbed / run.name / "metrics.jsonl").read_bytes()
