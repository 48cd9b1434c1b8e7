"""The grid on this machine: a few crews of processes, one run each; a run's failure or death stops no other."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path

from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.cost import work
from repeat_study.outcome import Outcome, Progress
from repeat_study.records import RunDirectory, Status
from repeat_study.resources import Resources
from repeat_study.run import Run
from slurm.crew import Crew, Ended

ATTEMPTS = 2  # times a run is tried when its process goes from outside and it got no further meanwhile


@dataclass(frozen=True)
class Restarted:
    """A run whose process died and which goes on from its checkpoint in a new one."""

    run: str
    reason: str


Event = Progress | Ended | Restarted


@dataclass
class Pool:
    """Trains runs on `processes` processes, or on `gpus` GPUs, until none is left or `stop` is asked for."""

    store: TokenStore
    study_dir: Path
    processes: int
    listen: Callable[[Event], None]
    resources: Resources = field(default_factory=Resources)
    gpus: int = 0
    ended: dict[str, Ended] = field(default_factory=dict)
    _crews: list[Crew] = field(default_factory=list)
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
        todo = deque(sorted(runs, key=work, reverse=True))
        for run in runs:
            if RunDirectory(self.study_dir / run.name).status() is Status.DONE:
                todo.remove(run)
                self._end(Ended(run.name, Outcome.ALREADY_DONE))
        try:
            for _ in range(min(places, len(todo))):
                self._hire(todo)
            while busy := [crew for crew in self._crews if crew.run]:
                self._listen_once(busy, todo)
        except KeyboardInterrupt:
            self._stop()
            raise
        finally:
            for crew in self._crews:
                crew.end()
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

    def _hire(self, todo: deque[Run]) -> None:
        crew = Crew.hire(self.resources, self._free_gpus.pop() if self._free_gpus else [])
        self._crews.append(crew)
        self._give(crew, todo)

    def _give(self, crew: Crew, todo: deque[Run]) -> None:
        crew.give(todo.popleft() if todo else None, self.store, self.study_dir)

    def _listen_once(self, busy: list[Crew], todo: deque[Run]) -> None:
        ready = wait([*(crew.lead for crew in busy), *(p.sentinel for crew in busy for p in crew.processes)])
        for crew in busy:
            if crew.lead in ready:
                try:
                    event = crew.lead.recv()
                except (EOFError, ConnectionResetError):
                    self._replace(crew, todo)
                    continue
                if isinstance(event, Ended) and event.outcome is Outcome.INTERRUPTED:
                    assert crew.run
                    self._dismiss(crew)
                    self._again(crew.run, "stopped from outside, its state saved", todo)
                elif isinstance(event, Ended):
                    self._end(event)
                    if event.outcome is Outcome.FAILED and len(crew.processes) > 1:
                        self._dismiss(crew)  # the others may still wait for the one that failed
                        self._hire(todo)
                    else:
                        self._give(crew, todo)
                else:
                    crew.moved |= event.step > 0 and not event.resumed
                    self.listen(event)
            elif any(process.sentinel in ready for process in crew.processes):
                self._replace(crew, todo)

    def _dismiss(self, crew: Crew) -> str:
        self._crews.remove(crew)
        if crew.gpus:
            self._free_gpus.append(crew.gpus)
        return crew.end(kill=True)

    def _replace(self, crew: Crew, todo: deque[Run]) -> None:
        assert crew.run
        run = crew.run
        reason = self._dismiss(crew)
        self._deaths[run.name] = 1 if crew.moved else self._deaths.get(run.name, 0) + 1
        if self._deaths[run.name] < ATTEMPTS:
            self._again(run, reason, todo)
        else:
            RunDirectory(self.study_dir / run.name).fail(reason)
            self._end(Ended(run.name, Outcome.FAILED, reason))
            self._hire(todo)

    def _again(self, run: Run, reason: str, todo: deque[Run]) -> None:
        todo.appendleft(run)
        self.listen(Restarted(run.name, reason))
        self._hire(todo)

    def _end(self, ended: Ended) -> None:
        self.ended[ended.run] = ended
        self.listen(ended)

    def _stop(self) -> None:
        """Ask every crew to save and leave; a second Ctrl-C kills them, which loses at most one evaluation interval."""
        try:
            for crew in self._crews:
                crew.ask_to_stop()
            for crew in self._crews:
                for process in crew.processes:
                    process.join()
        except KeyboardInterrupt:
            for crew in self._crews:
                for process in crew.processes:
                    process.kill()
