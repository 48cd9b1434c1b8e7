"""Show the progress of a build: as a bar on a terminal and as plain lines elsewhere."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from data_prep.document_batch import DETAILS

LINE_EVERY = 10.0  # seconds between plain progress lines


class BuildDisplay:
    """Progress callback for `prepare`. Use it as a context manager.

    The remaining time is extrapolated from the average speed so far, assuming that the corpus has `data.max_tokens`
    tokens. If it has fewer, the build finishes sooner.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        self.bars = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self.task: TaskID | None = None
        self.stage, self.start, self.first_share, self.last_line = "", 0.0, 0.0, 0.0

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def __call__(self, stage: str, share: float) -> None:
        """Report the current stage and how much of it is done (0 to 1). A bar is shown once the share is between 0 and 1."""
        now = time.monotonic()
        stage, _, details = stage.partition(DETAILS)
        if stage != self.stage:
            self.stage, self.start, self.first_share, self.last_line = stage, now, share, now
            if self.task is not None:
                self.bars.remove_task(self.task)
            self.task = None
            self.bars.console.print(f"data: {stage}")
        if self.task is None and 0 < share < 1:
            self.task = self.bars.add_task("", total=1.0)
        if self.task is not None:
            self.bars.update(
                self.task, completed=share, description=", ".join(filter(None, [f"data: {stage}", details]))
            )
        if now - self.last_line >= LINE_EVERY and not self.console.is_terminal and share > self.first_share:
            self.last_line = now
            left = (1 - share) / (share - self.first_share) * (now - self.start)
            rate = f", {details}" if details else ""
            self.bars.console.print(f"data: {stage} {share:.0%}{rate}, at most {left:.0f} s left")
