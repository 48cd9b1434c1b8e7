"""What a run reports to the process that started it: its progress, and how it ended. Imports no torch, which takes seconds."""

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How training a run ended."""

    DONE = "done"
    ALREADY_DONE = "already done"
    INTERRUPTED = "interrupted"  # on request; the checkpoint holds every step trained so far
    BUSY = "busy"  # another process is training this run
    FAILED = "failed"  # failed.json gives the reason


@dataclass(frozen=True)
class Ended:
    """The end of a run's process; `reason` is given if the run failed."""

    run: str
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True)
class Progress:
    """How far a run has come, reported at every evaluation; test loss in nats per token."""

    run: str
    step: int
    steps: int
    test_loss: float
    resumed: bool = False
    tokens_per_second: float | None = None
    seconds_left: float | None = None
