"""The code that a SLURM job runs: train a run, or a bundle of runs, from the last checkpoint."""

import os
import socket
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from submitit import JobEnvironment
from submitit.helpers import DelayedSubmission

from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.config.resources import Resources
from repeat_study.config.run import Run
from repeat_study.config.study import Study
from repeat_study.preparation import open_study
from repeat_study.records.outcome import Outcome, Progress
from repeat_study.records.run_directory import RunDirectory
from slurm.preemption import SAVED_MESSAGE, StopSignal, exit_for_requeue
from slurm.resolution import final_run
from slurm.start_log import StartLog
from slurm.submissions import Position

# Seconds to wait for another process to release the run.
# If SLURM loses contact with a node, it restarts the job on another node, although the old process may still be training.
BUSY_TIMEOUT = 900.0


@dataclass(frozen=True)
class TrainJob:
    """A stateless callable. submitit pickles it at submission and calls it whenever the job starts."""

    runs: tuple[Run, ...]
    store: Path
    study_dir: Path
    resources: Resources

    def __call__(self) -> str:
        """Train the runs to completion, or exit with the code that requeues the job. All tasks in the job train together."""
        stop = StopSignal("TERM", JobEnvironment.USR_SIG)  # before torch is imported, which takes seconds
        job = JobEnvironment()
        set_process_group_environment(job)
        directories = [RunDirectory(self.study_dir / run.name) for run in self.runs]
        starts = StartLog(job.paths.folder / f"{job.job_id}_starts.jsonl", directories)
        if job.global_rank == 0:
            starts.record_start()
        import torch

        from repeat_study.training.trainer import train_bundle

        torch.set_num_threads(1)
        waited = 0.0
        outcomes: dict[str, Outcome | Exception] = dict.fromkeys((run.name for run in self.runs), Outcome.BUSY)
        report = partial(print_progress, with_run_name=len(self.runs) > 1)
        while not stop():
            todo = [run for run in self.runs if outcomes[run.name] is Outcome.BUSY]
            outcomes |= train_bundle(todo, TokenStore(self.store), self.study_dir, report, stop, self.resources)
            if Outcome.INTERRUPTED in outcomes.values():
                print(f"{stop.received} received: training stopped and {SAVED_MESSAGE}", flush=True)
                break
            if Outcome.BUSY not in outcomes.values():
                return self._finish(outcomes)
            if waited >= BUSY_TIMEOUT:
                print(
                    f"another process is still training this run after {waited:.0f} s; requeueing the job", flush=True
                )
                break
            print("another process is training this run; waiting for it to exit", flush=True)
            stop.wait(5.0)
            waited += 5.0
        starts.clear()
        return exit_for_requeue()

    def _finish(self, outcomes: Mapping[str, Outcome | Exception]) -> str:
        """Print the outcome of every run, then raise the first exception, if any."""
        failures = []
        for run in self.runs:
            outcome = outcomes[run.name]
            if isinstance(outcome, Exception):
                failures.append(outcome)
                print(f"{run.label}: {type(outcome).__name__}: {outcome}", file=sys.stderr, flush=True)
            else:
                print(f"{run.label}: {outcome.value}", flush=True)
        if failures:
            raise failures[0]
        return str(outcomes[self.runs[0].name])

    def checkpoint(self) -> DelayedSubmission:
        """Requeue the same call. submitit calls this if a signal arrives before `__call__` has replaced its handlers."""
        return DelayedSubmission(self)


@dataclass(frozen=True)
class DeferredTrainJob:
    """Like `TrainJob`, for runs that were submitted before their data was prepared and therefore have provisional names."""

    study: Study
    data_dir: Path
    runs_dir: Path
    positions: tuple[Position, ...]
    resources: Resources

    def __call__(self) -> str:
        """Find the final runs, and train them."""
        prepared = open_study(self.study, self.data_dir)
        runs = prepared.known_runs(self.runs_dir).runs
        bundle = []
        for position in self.positions:
            if (run := final_run(position, runs)) is None:
                raise InputError(
                    f"{position.label}: the prepared data does not allow this run, or its parent is not known; see `repeat-study"
                    " status`"
                )
            bundle.append(run)
        study_dir = self.runs_dir / self.study.name
        return TrainJob(tuple(bundle), prepared.store.folder.resolve(), study_dir, self.resources)()

    def checkpoint(self) -> DelayedSubmission:
        """Requeue the same call."""
        return DelayedSubmission(self)


def set_process_group_environment(job: JobEnvironment) -> None:
    """Set the environment variables that torchrun would set for this task."""
    start = f"{job.raw_job_id}.{os.environ.get('SLURM_RESTART_COUNT', 0)}"
    # All tasks use the same port. It changes after a requeue, and it is below the kernel's ephemeral ports.
    port = 20_000 + zlib.crc32(start.encode()) % 12_000
    variables = {
        "RANK": job.global_rank,
        "LOCAL_RANK": job.local_rank,
        "GROUP_RANK": job.node,
        "WORLD_SIZE": job.num_tasks,
        "LOCAL_WORLD_SIZE": job.num_tasks // job.num_nodes,
        "MASTER_ADDR": "127.0.0.1" if job.num_nodes == 1 else _first_node(job),
        "MASTER_PORT": port,
    }
    os.environ |= {name: str(value) for name, value in variables.items()}


def _first_node(job: JobEnvironment) -> str:
    """Host name of the first task's node, or its IP address if the name cannot be resolved."""
    try:
        socket.getaddrinfo(name := job.hostnames[0], None)
    except OSError:  # only SLURM can resolve the name; the batch script runs on this node
        return os.environ["SLURM_LAUNCH_NODE_IPADDR"]
    return name


def print_progress(progress: Progress, with_run_name: bool = False) -> None:
    """Print one line for an evaluation. For bundles, `with_run_name` adds the run's name."""
    line = f"{progress.run}: " if with_run_name else ""
    line += f"step {progress.step}/{progress.steps}  test loss {progress.test_loss:.4f}"
    if progress.tokens_per_second and progress.seconds_left is not None:
        line += f"  {progress.tokens_per_second:,.0f} tokens/s, {progress.seconds_left / 60:.1f} min left"
    print(line + ("  (resumed)" if progress.resumed else ""), flush=True)
