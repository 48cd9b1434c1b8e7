"""The processes that train a run, or a bundle of them, at a time on this machine, and what goes through their pipes."""

import multiprocessing
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.config.resources import Resources
from repeat_study.config.run import Run
from repeat_study.records.outcome import Ended, Outcome, Progress

# One thread: several of them on small tensors collapse when another process holds a core. A heap that keeps its memory:
# glibc otherwise returns each step's tensors to the kernel and faults them in again (measured: 10-28% of the speed).
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
}


@dataclass(frozen=True)
class Job:
    """What a workers is given: a run, or several alike, where their tokens lie and where their directories go."""

    runs: tuple[Run, ...]
    store: Path
    study_dir: Path
    port: int  # where the processes of the workers meet


@dataclass
class WorkerGroup:
    """Processes that share a run, or one process with a bundle of runs; the first one leads, and answers. Any message during a
    job means: stop."""

    processes: list[SpawnProcess]
    pipes: list[Connection]
    gpus: list[int]  # of this machine's, none where it has none
    runs: tuple[Run, ...] = ()
    moved: bool = False  # has got further since it was given its runs

    @classmethod
    def hire(cls, resources: Resources, gpus: list[int]) -> "WorkerGroup":
        """Start `resources.processes_per_run` processes, each with one thread, on these GPUs, if any."""
        for variable, value in WORKER_ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
        context = multiprocessing.get_context("spawn")
        workers = cls([], [], gpus)
        # Inherited: Ctrl-C reaches the whole group, and the pool alone decides what it means, also while a process is
        # still importing.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            for rank in range(resources.processes_per_run):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, resources, rank, gpus), daemon=True)
                process.start()
                theirs.close()
                workers.processes.append(process)
                workers.pipes.append(ours)
        finally:
            signal.signal(signal.SIGINT, handler)
        return workers

    @property
    def lead(self) -> Connection:
        """Our end of the pipe that answers come through."""
        return self.pipes[0]

    def give(self, runs: tuple[Run, ...], store: TokenStore, study_dir: Path) -> None:
        """Let the workers train runs; none: nothing for now."""
        self.runs, self.moved = runs, False
        if runs:
            job = Job(runs, store.folder, study_dir, _free_port())
            for pipe in self.pipes:
                with suppress(OSError):  # a process that died meanwhile: its pipe is at its end, which is noticed next
                    pipe.send(job)

    def ask_to_stop(self) -> None:
        """Have the state saved at the next step boundary, and the processes leave."""
        for pipe in self.pipes:
            with suppress(OSError):
                pipe.send("stop")

    def end(self, kill: bool = False) -> str:
        """Close the pipes and wait until every process is gone; returns how the first of them to fail went, if any did."""
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join(2.0 if kill else None)  # it may be on its way out
        codes = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()
            process.join()
        code = next((code for code in codes if code), 0)
        return f"process killed by {signal.Signals(-code).name}" if code < 0 else f"process ended with code {code}"


def visible_gpus(numbers: Sequence[int], inherited: str | None) -> str:
    """CUDA_VISIBLE_DEVICES for some of this process's GPUs, which a scheduler may have named already."""
    names = inherited.split(",") if inherited else None
    return ",".join(names[number].strip() if names else str(number) for number in numbers)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _serve(pipe: Connection, resources: Resources, rank: int, gpus: list[int]) -> None:
    """A process's life: train what comes through the pipe until it closes or says stop."""
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible_gpus(gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
    import torch

    from repeat_study.training.trainer import train_bundle

    torch.set_num_threads(1)
    process_group = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0}
    process_group |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), resources.processes_per_run)
    os.environ |= {variable: str(value) for variable, value in process_group.items()} | {"MASTER_ADDR": "127.0.0.1"}

    def tell(event: Progress | tuple[Ended, ...]) -> None:
        if rank == 0:
            with suppress(OSError):  # the pool is gone: the pipe then also says stop, and the state is saved
                pipe.send(event)

    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return
        if job == "stop":
            return
        os.environ["MASTER_PORT"] = str(job.port)
        ended: tuple[Ended, ...]
        try:
            endings = train_bundle(job.runs, TokenStore(job.store), job.study_dir, tell, pipe.poll, resources)
            ended = tuple(_ended(name, ending) for name, ending in endings.items())
        except Exception as error:
            ended = tuple(_ended(run.name, error) for run in job.runs)
        tell(ended)
        if any(one.outcome is Outcome.INTERRUPTED for one in ended):
            return


def _ended(run: str, ending: Outcome | Exception) -> Ended:
    if isinstance(ending, Outcome):
        return Ended(run, ending)
    reason = str(ending) if isinstance(ending, InputError) else f"{type(ending).__name__}: {ending}"
    return Ended(run, Outcome.FAILED, reason)
