"""Report progress to the caller, which displays it."""

from collections.abc import Callable

Progress = Callable[[str, float], None]  # arguments: the current stage, and the share of it that is done, 0 to 1


def no_progress(stage: str, share: float) -> None:
    """Ignore progress."""


def report_figure(progress: Progress, number: int, figures: int, name: str) -> None:
    """Report that a figure is done: "figure 7 of 18: learning curves"."""
    progress(f"figure {number} of {figures}: {name.replace('_', ' ')}", number / figures)
