"""The code that jobs run to prepare a study's token stores: encode text, and write the stores."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from submitit import JobEnvironment
from submitit.helpers import DelayedSubmission

from data_prep.chunks.ledger import Ledger
from data_prep.chunks.plan import PLAN, Plan
from data_prep.document_batch import DETAILS
from data_prep.errors import InputError
from data_prep.prepare import encode_text, require_encoded
from repeat_study.config.study import Study
from repeat_study.preparation import prepare_study
from slurm.preemption import REQUEUE_EXIT_CODE, SAVED_MESSAGE, StopSignal, exit_for_requeue
from slurm.resolution import resolve_submissions, stores_in_order
from slurm.start_log import MAX_STARTS, record_progress


@dataclass(frozen=True)
class EncodeJob:
    """Encodes text together with the other jobs of its array. Stateless, like `TrainJob`."""

    study: Study
    data_dir: Path
    folder: Path  # working directory of the command that submitted the job, because sources can have relative paths

    def __call__(self) -> str:
        """Encode until all stores have enough text, or exit with the code that requeues the job."""
        stop = StopSignal("TERM", JobEnvironment.USR_SIG)
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        os.chdir(self.folder)
        self.data_dir.mkdir(parents=True, exist_ok=True)
        job = JobEnvironment()
        starts = job.paths.folder / f"{job.job_id}_starts.jsonl"
        if (without_progress := record_progress(starts, list(self._progress()))) >= MAX_STARTS:
            raise InputError(
                f"{self.data_dir}: killed {without_progress} times in a row without progress (out of memory?); see the job's log"
            )
        print_stage = _PrintStages()
        for spec in stores_in_order(self.study):
            if not encode_text(spec, self.data_dir, stop, print_stage):
                starts.unlink(missing_ok=True)
                print(f"{stop.received} received: encoding stopped and {SAVED_MESSAGE}", flush=True)
                return exit_for_requeue()
        return "encoded"

    def _progress(self) -> Iterator[int]:
        """The number of encoded chunks of every store."""
        for spec in stores_in_order(self.study):
            folder = spec.chunks_folder(self.data_dir)
            if (folder / PLAN).is_file():
                ledger = Ledger(spec, self.data_dir, Plan.load(folder))
                ledger.advance()
                yield ledger.next

    def checkpoint(self) -> DelayedSubmission:
        """Requeue the same call. submitit calls this if a signal arrives before `__call__` has replaced its handlers."""
        return DelayedSubmission(self)


@dataclass(frozen=True)
class WriteJob:
    """Writes the stores from the encoded text, and checks the study's data. Stateless, like `TrainJob`."""

    study: Study
    data_dir: Path
    runs_dir: Path
    folder: Path

    def __call__(self) -> str:
        """Write the stores, and give the runs that were submitted before their final names. A signal requeues the job."""
        for name in ("TERM", JobEnvironment.USR_SIG):
            # The state on disk is always complete, so the process can exit at any time.
            signal.signal(signal.Signals[f"SIG{name}"], _exit)
        os.chdir(self.folder)
        self.data_dir.mkdir(parents=True, exist_ok=True)
        for spec in stores_in_order(self.study):
            require_encoded(spec, self.data_dir)
        prepared = prepare_study(self.study, self.data_dir, _PrintStages())
        resolve_submissions(prepared, self.runs_dir)
        return "prepared"

    def checkpoint(self) -> DelayedSubmission:
        """Requeue the same call."""
        return DelayedSubmission(self)


def _exit(number: int, frame: object) -> None:
    print(f"{signal.Signals(number).name} received: {SAVED_MESSAGE}", flush=True)
    raise SystemExit(REQUEUE_EXIT_CODE)


class _PrintStages:
    """A progress callback that prints every stage once."""

    def __init__(self) -> None:
        self._stage = ""

    def __call__(self, stage: str, share: float) -> None:
        stage = stage.partition(DETAILS)[0]
        if stage != self._stage:
            print(stage, flush=True)
        self._stage = stage
