"""What a job of a sweep does: train a run, or a bundle, from wherever its directory says it stands. It carries specs, no state."""

import json
import os
import socket
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path

from submitit import JobEnvironment
from submitit.helpers import DelayedSubmission

from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.config.resources import Resources
from repeat_study.config.run import Run
from repeat_study.records.outcome import Outcome, Progress
from repeat_study.records.run_directory import RunDirectory
from slurm.preemption import SAVED_WORDS, Leave, back_to_the_queue

# Starts of one job with nothing saved and no word since, after which the run is given up: something kills it every time.
STARTS = 5
# Seconds to wait for another process to leave the run: one that SLURM lost with its node and started here anew.
WAIT_FOR_ANOTHER = 900.0


@dataclass(frozen=True)
class TrainJob:
    """A call trains the runs; submitit pickles it at submission, and a requeued job calls it again."""

    runs: tuple[Run, ...]
    store: Path
    study_dir: Path
    resources: Resources

    def __call__(self) -> str:
        """Train to the end and say so, or leave for the queue. All tasks of the job share the run."""
        leave = Leave("TERM", JobEnvironment.USR_SIG)  # before torch is imported, which takes seconds
        job = JobEnvironment()
        join_team(job)
        directories = [RunDirectory(self.study_dir / run.name) for run in self.runs]
        starts = Starts(job.paths.folder / f"{job.job_id}_starts.jsonl", directories)
        if job.global_rank == 0:
            starts.count()
        import torch

        from repeat_study.training.trainer import train_bundle

        torch.set_num_threads(1)
        several, waited = len(self.runs) > 1, 0.0
        endings: dict[str, Outcome | Exception] = dict.fromkeys((run.name for run in self.runs), Outcome.BUSY)
        show = show_progress if not several else partial(show_progress, named=True)
        while not leave():
            todo = [run for run in self.runs if endings[run.name] is Outcome.BUSY]
            endings |= train_bundle(todo, TokenStore(self.store), self.study_dir, show, leave, self.resources)
            if Outcome.INTERRUPTED in endings.values():
                print(f"{leave.reason}: {SAVED_WORDS}", flush=True)
                break
            if Outcome.BUSY not in endings.values():
                return self._told(endings)
            if waited >= WAIT_FOR_ANOTHER:
                print(f"another process has been training this run for {waited:.0f} s; the queue may wait", flush=True)
                break
            print("another process trains this run; waiting for it to leave", flush=True)
            leave.wait(5.0)
            waited += 5.0
        starts.forget()
        return back_to_the_queue()

    def _told(self, endings: dict[str, Outcome | Exception]) -> str:
        """How all runs ended; raises what became of one that failed, once the others are told of."""
        failed = []
        for run in self.runs:
            ending = endings[run.name]
            if isinstance(ending, Exception):
                failed.append(ending)
                print(f"{run.label}: {type(ending).__name__}: {ending}", file=sys.stderr, flush=True)
            else:
                print(f"{run.label}: {ending.value}", flush=True)
        if failed:
            raise failed[0]
        return str(endings[self.runs[0].name])

    def checkpoint(self) -> DelayedSubmission:
        """What submitit requeues where a signal comes before `__call__` has taken over: the same again."""
        return DelayedSubmission(self)


def join_team(job: JobEnvironment) -> None:
    """Tell the tasks of a job who they are, in torchrun's names: together they train one run."""
    here = job.num_tasks // job.num_nodes
    start = f"{job.raw_job_id}.{os.environ.get('SLURM_RESTART_COUNT', 0)}"
    # The same for all tasks, another one after a requeue; below the ports that kernels give to clients.
    port = 20_000 + zlib.crc32(start.encode()) % 12_000
    process_group = {
        "RANK": job.global_rank,
        "LOCAL_RANK": job.local_rank,
        "GROUP_RANK": job.node,
        "WORLD_SIZE": job.num_tasks,
        "LOCAL_WORLD_SIZE": here,
        "MASTER_ADDR": "127.0.0.1" if job.num_nodes == 1 else _first_node(job),
        "MASTER_PORT": port,
    }
    os.environ |= {name: str(value) for name, value in process_group.items()}


def _first_node(job: JobEnvironment) -> str:
    """Where the first task runs: by its node's name, or where that means nothing to the network, by the address of the
    batch script, which runs there."""
    try:
        socket.getaddrinfo(name := job.hostnames[0], None)
    except OSError:
        return os.environ["SLURM_LAUNCH_NODE_IPADDR"]
    return name


@dataclass(frozen=True)
class Starts:
    """The starts of a job since it last left in order, in a file beside its logs, with how far its runs were at each."""

    path: Path
    directories: Sequence[RunDirectory]

    def count(self) -> None:
        """Add this one; where it is one too many, mark what is not done failed and raise InputError."""
        before = self.path.read_text().splitlines() if self.path.is_file() else []
        now = json.dumps(self._reached())
        in_vain = len(list(takewhile(lambda line: line == now, reversed(before))))
        open_ones = [directory for directory in self.directories if not directory.done.is_file()]
        if in_vain >= STARTS and open_ones:
            reason = f"its process was ended {in_vain} times on end with nothing done; for want of memory, maybe: its log may say"
            for directory in open_ones:
                directory.make()
                directory.fail(reason)
            raise InputError(f"{open_ones[0].path}: {reason}")
        with self.path.open("a") as file:
            file.write(now + "\n")

    def forget(self) -> None:
        """The job leaves in order."""
        self.path.unlink(missing_ok=True)

    def _reached(self) -> list[int]:
        """What changes whenever anything is evaluated or saved."""
        reached = []
        for directory in self.directories:
            row, checkpoint = directory.last(directory.metrics), directory.checkpoint
            reached += [row["step"] if row else 0, checkpoint.stat().st_mtime_ns if checkpoint.is_file() else 0]
        return reached


def show_progress(progress: Progress, named: bool = False) -> None:
    """One line for each evaluation; named: of several runs, whose lines mix."""
    line = f"{progress.run}: " if named else ""
    line += f"step {progress.step}/{progress.steps}  test loss {progress.test_loss:.4f}"
    if progress.tokens_per_second and progress.seconds_left is not None:
        line += f"  {progress.tokens_per_second:,.0f} tokens/s, {progress.seconds_left / 60:.1f} min left"
    print(line + ("  (resumed)" if progress.resumed else ""), flush=True)
