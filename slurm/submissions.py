"""What was submitted for a study: a folder per submission below its `sweeps/`, and which job has which run.

sweeps/<id>/sweep.json      what was asked for, the arrays with their runs in order, and what was cancelled
sweeps/<id>/logs/           submitit's: what each job printed, and its pickles
sweeps/source-<digest>/     the source that jobs are run with, shared by submissions of the same source

An array is recorded before it is submitted, under a name that nothing else in the queue has: a job is found by that name, so
a submission that was cut short leaves no job that nobody knows of.
"""

import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from submitit.core.utils import JobPaths

from data_prep.errors import InputError
from data_prep.files import exclusive_lock, read_record, write_json
from slurm.scheduler import Queued


@dataclass
class Array:
    """Runs that were submitted together."""

    name: str  # of the job, in the queue
    runs: list[str]  # names, in the order of the array's indices
    job: str | None = None  # None until sbatch has answered

    def job_of(self, run: str) -> str | None:
        """The run's job as people write it."""
        index = self.runs.index(run)
        return self.job if self.job is None or len(self.runs) == 1 else f"{self.job}_{index}"


@dataclass
class Submission:
    """One call of `sweep` or `resume` that submitted something."""

    folder: Path
    time: float  # seconds since the epoch
    allocation: dict[str, Any]  # all of it
    given: dict[str, Any]  # of it, on the command line
    resources: dict[str, Any]
    store: str
    source: str
    commit: str | None
    arrays: list[Array] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    @classmethod
    def new(cls, study_dir: Path, **what: Any) -> "Submission":
        """A submission with an id of its own; nothing is written yet."""
        now = datetime.now(UTC)
        folder = sweeps_dir(study_dir) / f"{now:%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}"
        return cls(folder, now.timestamp(), **what)

    @property
    def logs(self) -> Path:
        """Where jobs write what they print."""
        return self.folder / "logs"

    def write(self) -> None:
        """Record it, atomically."""
        record = asdict(self)
        del record["folder"]
        write_json(self.folder / "sweep.json", record)

    def log_files(self, run: str) -> list[Path]:
        """What the tasks of the run's job wrote to standard error, the first task's first."""
        array = next(array for array in self.arrays if run in array.runs)
        job = array.job_of(run)
        if job is None:
            return []
        first = JobPaths(self.logs, job_id=job, task_id=0).stderr
        return sorted(first.parent.glob(first.name.replace("_0_log", "_*_log")))


def sweeps_dir(study_dir: Path) -> Path:
    """Where submissions of a study are recorded."""
    return study_dir / "sweeps"


def only_one(study_dir: Path) -> AbstractContextManager[None]:
    """Held while something is submitted or cancelled; AlreadyLocked where another process does so."""
    return exclusive_lock(sweeps_dir(study_dir) / ".lock")


def submissions(study_dir: Path) -> list[Submission]:
    """All submissions of a study, the oldest first; InputError where a record is malformed."""
    return [_read(path) for path in sorted(sweeps_dir(study_dir).glob("*/sweep.json"))]


def latest(submitted: Sequence[Submission]) -> dict[str, Submission]:
    """The last submission of each run that sbatch is known to have taken."""
    return {run: one for one in submitted for array in one.arrays if array.job for run in array.runs}


def held_runs(submitted: Sequence[Submission], queue: dict[tuple[str, int], Queued]) -> dict[str, Queued]:
    """The runs that are in the queue, with their jobs."""
    places = {
        (array.name, index): run
        for submission in submitted
        for array in submission.arrays
        for index, run in enumerate(array.runs)
    }
    return {places[place]: job for place, job in queue.items() if place in places}


def _read(path: Path) -> Submission:
    record = read_record(path, *(key for key in Submission.__dataclass_fields__ if key != "folder"))
    try:
        arrays = [Array(**array) for array in record.pop("arrays")]
        return Submission(folder=path.parent, arrays=arrays, **record)
    except TypeError as error:
        raise InputError(f"{path}: malformed ({error}); restore it or delete its folder") from error
