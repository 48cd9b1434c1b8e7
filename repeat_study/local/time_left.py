"""Estimate the time left for all runs from the measured speed of runs that have been training for a while.

No estimate is given until one run has completed a tenth of its steps. Before that, an estimate can be wrong by a factor of
hundreds, because process start-up and the frequent early evaluations take most of the time.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from repeat_study.records.outcome import Progress

RELIABLE_SHARE = 0.1  # share of a run's steps after which its measured speed is considered reliable


@dataclass
class Group:
    """Runs that are trained together, and their measured times."""

    runs: tuple[str, ...]
    start: float | None  # time at which training began, in seconds; None while a new process is still importing modules
    # The share of each run's steps completed before this start, and the share completed so far.
    first_share: dict[str, float] = field(default_factory=dict)
    share: dict[str, float] = field(default_factory=dict)
    reported: tuple[float, float] | None = None  # time of the last report, and the seconds left at that time
    end: float | None = None


class TimeLeft:
    """Collects a scheduler's events; `seconds()` returns the estimate."""

    def __init__(self, work: Mapping[str, float], clock: Callable[[], float] = time.monotonic) -> None:
        """`work`: each run's expected training time in arbitrary units, by name."""
        self.work = work
        self.clock = clock
        self.finished: set[str] = set()
        self.groups: list[Group] = []
        self.max_running = 1

    def started(self, runs: tuple[str, ...], new_process: bool) -> None:
        """Record that a worker group has started to train these runs."""
        self.groups.append(Group(runs, None if new_process else self.clock()))
        self.max_running = max(self.max_running, len(self._running()))

    def progress(self, event: Progress) -> None:
        """Record that a run was evaluated, or that it resumed from a checkpoint."""
        group = self._group_of(event.run)
        if group is None:
            return
        if group.start is None:
            group.start = self.clock()
        share = event.step / event.steps
        group.first_share.setdefault(event.run, share if event.resumed else 0.0)
        group.share[event.run] = share
        if event.seconds_left is not None and share >= RELIABLE_SHARE:
            group.reported = self.clock(), event.seconds_left

    def ended(self, run: str) -> None:
        """Record that a run is done or has failed."""
        self.finished.add(run)
        group = self._group_of(run)
        if group and self.finished.issuperset(group.runs):
            group.end = self.clock()

    def restarted(self, run: str) -> None:
        """Record that a run's process has stopped and the run is waiting for a new one."""
        self.groups = [group for group in self.groups if run not in group.runs or group.end is not None]

    def seconds(self) -> float | None:
        """Estimated seconds until all runs have ended; None if too little has been measured."""
        if (pace := self._seconds_per_work()) is None:
            return None
        running = self._running()
        left = [self._seconds_left(group, pace) for group in running]
        begun = self.finished.union(*(group.runs for group in running))
        waiting = pace * sum(work for run, work in self.work.items() if run not in begun)
        return max([*left, (sum(left) + waiting) / self.max_running])

    def _running(self) -> list[Group]:
        return [group for group in self.groups if group.end is None]

    def _group_of(self, run: str) -> Group | None:
        return next((group for group in self._running() if run in group.runs), None)

    def _seconds_per_work(self) -> float | None:
        """Mean seconds per unit of work over all worker groups whose speed is reliable; None if there are none."""
        seconds = work = 0.0
        for group in self.groups:
            if group.start is None or group.reported is None:
                continue
            when, left = group.reported
            seconds += (when + left if group.end is None else group.end) - group.start
            for run in group.runs:
                # `left` includes the remaining steps of the runs in training, but not the steps that a failed run never took
                share = group.share.get(run, 0.0) if run in self.finished else 1.0
                work += self.work[run] * (share - group.first_share.get(run, 0.0))
        return seconds / work if work else None

    def _seconds_left(self, group: Group, pace: float) -> float:
        if group.reported:
            when, left = group.reported
            return max(0.0, left - (self.clock() - when))
        return pace * sum(self.work[run] * (1 - group.share.get(run, 0.0)) for run in group.runs)
