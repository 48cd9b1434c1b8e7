"""The grid on this machine: N processes, one thread and one run each; a run's failure or death stops no other."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.records import RunDirectory, Status
from repeat_study.runner import Outcome, Progress, train
from repeat_study.study import Run

# One thread: several of them on small tensors collapse when another process holds a core. A heap that keeps its memory:
# glibc otherwise returns each step's tensors to the kernel and faults them in again (measured: 10-28% of the speed).
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
}
ATTEMPTS = 2  # times a run is tried when its process is killed from outside


@dataclass(frozen=True)
class Ended:
    """A run that left its process, and why where it failed."""

    run: str
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True)
class Restarted:
    """A run whose process died and which goes on from its checkpoint in a new one."""

    run: str
    reason: str


Event = Progress | Ended | Restarted
Job = tuple[Run, Path, Path]  # run, store folder, study folder


@dataclass
class Worker:
    """A process and our end of its pipe. It trains one job at a time; any message during a job means: stop."""

    process: SpawnProcess
    pipe: Connection
    job: Job | None = None


@dataclass
class Pool:
    """Trains runs on `processes` workers until none is left or `stop` is asked for."""

    store: TokenStore
    study_dir: Path
    processes: int
    listen: Callable[[Event], None]
    accelerator: str = "cpu"
    _workers: list[Worker] = field(default_factory=list)
    _deaths: dict[str, int] = field(default_factory=dict)
    ended: dict[str, Ended] = field(default_factory=dict)

    def train(self, runs: Iterable[Run]) -> dict[str, Ended]:
        """Train every run that is not done, the costliest first, and say how each ended.

        Raises InputError before anything starts when the study's folder cannot be made or a run directory was made by
        another spec, and KeyboardInterrupt after all workers have saved their state.
        """
        runs = list(runs)
        try:
            self.study_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.study_dir}: cannot hold runs: {error.strerror}") from error
        for run in runs:
            RunDirectory(self.study_dir / run.name).check(run, self.store)
        todo = deque(sorted(runs, key=work, reverse=True))
        for run in runs:
            if RunDirectory(self.study_dir / run.name).status() is Status.DONE:
                todo.remove(run)
                self._end(Ended(run.name, Outcome.ALREADY_DONE))
        try:
            for _ in range(min(self.processes, len(todo))):
                self._workers.append(self._hire())
            for worker in self._workers:
                self._give(worker, todo)
            while busy := [worker for worker in self._workers if worker.job]:
                self._listen_once(busy, todo)
        except KeyboardInterrupt:
            self._stop()
            raise
        finally:
            for worker in self._workers:
                worker.pipe.close()
            for worker in self._workers:
                worker.process.join()
        return self.ended

    def _hire(self) -> Worker:
        for variable, value in WORKER_ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self.accelerator), daemon=True)
        # Inherited: Ctrl-C reaches the whole group, and the pool alone decides what it means, also while a worker is
        # still importing.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            process.start()
        finally:
            signal.signal(signal.SIGINT, handler)
        theirs.close()
        return Worker(process, ours)

    def _give(self, worker: Worker, todo: deque[Run]) -> None:
        worker.job = (todo.popleft(), self.store.folder, self.study_dir) if todo else None
        if worker.job:
            with suppress(OSError):  # a worker that died meanwhile: its pipe is at its end, which is noticed next
                worker.pipe.send(worker.job)

    def _listen_once(self, busy: list[Worker], todo: deque[Run]) -> None:
        ready = wait([worker.pipe for worker in busy])
        for worker in busy:
            if worker.pipe in ready:
                try:
                    event = worker.pipe.recv()
                except (EOFError, ConnectionResetError):
                    self._replace(worker, todo)
                    continue
                if isinstance(event, Ended):
                    self._end(event)
                    self._give(worker, todo)
                else:
                    self.listen(event)

    def _replace(self, worker: Worker, todo: deque[Run]) -> None:
        worker.process.join()
        assert worker.job
        run = worker.job[0]
        code = worker.process.exitcode or 0
        reason = f"process killed by {signal.Signals(-code).name}" if code < 0 else f"process ended with code {code}"
        self._deaths[run.name] = self._deaths.get(run.name, 0) + 1
        if self._deaths[run.name] < ATTEMPTS:
            todo.appendleft(run)
            self.listen(Restarted(run.name, reason))
        else:
            RunDirectory(self.study_dir / run.name).fail(reason)
            self._end(Ended(run.name, Outcome.FAILED, reason))
        self._workers.remove(worker)
        self._workers.append(replacement := self._hire())
        self._give(replacement, todo)

    def _end(self, ended: Ended) -> None:
        self.ended[ended.run] = ended
        self.listen(ended)

    def _stop(self) -> None:
        """Ask every worker to save and leave; a second Ctrl-C kills them, which loses at most one evaluation interval."""
        try:
            for worker in self._workers:
                worker.pipe.send("stop")
            for worker in self._workers:
                worker.process.join()
        except KeyboardInterrupt:
            for worker in self._workers:
                worker.process.kill()
        except OSError:
            pass  # a worker that is gone needs no stopping


def work(run: Run) -> float:
    """Relative time of a run on one core: its FLOPs, and 0.6 MFLOP per token for what is not arithmetic (measured for
    2x32, 2x64 and 2x96, where it predicts the ratios of seconds within 2%). Used to order runs and to guess time left."""
    per_token = run.shape.training_flops_per_token(vocabulary=1024, context=run.context) + 6e5
    return per_token * run.positions * run.context


def _serve(pipe: Connection, accelerator: str) -> None:
    """A worker's life: train what comes through the pipe until it closes or says stop."""
    import torch

    torch.set_num_threads(1)

    def tell(event: Event) -> None:
        with suppress(OSError):  # the pool is gone: the pipe then also says stop, and the state is saved
            pipe.send(event)

    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return
        if job == "stop":
            return
        run, store_dir, study_dir = job
        try:
            outcome, reason = train(run, TokenStore(store_dir), study_dir, tell, pipe.poll, accelerator), ""
        except InputError as error:
            outcome, reason = Outcome.FAILED, str(error)
        except Exception as error:
            outcome, reason = Outcome.FAILED, f"{type(error).__name__}: {error}"
        if outcome is Outcome.INTERRUPTED:
            return
        tell(Ended(run.name, outcome, reason))
