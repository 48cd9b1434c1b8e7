"""The grid on this machine: a few crews of processes, each with a run or a bundle of runs; a failure or death stops no other."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path

from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.config.resources import Resources
from repeat_study.config.run import Run
from repeat_study.cost import relative_time
from repeat_study.local.workers import WorkerGroup
from repeat_study.records.outcome import Ended, Outcome, Progress
from repeat_study.records.run_directory import RunDirectory, Status
from repeat_study.training.bundles import pack_bundles

ATTEMPTS = 2  # times a run is tried when its process goes from outside and it got no further meanwhile


@dataclass(frozen=True)
class Restarted:
    """A run whose process died and which goes on from its checkpoint in a new one."""

    run: str
    reason: str


Todo = deque[tuple[Run, ...]]
Event = Progress | Ended | Restarted


@dataclass
class LocalScheduler:
    """Trains runs on `processes` processes, or on `gpus` GPUs, until none is left or `stop` is asked for."""

    store: TokenStore
    study_dir: Path
    processes: int
    listen: Callable[[Event], None]
    resources: Resources = field(default_factory=Resources)
    gpus: int = 0
    ended: dict[str, Ended] = field(default_factory=dict)
    _crews: list[WorkerGroup] = field(default_factory=list)
    _free_gpus: list[list[int]] = field(default_factory=list)
    _deaths: dict[str, int] = field(default_factory=dict)

    def train(self, runs: Iterable[Run]) -> dict[str, Ended]:
        """Train every run that is not done, the costliest first, and say how each ended.

        Raises InputError before anything starts when the study's folder cannot be made or a run directory was made by
        another spec, and KeyboardInterrupt after all processes have saved their state.
        """
        runs = list(runs)
        try:
            self.study_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.study_dir}: cannot hold runs: {error.strerror}") from error
        places = self._places()
        for run in runs:
            RunDirectory(self.study_dir / run.name).check(run, self.store)
        open_runs = []
        for run in sorted(runs, key=relative_time, reverse=True):
            if RunDirectory(self.study_dir / run.name).status() is Status.DONE:
                self._end(Ended(run.name, Outcome.ALREADY_DONE))
            else:
                open_runs.append(run)
        packed = pack_bundles(open_runs, self.resources, self.store.vocabulary, self.gpus > 0, places)
        todo = deque(
            tuple(bundle) for bundle in sorted(packed, key=lambda bundle: sum(map(relative_time, bundle)), reverse=True)
        )
        try:
            for _ in range(min(places, len(todo))):
                self._hire(todo)
            while busy := [workers for workers in self._crews if workers.runs]:
                self._listen_once(busy, todo)
        except KeyboardInterrupt:
            self._stop()
            raise
        finally:
            for workers in self._crews:
                workers.end()
        return self.ended

    def _places(self) -> int:
        """How many crews fit on the machine, with the GPUs of each."""
        each = self.resources.processes_per_run
        if (there := self.gpus or self.processes) < each:
            kind = "GPUs" if self.gpus else "processes to give"
            raise InputError(f"resources.processes_per_run: {each} asked for, this machine has {there} {kind}")
        if not self.gpus:
            return self.processes // each
        self._free_gpus = [list(range(first, first + each)) for first in range(0, self.gpus - each + 1, each)]
        return len(self._free_gpus)

    def _hire(self, todo: Todo) -> None:
        workers = WorkerGroup.hire(self.resources, self._free_gpus.pop() if self._free_gpus else [])
        self._crews.append(workers)
        self._give(workers, todo)

    def _give(self, workers: WorkerGroup, todo: Todo) -> None:
        workers.give(todo.popleft() if todo else (), self.store, self.study_dir)

    def _listen_once(self, busy: list[WorkerGroup], todo: Todo) -> None:
        ready = wait(
            [*(workers.lead for workers in busy), *(p.sentinel for workers in busy for p in workers.processes)]
        )
        for workers in busy:
            if workers.lead in ready:
                try:
                    event = workers.lead.recv()
                except (EOFError, ConnectionResetError):
                    self._replace(workers, todo)
                    continue
                if isinstance(event, Progress):
                    workers.moved |= event.step > 0 and not event.resumed
                    self.listen(event)
                else:
                    self._ended(workers, event, todo)
            elif any(process.sentinel in ready for process in workers.processes):
                self._replace(workers, todo)

    def _ended(self, workers: WorkerGroup, ended: tuple[Ended, ...], todo: Todo) -> None:
        """All runs of a workers have left it."""
        stopped = {one.run for one in ended if one.outcome is Outcome.INTERRUPTED}
        for one in ended:
            if one.run not in stopped:
                self._end(one)
        if stopped:
            self._dismiss(workers)
            again = tuple(run for run in workers.runs if run.name in stopped)
            self._again(again, "stopped from outside, its state saved", todo)
        elif any(one.outcome is Outcome.FAILED for one in ended) and len(workers.processes) > 1:
            self._dismiss(workers)  # the others may still wait for the one that failed
            self._hire(todo)
        else:
            self._give(workers, todo)

    def _dismiss(self, workers: WorkerGroup) -> str:
        self._crews.remove(workers)
        if workers.gpus:
            self._free_gpus.append(workers.gpus)
        return workers.end(kill=True)

    def _replace(self, workers: WorkerGroup, todo: Todo) -> None:
        reason = self._dismiss(workers)
        left: tuple[Run, ...] = ()
        for run in workers.runs:
            directory = RunDirectory(self.study_dir / run.name)
            if directory.done.is_file():
                self._end(Ended(run.name, Outcome.DONE))
            elif directory.failed.is_file():  # it diverged before the process died
                self._end(Ended(run.name, Outcome.FAILED, directory.failure()))
            else:
                left = (*left, run)
        deaths = max((self._deaths.get(run.name, 0) for run in left), default=0)
        for run in left:
            self._deaths[run.name] = 1 if workers.moved else deaths + 1
        if not left:
            self._hire(todo)
        elif self._deaths[left[0].name] < ATTEMPTS:
            self._again(left, reason, todo)
        elif len(left) > 1:  # one of them may be what kills the process: each by itself
            for run in left[::-1]:
                self._deaths[run.name] = 0
                todo.appendleft((run,))
                self.listen(Restarted(run.name, reason))
            self._hire(todo)
        else:
            RunDirectory(self.study_dir / left[0].name).fail(reason)
            self._end(Ended(left[0].name, Outcome.FAILED, reason))
            self._hire(todo)

    def _again(self, runs: tuple[Run, ...], reason: str, todo: Todo) -> None:
        todo.appendleft(runs)
        for run in runs:
            self.listen(Restarted(run.name, reason))
        self._hire(todo)

    def _end(self, ended: Ended) -> None:
        self.ended[ended.run] = ended
        self.listen(ended)

    def _stop(self) -> None:
        """Ask every workers to save and leave; a second Ctrl-C kills them, which loses at most one evaluation interval."""
        try:
            for workers in self._crews:
                workers.ask_to_stop()
            for workers in self._crews:
                for process in workers.processes:
                    process.join()
        except KeyboardInterrupt:
            for workers in self._crews:
                for process in workers.processes:
                    process.kill()
