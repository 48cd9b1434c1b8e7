"""What a run tells whoever placed it: how far it is, and how it ended. Needs no torch, so neither does placing runs."""

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How a call of `runner.train` ended."""

    DONE = "done"
    ALREADY_DONE = "already done"
    INTERRUPTED = "interrupted"  # asked to stop; the checkpoint holds every step made
    BUSY = "busy"  # another process is training this run
    FAILED = "failed"  # the run's own fault; failed.json says why


@dataclass(frozen=True)
class Ended:
    """A run that left its processes, and why where it failed."""

    run: str
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True)
class Progress:
    """Where a run is, sent at every evaluation."""

    run: str
    step: int
    steps: int
    test_loss: float
    resumed: bool = False
    tokens_per_second: float | None = None
    seconds_left: float | None = None
