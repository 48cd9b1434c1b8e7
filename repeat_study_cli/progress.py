"""Show the progress of long computations on standard error: a bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from repeat_study_cli.arguments import progress_console

SECONDS_PER_LINE = 5.0
Report = Callable[[str, float | None], None]  # the current stage, and the completed share from 0 to 1; None if unknown


@contextmanager
def show_progress() -> Iterator[Report]:
    """Yield a function that reports progress. Without a terminal, it prints a line at most once every SECONDS_PER_LINE seconds."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    bars = Progress(*columns, console=progress_console, disable=not progress_console.is_terminal, transient=True)
    task = bars.add_task("", total=1.0)
    last_line = time.monotonic()

    def report(stage: str, share: float | None) -> None:
        nonlocal last_line
        if share is None:
            bars.reset(task, total=None, description=stage)
        else:
            bars.update(task, description=stage, completed=share)
        if not progress_console.is_terminal and time.monotonic() - last_line >= SECONDS_PER_LINE:
            last_line = time.monotonic()
            progress_console.print(stage if share is None else f"{stage}: {share:.0%}")

    with bars:
        yield report
