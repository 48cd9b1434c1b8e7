"""Worker processes that train runs on this machine, and the messages between them and the scheduler."""

import multiprocessing
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from data_prep.errors import InputError
from data_prep.files import AlreadyLocked, exclusive_lock
from data_prep.token_store import TokenStore
from repeat_study.config.resources import Resources
from repeat_study.config.run import Run
from repeat_study.records.outcome import Ended, Outcome, Progress, reason_of
from repeat_study.records.run_directory import RunDirectory

# Each worker uses one thread. With several, operations on small tensors become very slow as soon as another process uses a core.
# The malloc settings keep freed memory in the process.
# Otherwise, glibc would return memory to the kernel after each step, and page faults would slow training by 10-28% (measured).
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
}
PROCESSES = multiprocessing.get_context("spawn")  # fork is unsafe after torch has used CUDA


@dataclass(frozen=True)
class Assignment:
    """The runs that a worker group trains next: a single run, or a bundle if the group has one process."""

    runs: tuple[Run, ...]
    store: Path
    study_dir: Path
    port: int  # the group's processes connect to each other on this port


@dataclass
class WorkerGroup:
    """Several processes that share one run, or one process that trains a bundle. The first process reports for the group.

    Any message sent during an assignment tells the process to stop.
    """

    processes: list[BaseProcess]
    pipes: list[Connection]
    gpus: list[int]  # indices of this machine's GPUs; empty on a CPU
    runs: tuple[Run, ...] = ()
    progressed: bool = False  # whether the group has trained its runs for at least one step

    @classmethod
    def start(cls, resources: Resources, gpus: list[int]) -> "WorkerGroup":
        """Start `resources.processes_per_run` processes, each with one thread, on the given GPUs."""
        for variable, value in WORKER_ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
        group = cls([], [], gpus)
        # Ctrl-C reaches every process in the terminal, but only the scheduler should react to it.
        # Workers inherit this setting and ignore Ctrl-C, even while they import modules.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            for rank in range(resources.processes_per_run):
                ours, theirs = PROCESSES.Pipe()
                process = PROCESSES.Process(target=_work, args=(theirs, resources, rank, gpus), daemon=True)
                process.start()
                theirs.close()
                group.processes.append(process)
                group.pipes.append(ours)
        finally:
            signal.signal(signal.SIGINT, handler)
        return group

    @property
    def lead(self) -> Connection:
        """The scheduler's end of the pipe to the process that reports for the group."""
        return self.pipes[0]

    def assign(self, runs: tuple[Run, ...], store: TokenStore, study_dir: Path) -> None:
        """Assign runs to the group. Without runs, the group stays idle."""
        self.runs, self.progressed = runs, False
        if runs:
            assignment = Assignment(runs, store.folder, study_dir, _free_port())
            for pipe in self.pipes:
                with suppress(OSError):  # the process has died; the scheduler will notice
                    pipe.send(assignment)

    def ask_to_stop(self) -> None:
        """Make the processes save their state at the next step boundary and exit."""
        for pipe in self.pipes:
            with suppress(OSError):
                pipe.send("stop")

    def end(self, kill: bool = False) -> str:
        """Close the pipes and wait until every process has exited. With `kill`, processes that are still alive after 2 s are killed.

        Returns a description of how the first failed process ended.
        """
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join(2.0 if kill else None)
        codes = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()
            process.join()
        code = next((code for code in codes if code), 0)
        return f"process killed by {signal.Signals(-code).name}" if code < 0 else f"process exited with code {code}"


def visible_gpus(indices: Sequence[int], inherited: str | None) -> str:
    """The CUDA_VISIBLE_DEVICES value for some of this process's GPUs. `inherited`: this process's own value, perhaps set by SLURM."""
    names = inherited.split(",") if inherited else None
    return ",".join(names[index].strip() if names else str(index) for index in indices)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _work(pipe: Connection, resources: Resources, rank: int, gpus: list[int]) -> None:
    """Main function of a worker process: train each assignment until the pipe closes or a stop message arrives."""
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible_gpus(gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
    process_group = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0}
    process_group |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), resources.processes_per_run)
    os.environ |= {variable: str(value) for variable, value in process_group.items()} | {"MASTER_ADDR": "127.0.0.1"}
    while (assignment := _receive(pipe)) is not None:
        os.environ["MASTER_PORT"] = str(assignment.port)
        ended = _train(assignment, pipe, resources, rank)
        if rank == 0:
            _send(pipe, ended)
        if any(end.outcome is Outcome.INTERRUPTED for end in ended):
            return


def _receive(pipe: Connection) -> Assignment | None:
    """Wait for the next assignment. Returns None if the scheduler sent a stop message or has exited."""
    try:
        message = pipe.recv()
    except (EOFError, OSError):
        return None
    return message if isinstance(message, Assignment) else None


def _send(pipe: Connection, event: Progress | tuple[Ended, ...]) -> None:
    with suppress(OSError):  # the scheduler has exited; the closed pipe also makes training save and stop
        pipe.send(event)


def _train(assignment: Assignment, pipe: Connection, resources: Resources, rank: int) -> tuple[Ended, ...]:
    lead = rank == 0
    # The imports take seconds. The lock makes `status` list the runs as running in the meantime. Other ranks must not hold it.
    with _locked(assignment) if lead else nullcontext():
        import torch

        from repeat_study.training.trainer import train_bundle

    torch.set_num_threads(1)

    def report(progress: Progress) -> None:
        if lead:
            _send(pipe, progress)

    try:
        store = TokenStore(assignment.store)
        outcomes = train_bundle(assignment.runs, store, assignment.study_dir, report, pipe.poll, resources)
        return tuple(_ended(name, outcome) for name, outcome in outcomes.items())
    except Exception as error:
        return tuple(_ended(run.name, error) for run in assignment.runs)


@contextmanager
def _locked(assignment: Assignment) -> Iterator[None]:
    """Lock the directories of all runs that no other process has locked."""
    with ExitStack() as stack:
        for run in assignment.runs:
            with suppress(AlreadyLocked, InputError):  # `train_bundle` reports these
                stack.enter_context(exclusive_lock(RunDirectory(assignment.study_dir / run.name).lock))
        yield


def _ended(run: str, outcome: Outcome | Exception) -> Ended:
    if isinstance(outcome, Outcome):
        return Ended(run, outcome)
    return Ended(run, Outcome.FAILED, reason_of(outcome))
