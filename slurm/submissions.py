"""What was submitted for a study: a folder per submission below its `sweeps/`, and which job has which run.

sweeps/<id>/sweep.json      what was asked for, the arrays with their runs in order, and what was cancelled
sweeps/<id>/logs/           submitit's: what each job printed, and its pickles
sweeps/source-<digest>/     the source that jobs are run with, shared by submissions of the same source

An array is recorded before it is submitted, under a name that nothing else in the queue has: a job is found by that name, so
a submission that was cut short leaves no job that nobody knows of.
"""

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from submitit.core.utils import JobPaths

from data_prep.errors import InputError
from data_prep.files import AlreadyLocked, exclusive_lock, write_json
from slurm.scheduler import Queued


@dataclass
class Array:
    """Runs that were submitted together."""

    name: str  # of the job, in the queue
    bundles: list[list[str]]  # names of the runs of each job, in the order of the array's indices
    job: str | None = None  # None until sbatch has answered

    @property
    def runs(self) -> list[str]:
        """Names of all its runs."""
        return [run for bundle in self.bundles for run in bundle]

    def job_of(self, run: str) -> str | None:
        """The run's job as people write it."""
        index = next(index for index, bundle in enumerate(self.bundles) if run in bundle)
        return self.job if self.job is None or len(self.bundles) == 1 else f"{self.job}_{index}"


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

    def job_of(self, run: str) -> str | None:
        """The run's job, None where sbatch is not known to have taken it."""
        return next(array for array in self.arrays if run in array.runs).job_of(run)

    def log_files(self, run: str) -> list[Path]:
        """What the tasks of the run's job wrote to standard error, the first task's first."""
        if not (job := self.job_of(run)):
            return []
        first = JobPaths(self.logs, job_id=job, task_id=0).stderr
        return sorted(first.parent.glob(first.name.replace("_0_log", "_*_log")))


def sweeps_dir(study_dir: Path) -> Path:
    """Where submissions of a study are recorded."""
    return study_dir / "sweeps"


@contextmanager
def only_one(study_dir: Path) -> Iterator[None]:
    """Held while something is submitted or cancelled; InputError where another process does so."""
    with ExitStack() as held:
        try:
            held.enter_context(exclusive_lock(sweeps_dir(study_dir) / ".lock"))
        except AlreadyLocked as error:
            raise InputError(
                f"{sweeps_dir(study_dir)}: another process submits or cancels runs of this study"
            ) from error
        yield


def submissions(study_dir: Path) -> list[Submission]:
    """All submissions of a study, the oldest first; InputError where a record is malformed."""
    found = [_read(path) for path in sweeps_dir(study_dir).glob("*/sweep.json")]
    return sorted(found, key=lambda submission: submission.time)


def latest(submitted: Sequence[Submission]) -> dict[str, Submission]:
    """The last submission of each run."""
    return {run: one for one in submitted for array in one.arrays for run in array.runs}


def held_runs(submitted: Sequence[Submission], queue: dict[tuple[str, int], Queued]) -> dict[str, list[Queued]]:
    """The runs that are in the queue, with their jobs."""
    places = {
        (array.name, index): bundle
        for submission in submitted
        for array in submission.arrays
        for index, bundle in enumerate(array.bundles)
    }
    held: dict[str, list[Queued]] = {}
    for place, job in queue.items():
        for run in places.get(place, []):
            held.setdefault(run, []).append(job)
    return held


def _read(path: Path) -> Submission:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        for array in (arrays := record.pop("arrays")):
            if "runs" in array:  # as it was written when every job had one
                array["bundles"] = [[run] for run in array.pop("runs")]
        arrays = [Array(**array) for array in arrays]
        return Submission(folder=path.parent, arrays=arrays, **record)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); restore it, or cancel its jobs, whose names end in {path.parent.name} and a"
            " number, and delete its folder"
        ) from error
