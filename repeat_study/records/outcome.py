"""The messages that a run sends to the process that started it: its progress and its outcome.

This module does not import torch, because the import takes seconds.
"""

from dataclasses import dataclass
from enum import StrEnum

from data_prep.errors import InputError


class Outcome(StrEnum):
    """How a run's training ended."""

    DONE = "done"
    ALREADY_DONE = "already done"
    INTERRUPTED = "interrupted"  # stopped on request; the checkpoint includes all steps trained so far
    BUSY = "busy"  # another process is training this run
    FAILED = "failed"  # failed.json gives the reason


@dataclass(frozen=True)
class Ended:
    """How a run ended. `reason` is set if it failed."""

    run: str
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True)
class Progress:
    """The progress of a run, reported at every evaluation. The test loss is in nats per token."""

    run: str
    step: int
    steps: int
    test_loss: float
    resumed: bool = False
    tokens_per_second: float | None = None
    seconds_left: float | None = None


class FileFault(RuntimeError):
    """Raised to fail a run if a file no longer contains what was written to it. The message names the file."""


def reason_of(error: Exception) -> str:
    """Describe why a run failed, in one line."""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif isinstance(error, InputError | FileFault):  # the message already names the file or key
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error}"
    return " ".join(text.split())
