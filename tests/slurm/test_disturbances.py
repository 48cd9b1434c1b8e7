"""One array on a real SLURM; its runs are disturbed in every way at once, and end as if nothing had happened."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.config.run import Run
from repeat_study.config.study import Study
from repeat_study.local.scheduler import LocalScheduler
from repeat_study.records.json_lines import last_row
from repeat_study.records.outcome import Outcome
from repeat_study.records.run_directory import RunDirectory, Status
from slurm import client
from slurm.allocation import Allocation
from slurm.dev_cluster import DevCluster
from slurm.submissions import jobs_by_run, read_submissions
from slurm.sweep import Sweep, submit
from tests.slurm.conftest import wait_until

# Of each run, one after the other; the controller is that of the other runs too.
DISTURBANCES = (("node lost",), ("requeued", "killed", "preempted"), ("terminated", "controller restarted"))


def longer(runs: list[Run]) -> list[Run]:
    """A run of several seconds for each series of disturbances."""
    changes = {
        "model": "2x64",
        "tokens": 1200 * 32 * 8,
        "evaluation": runs[0].evaluation.model_copy(update={"even_points": 12}),
    }
    return [runs[1].model_copy(update={**changes, "seed": seed}) for seed in range(len(DISTURBANCES))]


@dataclass
class Watched:
    """What a run's directory showed while others did things to it."""

    directory: RunDirectory
    due: list[int]  # when it is evaluated
    reached: int = 0  # the last evaluation that was ever seen
    sessions: int = 0
    lost: list[int] = field(default_factory=list)  # at each start: evaluations that have to be made again

    def look(self) -> None:
        """Note how far it is, and where new starts began."""
        starts = self.directory.session_rows()
        for session in starts[self.sessions :]:
            if self.sessions:
                self.lost.append(sum(session["step"] < step <= self.reached for step in self.due))
            self.sessions += 1
        if row := last_row(self.directory.metrics):
            self.reached = max(self.reached, row["step"])


@pytest.fixture(scope="module")
def undisturbed(study: Study, store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    runs = longer(study.runs(store.fingerprint))
    ended = LocalScheduler(store, folder, 2, lambda event: None).train(runs)
    assert {end.outcome for end in ended.values()} == {Outcome.DONE}
    return folder


def training_processes(run: Run, folder: Path) -> Iterator[psutil.Process]:
    """Those that hold the run's directory."""
    lock = str(RunDirectory(folder / run.name).lock)
    for process in psutil.process_iter():
        try:
            if lock in (file.path for file in process.open_files()):
                yield process
        except psutil.Error:
            continue


def test_whatever_happens_to_a_job_its_run_ends_with_the_same_metrics(
    cluster: DevCluster, undisturbed: Path, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    disturbed = longer(runs)
    asked = Allocation(time="30", signal_delay_s=20)
    submission = submit(Sweep(disturbed[:1], store, tmp_path, asked), print)
    assert submission
    # On the other node: what is requeued from a lost one is trained to its end there, and that is no disturbance.
    submit(Sweep(disturbed, store, tmp_path, asked.model_copy(update={"exclude": "n1"})), print)
    watched = {
        run.name: Watched(RunDirectory(tmp_path / run.name), run.evaluation.steps(run.steps)) for run in disturbed
    }
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            for one in watched.values():
                one.look()
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
        """The node falls silent with the run on it; SLURM starts it on the other, and then the node comes back."""
        (process,) = training_processes(run, tmp_path)
        node = node_of(run)
        process.suspend()
        cluster.kill_daemon(node)
        log = Path(str(submission.error_logs(run.name)[0]).replace(".err", ".out"))
        wait_until(lambda: "another process trains this run" in log.read_text(), 120)
        assert process.is_running(), "the run is still the silent process's"
        cluster.start_daemon(node)

    def restart_controller(run: Run) -> None:
        cluster.stop_daemon("slurmctld")
        (process,) = training_processes(run, tmp_path)
        process.send_signal(signal.SIGTERM)  # what is to be requeued meanwhile, waits for it
        wait_until(lambda: not psutil.pid_exists(process.pid))
        time.sleep(1)
        cluster.start_daemon("slurmctld")

    actions: dict[str, Callable[[Run], object]] = {
        "requeued": lambda run: client.run_client("scontrol", "requeue", job_of(run).job_id),
        "terminated": lambda run: client.run_client("scancel", "--signal=TERM", job_of(run).job_id),
        "killed": lambda run: [os.kill(process.pid, signal.SIGKILL) for process in training_processes(run, tmp_path)],
        "preempted": preempt,
        "controller restarted": restart_controller,
        "node lost": lose_node,
    }

    def disturb(names: tuple[str, ...], run: Run) -> None:
        reached = 0
        for name in names:
            reached = disturb_once(name, run, reached)

    def disturb_once(name: str, run: Run, reached: int) -> int:
        one = watched[run.name]
        wait_until(lambda: one.reached > reached, 120)
        before, begun, done = one.sessions, time.monotonic(), False
        while not done:  # another one's disturbance may be that no controller answers, or that the job is on its way
            with suppress(InputError, KeyError, ValueError):
                actions[name](run)
                done = True
        wait_until(lambda: one.sessions > before, 120)
        print(f"{name}: at step {one.reached}, on again after {time.monotonic() - begun:.1f} s")
        return one.reached

    with ThreadPoolExecutor() as pool:
        try:
            for disturbing in [
                pool.submit(disturb, name, run) for name, run in zip(DISTURBANCES, disturbed, strict=True)
            ]:
                disturbing.result()
            wait_until(lambda: all(one.directory.status() is Status.DONE for one in watched.values()), 180)
        finally:
            over.set()
            watcher.join()
    for names, run in zip(DISTURBANCES, disturbed, strict=True):
        one = watched[run.name]
        assert one.sessions > len(names) and max(one.lost) <= 1, one
        assert one.directory.metrics.read_bytes() == (undisturbed / run.name / "metrics.jsonl").read_bytes()
