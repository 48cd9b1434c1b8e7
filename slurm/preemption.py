"""How a job leaves its node: a signal sets a flag, training saves at the next step boundary, the batch script requeues the job.

SLURM sends TERM to every process of a job when it preempts, cancels or requeues the job. Before the time limit it sends the
signal that submitit requests (USR2). The default handlers do not fit: submitit would requeue in the middle of a step, and
Lightning would exit at TERM with nothing saved and an exit code that SLURM takes for success. So both are replaced, and
the batch script requeues the job (requeue.sh). By then the processes are gone and the run's lock is free, and a process
that was killed is handled in the same way.
"""

import signal
import sys
import threading
from importlib.resources import files
from typing import NoReturn

SAVED_MESSAGE = "its state is saved"  # ends the output of a job that was told to leave
REQUEUE_EXIT_CODE = 75  # of a job that was told to leave and saved its state: EX_TEMPFAIL in sysexits.h


class StopSignal:
    """Call it to ask whether one of the given signals has arrived; `received` names the signal."""

    def __init__(self, *names: str) -> None:
        """Install handlers for signals, named without SIG. Only the main thread can do this."""
        self._event = threading.Event()
        self.received = ""
        for name in names:
            signal.signal(signal.Signals[f"SIG{name}"], self._handle)

    def __call__(self) -> bool:
        """Whether a signal has arrived. Asked after every training step."""
        return self._event.is_set()

    def _handle(self, number: int, frame: object) -> None:
        self.received = signal.Signals(number).name
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Sleep until a signal arrives, but no longer than `seconds`; returns whether one has arrived."""
        return self._event.wait(seconds)


def exit_for_requeue() -> NoReturn:
    """Exit with the code that makes the batch script requeue the job."""
    sys.stdout.flush()
    sys.exit(REQUEUE_EXIT_CODE)


def requeue_lines() -> list[str]:
    """requeue.sh, the end of every batch script, line by line."""
    return files("slurm").joinpath("requeue.sh").read_text(encoding="utf-8").splitlines()
