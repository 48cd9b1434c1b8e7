"""What a run reports to the process that started it: its progress, and how it ended. Imports no torch, which takes seconds."""

from dataclasses import dataclass
from enum import StrEnum

from data_prep.errors import InputError


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


class FileFault(RuntimeError):
    """A run fails because a file is not what was written; the message names the file."""


def reason_of(error: Exception) -> str:
    """Why a run failed, in one line."""
    named = isinstance(error, InputError | FileFault)  # its message names the place by itself
    if isinstance(error, OSError) and error.strerror:
        text, named = f"{error.filename}: {error.strerror}" if error.filename else error.strerror, True
    else:
        text = str(error)
    return " ".join((text if named else f"{type(error).__name__}: {text}").split())
