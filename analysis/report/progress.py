"""How far a report is, for the caller to show."""

from collections.abc import Callable

Progress = Callable[[str, float], None]  # takes what is being done, and the share that is done, 0 to 1


def no_progress(stage: str, share: float) -> None:
    """Show nothing."""


def report_figure(progress: Progress, number: int, figures: int, name: str) -> None:
    """Report that one more figure is ready, "figure 7 of 18: learning curves"."""
    progress(f"figure {number} of {figures}: {name.replace('_', ' ')}", number / figures)
