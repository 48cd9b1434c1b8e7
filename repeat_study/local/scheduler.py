"""Train a study's runs on this machine in several worker groups. If one run fails or its process dies, the others continue."""

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
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

MAX_DEATHS = 2  # a run whose process dies this many times in a row without progress is marked as failed


@dataclass(frozen=True)
class Started:
    """A worker group has started to train these runs together."""

    runs: tuple[str, ...]
    new_process: bool  # whether the group must import torch first


@dataclass(frozen=True)
class Restarted:
    """A run's process has stopped or died; the run will continue from its checkpoint in a new process."""

    run: str
    reason: str


Event = Started | Progress | Ended | Restarted


@dataclass
class LocalScheduler:
    """Trains runs on `processes` processes or `gpus` GPUs until all runs have ended."""

    store: TokenStore
    study_dir: Path
    processes: int
    on_event: Callable[[Event], None]
    resources: Resources = field(default_factory=Resources)
    gpus: int = 0
    ended: dict[str, Ended] = field(default_factory=dict)
    _todo: deque[tuple[Run, ...]] = field(default_factory=deque)
    _groups: list[WorkerGroup] = field(default_factory=list)
    _free_gpus: list[list[int]] = field(default_factory=list)  # GPU indices for each group that can still be started
    _deaths: dict[str, int] = field(default_factory=dict)

    def train(self, runs: Iterable[Run]) -> dict[str, Ended]:
        """Train every run that is not done, starting with the most expensive one. Returns how each run ended, by name.

        Raises InputError before any training if the study's folder cannot be created or a run directory belongs to a different
        spec. After Ctrl-C, KeyboardInterrupt is raised once all workers have saved their state.
        """
        runs = list(runs)
        try:
            self.study_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.study_dir}: cannot be created: {error.strerror}") from error
        groups = self._count_groups()
        for run in runs:
            RunDirectory(self.study_dir / run.name).check(run, self.store)
        unfinished = []
        for run in sorted(runs, key=relative_time, reverse=True):
            if RunDirectory(self.study_dir / run.name).status() is Status.DONE:
                self._record(Ended(run.name, Outcome.ALREADY_DONE))
            else:
                unfinished.append(run)
        bundles = pack_bundles(unfinished, self.resources, self.store.vocabulary, self.gpus > 0, groups)
        bundles.sort(key=lambda bundle: sum(map(relative_time, bundle)), reverse=True)
        self._todo.extend(tuple(bundle) for bundle in bundles)
        try:
            for _ in range(groups):
                self._start_group()
            while busy := [group for group in self._groups if group.runs]:
                self._handle_messages(busy)
        except KeyboardInterrupt:
            self._stop()
            raise
        finally:
            for group in self._groups:
                group.end()
        return self.ended

    def _count_groups(self) -> int:
        """Return how many worker groups this machine can run, and divide the GPUs among them."""
        size = self.resources.processes_per_run
        if (available := self.gpus or self.processes) < size:
            kind = "GPUs" if self.gpus else "processes"
            raise InputError(
                f"resources.processes_per_run: {size} requested, but only {available} {kind} are available"
            )
        if not self.gpus:
            return self.processes // size
        self._free_gpus = [list(range(first, first + size)) for first in range(0, self.gpus - size + 1, size)]
        return len(self._free_gpus)

    def _start_group(self) -> None:
        """Start a worker group for the next runs, if there are any."""
        if self._todo:
            group = WorkerGroup.start(self.resources, self._free_gpus.pop() if self._free_gpus else [])
            self._groups.append(group)
            self._assign_next(group, new_process=True)

    def _assign_next(self, group: WorkerGroup, new_process: bool = False) -> None:
        group.assign(self._todo.popleft() if self._todo else (), self.store, self.study_dir)
        if group.runs:
            self.on_event(Started(tuple(run.name for run in group.runs), new_process))

    def _handle_messages(self, busy: list[WorkerGroup]) -> None:
        ready = wait([*(group.lead for group in busy), *(p.sentinel for group in busy for p in group.processes)])
        for group in busy:
            if group.lead in ready:
                try:
                    event = group.lead.recv()
                except (EOFError, ConnectionResetError):
                    self._handle_death(group)
                    continue
                if isinstance(event, Progress):
                    group.progressed |= event.step > 0 and not event.resumed
                    self.on_event(event)
                else:
                    self._handle_ended(group, event)
            elif any(process.sentinel in ready for process in group.processes):
                self._handle_death(group)

    def _handle_ended(self, group: WorkerGroup, ended: tuple[Ended, ...]) -> None:
        """Record how an assignment's runs ended, and give the group its next assignment."""
        stopped = {end.run for end in ended if end.outcome is Outcome.INTERRUPTED}
        for end in ended:
            if end.run not in stopped:
                self._record(end)
        if stopped:  # another process sent the group a signal
            self._remove(group)
            runs = tuple(run for run in group.runs if run.name in stopped)
            self._restart(runs, "stopped from outside, state saved")
        elif any(end.outcome is Outcome.FAILED for end in ended) and len(group.processes) > 1:
            self._remove(group)  # its other processes may still be waiting for the one that failed
            self._start_group()
        else:
            self._assign_next(group)

    def _remove(self, group: WorkerGroup) -> str:
        """End a group's processes. Returns a description of how the first failed process ended."""
        self._groups.remove(group)
        if group.gpus:
            self._free_gpus.append(group.gpus)
        return group.end(kill=True)

    def _handle_death(self, group: WorkerGroup) -> None:
        """After a process has died, restart its group's unfinished runs or mark them as failed."""
        reason = self._remove(group)
        unfinished: tuple[Run, ...] = ()
        for run in group.runs:
            directory = RunDirectory(self.study_dir / run.name)
            if directory.status() is Status.DONE:
                self._record(Ended(run.name, Outcome.DONE))
            elif directory.failed.is_file():  # it diverged before the process died
                self._record(Ended(run.name, Outcome.FAILED, directory.failure()))
            else:
                unfinished = (*unfinished, run)
        deaths = 1 if group.progressed else 1 + max((self._deaths.get(run.name, 0) for run in unfinished), default=0)
        self._deaths |= dict.fromkeys((run.name for run in unfinished), deaths)
        if not unfinished:
            self._start_group()
        elif deaths < MAX_DEATHS:
            self._restart(unfinished, reason)
        elif len(unfinished) > 1:  # one of them may be the cause, so train each alone
            for run in unfinished[::-1]:
                self._deaths[run.name] = 0
                self._todo.appendleft((run,))
                self.on_event(Restarted(run.name, reason))
            self._start_group()
        else:
            with suppress(InputError):  # e.g. if the disk is full; this error must not hide the original one
                RunDirectory(self.study_dir / unfinished[0].name).fail(reason)
            self._record(Ended(unfinished[0].name, Outcome.FAILED, reason))
            self._start_group()

    def _restart(self, runs: tuple[Run, ...], reason: str) -> None:
        self._todo.appendleft(runs)
        for run in runs:
            self.on_event(Restarted(run.name, reason))
        self._start_group()

    def _record(self, ended: Ended) -> None:
        self.ended[ended.run] = ended
        self.on_event(ended)

    def _stop(self) -> None:
        """Let every group save its state and exit. A second Ctrl-C kills all processes, which loses the steps since the last save."""
        try:
            for group in self._groups:
                group.ask_to_stop()
            for group in self._groups:
                for process in group.processes:
                    process.join()
        except KeyboardInterrupt:
            for group in self._groups:
                for process in group.processes:
                    process.kill()
