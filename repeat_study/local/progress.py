"""Show the scheduler's progress as bars on a terminal or as plain lines elsewhere, and summarize it at the end."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from repeat_study.config.run import Run
from repeat_study.cost import relative_time
from repeat_study.formatting import duration, plural
from repeat_study.local.scheduler import Event, Restarted, Started
from repeat_study.local.time_left import TimeLeft
from repeat_study.records.outcome import Ended, Outcome
from repeat_study.records.outcome import Progress as RunProgress

LINE_EVERY = 30.0  # seconds between plain progress lines
BAR_WIDTH = 20  # characters
MAX_LABEL = 40  # characters on a terminal; longer labels are shortened in the middle


class ProgressDisplay:
    """Displays a scheduler's events. Use it as a context manager around the training."""

    def __init__(self, runs: Sequence[Run], console: Console) -> None:
        self.console = console
        self.labels = {run.name: run.label for run in runs}
        self.work = {run.name: relative_time(run) for run in runs}
        self.share = dict.fromkeys(self.work, 0.0)  # completed share of each run's steps
        self.time_left = TimeLeft(self.work)
        self.ended = 0
        self.last_line = time.monotonic()
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(BAR_WIDTH),
            TextColumn("{task.percentage:>3.0f}%  {task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
        )
        longest = max((len(label) for label in self.labels.values()), default=0)
        self.note_width = console.width - min(longest, MAX_LABEL) - BAR_WIDTH - len("  100%   ")
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
        """Display one event."""
        if isinstance(event, Started):
            self._started(event)
        elif isinstance(event, RunProgress):
            self._progress(event)
        elif isinstance(event, Ended):
            self._ended(event)
        else:
            self._restarted(event)
        self._show_total()

    def _started(self, event: Started) -> None:
        self.time_left.started(event.runs, event.new_process)
        for run in event.runs:
            self._show_bar(run, ["starting"])
        if not self.console.is_terminal:
            self._print(f"starting {', '.join(self.labels[run] for run in event.runs)}")

    def _progress(self, event: RunProgress) -> None:
        self.time_left.progress(event)
        self.share[event.run] = event.step / event.steps
        if event.resumed:
            self._print(f"{self.labels[event.run]}: resumed at step {event.step} of {event.steps}")
        note = [f"step {event.step}/{event.steps}", f"test loss {event.test_loss:.3f}"]
        if event.tokens_per_second and event.seconds_left:
            note += [f"{duration(event.seconds_left)} left", f"{event.tokens_per_second:,.0f} tokens/s"]
        self._show_bar(event.run, note)

    def _ended(self, event: Ended) -> None:
        self.time_left.ended(event.run)
        self.ended += 1
        self.share[event.run] = 1.0
        if event.run in self.bar_of:
            self.bars.remove_task(self.bar_of.pop(event.run))
        outcome = event.outcome.value + (f": {event.reason}" if event.reason else "")
        self._print(f"[{self.ended}/{len(self.work)}] {self.labels[event.run]}: {outcome}")

    def _restarted(self, event: Restarted) -> None:
        self.time_left.restarted(event.run)
        self._print(f"{self.labels[event.run]}: {event.reason}; restarting from its last checkpoint")

    def _show_bar(self, run: str, note: Sequence[str]) -> None:
        if run not in self.bar_of:
            label = shorten_middle(self.labels[run], MAX_LABEL)
            self.bar_of[run] = self.bars.add_task(label, total=1.0, note="")
        self.bars.update(self.bar_of[run], completed=self.share[run], note=join_fitting(note, self.note_width))

    def _show_total(self) -> None:
        done = sum(self.work[run] * share for run, share in self.share.items()) / sum(self.work.values())
        seconds = self.time_left.seconds()
        left = [] if seconds is None else [f"about {duration(seconds)} left"]
        self.bars.update(self.total, completed=done, note=join_fitting(left, self.note_width))
        if not self.console.is_terminal and time.monotonic() - self.last_line > LINE_EVERY:
            self.last_line = time.monotonic()
            ended = f"{self.ended} of {len(self.work)} runs ended"
            self._print(", ".join([f"{done:.0%} of the training done", ended, *left]))

    def _print(self, line: str) -> None:
        self.bars.console.print(Text(line))


def summary_lines(
    runs: Sequence[Run], ended: Mapping[str, Ended], test_losses: Mapping[str, float], seconds: float
) -> list[str]:
    """Summarize training: the number of runs with each outcome, the total time, and the range of final test losses.

    test_losses: each finished run's final test loss in nats per token, by name.
    """
    counts = Counter(end.outcome for end in ended.values())
    parts = [f"{counts[outcome]} {outcome.value}" for outcome in Outcome if counts[outcome]]
    lines = [f"{plural(len(ended), 'run')}: {', '.join(parts)}; took {duration(seconds)}"]
    losses = {run.label: test_losses[run.name] for run in runs if run.name in test_losses}
    if losses:
        lowest, highest = min(losses, key=losses.__getitem__), max(losses, key=losses.__getitem__)
        line = f"final test loss in nats per token: {losses[lowest]:.3f} ({lowest})"
        lines.append(line + (f" to {losses[highest]:.3f} ({highest})" if highest != lowest else ""))
    return lines


def shorten_middle(text: str, width: int) -> str:
    """Shorten a text by replacing its middle with …, because the end of a label contains R and the seed."""
    if len(text) <= width:
        return text
    tail = 2 * width // 3
    return text[: width - 1 - tail] + "…" + text[-tail:]


def join_fitting(parts: Sequence[str], width: int) -> str:
    """Join as many parts as fit in the width, separated by two spaces. No part is cut."""
    line = ""
    for part in parts:
        longer = f"{line}  {part}" if line else part
        if len(longer) > width:
            break
        line = longer
    return line
