"""Stop a job on a signal: set a flag, save at the next step boundary, and let the batch script requeue the job.

SLURM sends SIGTERM to every process in a job when it preempts, cancels or requeues the job. Shortly before the time limit, SLURM
sends the signal that submitit requests (SIGUSR2). The default handlers are unsuitable: submitit would requeue the job in the middle
of a step, and Lightning would exit on SIGTERM without saving and with an exit code that SLURM considers a success. This module
replaces both handlers. The batch script (requeue.sh) requeues the job after all processes have exited and the run is unlocked. It
also requeues a job whose process was killed.
"""

import signal
import sys
import threading
from importlib.resources import files
from typing import NoReturn

SAVED_MESSAGE = "its state is saved"  # how a job's output ends if the job saves its state after a signal
REQUEUE_EXIT_CODE = 75  # used after a signal, once the state is saved; EX_TEMPFAIL in sysexits.h


class StopSignal:
    """A callable that returns whether one of the given signals has arrived. `received` is the name of that signal."""

    def __init__(self, *names: str) -> None:
        """Install handlers for the named signals. Omit the prefix SIG. Only the main thread can install handlers."""
        self._event = threading.Event()
        self.received = ""
        for name in names:
            signal.signal(signal.Signals[f"SIG{name}"], self._handle)

    def __call__(self) -> bool:
        """Whether a signal has arrived. Called after every training step."""
        return self._event.is_set()

    def _handle(self, number: int, frame: object) -> None:
        self.received = signal.Signals(number).name
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Sleep until a signal arrives, for at most `seconds`. Returns whether a signal has arrived."""
        return self._event.wait(seconds)


def exit_for_requeue() -> NoReturn:
    """Exit with the code that makes the batch script requeue the job."""
    sys.stdout.flush()
    sys.exit(REQUEUE_EXIT_CODE)


def requeue_lines() -> list[str]:
    """The lines of requeue.sh, which are appended to every batch script."""
    return files("slurm").joinpath("requeue.sh").read_text(encoding="utf-8").splitlines()
