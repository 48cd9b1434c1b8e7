"""How long measurements report their progress."""

from collections.abc import Callable

Report = Callable[[str], None]  # called with what is measured next


def ignore(stage: str) -> None:
    """Report nothing."""
