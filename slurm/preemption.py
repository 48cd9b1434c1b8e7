"""A job that has to leave its node: a signal sets a flag, training saves at the step boundary, the job requeues itself.

Three parties want the signals of a job. SLURM sends TERM when it preempts, cancels or requeues, and the one that submitit
asks for (USR2) before the time limit, to every process of the job. submitit would requeue inside its handler, in the middle
of a step; Lightning would leave at TERM with nothing saved and an exit code that SLURM takes for success. So both handlers
are replaced, and requeueing is left to the batch script: when it does so, the processes are gone and the run is free, and
it does the same for a process that was killed.
"""

import signal
import sys
import threading
from typing import NoReturn

SAVED_WORDS = "its state is saved"  # the last of a job that was told to leave
SAVED = 75  # exit code of a run that was told to leave and saved its state: EX_TEMPFAIL of sysexits.h


class Leave:
    """Whether a signal told this process to leave, and which."""

    def __init__(self, *names: str) -> None:
        """Take the signals of these names, without SIG; only the main thread can."""
        self._event = threading.Event()
        self.reason = ""
        for name in names:
            signal.signal(signal.Signals[f"SIG{name}"], self._take)

    def __call__(self) -> bool:
        """Asked after every step."""
        return self._event.is_set()

    def _take(self, number: int, frame: object) -> None:
        self.reason = signal.Signals(number).name
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Sleep, at most until a signal comes; says whether one came."""
        return self._event.wait(seconds)


def back_to_the_queue() -> NoReturn:
    """Leave in the way that the batch script answers by requeueing the job."""
    sys.stdout.flush()
    sys.exit(SAVED)


# Ends the batch script. Above 128: a process was killed by a signal, be it by hand or for want of memory. The job is named
# as an element of its array: the plain number of the element that started last is also that of the whole array. One that
# SLURM ends or requeues itself is no longer RUNNING; one that SLURM had given up with its node and that runs again elsewhere
# has been restarted more often than this script knows. slurmctld may be away for a while; what it refuses, it refuses again.
REQUEUE_LINES = f"""\
code=$?
job=${{SLURM_ARRAY_JOB_ID:+${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID}}
job=${{job:-$SLURM_JOB_ID}}
if [ $code -eq {SAVED} ] || {{ [ $code -gt 128 ] && [ $code -lt 192 ]; }}; then
  refused=0
  for attempt in $(seq 60); do
    if shown=$(timeout 20 scontrol show job --oneliner "$job"); then
      case "$shown" in
        *" JobState=RUNNING "*" Restarts=${{SLURM_RESTART_COUNT:-0}} "*) ;;
        *) break ;;
      esac
      if timeout 20 scontrol requeue "$job"; then
        echo "exit code $code: back to the queue"
        break
      fi
      refused=$((refused + 1))
      [ $refused -lt 3 ] || break
    fi
    sleep 5
  done
fi
exit $code""".splitlines()
