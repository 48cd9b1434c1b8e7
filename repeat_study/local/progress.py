"""Shows a pool at work: a live display on a terminal, plain lines elsewhere."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from repeat_study.config.run import Run
from repeat_study.cost import relative_time
from repeat_study.local.scheduler import Event
from repeat_study.records.outcome import Ended, Outcome
from repeat_study.records.outcome import Progress as RunProgress

LINE_EVERY = 30.0  # seconds between plain progress lines


class ProgressDisplay:
    """Listens to a pool's events; use as a context manager around its work."""

    def __init__(self, runs: list[Run], console: Console) -> None:
        self.console = console
        self.labels = {run.name: run.label for run in runs}
        self.work = {run.name: relative_time(run) for run in runs}
        self.done_share = dict.fromkeys(self.work, 0.0)
        self.found_share: dict[str, float] = {}  # what an earlier call had done already
        self.ended = 0
        self.begun = self.last_line = time.monotonic()
        self.bars = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%  {task.fields[note]}"),
            console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self.total = self.bars.add_task("all runs", total=1.0, note="")
        self.bar_of: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def __call__(self, event: Event) -> None:
        """Take one event from the pool."""
        label = self.labels[event.run]
        if isinstance(event, RunProgress):
            self._progress(event, label)
        elif isinstance(event, Ended):
            self._ended(event, label)
        else:
            self._say(f"{label}: {event.reason}; going on from its last checkpoint")
        self._overall()

    def _progress(self, event: RunProgress, label: str) -> None:
        share = event.step / event.steps
        self.found_share.setdefault(event.run, share if event.resumed else 0.0)
        if event.resumed:
            self._say(f"{label}: resumed at step {event.step} of {event.steps}")
        self.done_share[event.run] = share
        if event.run not in self.bar_of:
            self.bar_of[event.run] = self.bars.add_task(label, total=1.0, note="")
        note = f"step {event.step}/{event.steps}  test loss {event.test_loss:.3f}"
        if event.tokens_per_second and event.seconds_left:
            note += f"  {event.tokens_per_second:,.0f} tokens/s, {event.seconds_left / 60:.1f} min left"
        self.bars.update(self.bar_of[event.run], completed=share, note=note)

    def _ended(self, event: Ended, label: str) -> None:
        self.ended += 1
        self.done_share[event.run] = 1.0
        if event.outcome is Outcome.ALREADY_DONE:
            self.found_share[event.run] = 1.0
        else:
            self.found_share.setdefault(event.run, 0.0)
        if event.run in self.bar_of:
            self.bars.remove_task(self.bar_of.pop(event.run))
        word = event.outcome.value + (f": {event.reason}" if event.reason else "")
        self._say(f"[{self.ended}/{len(self.work)}] {label}: {word}")

    def _overall(self) -> None:
        total = sum(self.work.values())
        done = sum(self.work[run] * share for run, share in self.done_share.items())
        here = done - sum(self.work[run] * share for run, share in self.found_share.items())
        spent = time.monotonic() - self.begun
        left = f"about {(total - done) / here * spent / 60:.1f} min left" if here > 0 and spent > 5 else ""
        self.bars.update(self.total, completed=done / total, note=left)
        if not self.console.is_terminal and time.monotonic() - self.last_line > LINE_EVERY:
            self.last_line = time.monotonic()
            self._say(f"{done / total:4.0%} of the work, {self.ended} of {len(self.work)} runs ended, {left}")

    def _say(self, line: str) -> None:
        self.bars.console.print(Text(line))
