"""Record a study's submissions, one folder per submission under `sweeps/`, and look up the jobs that train its runs.

sweeps/<id>/sweep.json      the requested resources, the arrays with their runs in order, and the cancelled runs
sweeps/<id>/logs/           the output and the pickles of the jobs, written by submitit
sweeps/source-<digest>/     the source code that jobs run, shared by all submissions with the same code

Each array is recorded under a unique job name before it is submitted. Jobs are looked up by that name, so that an interrupted
submission leaves no untracked jobs.
"""

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_prep.errors import InputError
from data_prep.files import AlreadyLocked, exclusive_lock, read_regular, write_json
from slurm.client import Queue, QueuedJob


@dataclass
class Array:
    """A job array; each job trains one bundle of runs."""

    name: str  # the job name in the queue
    bundles: list[list[str]]  # names of the runs in each job, in order of array index
    job_id: str | None = None  # None until sbatch has accepted the array

    @property
    def runs(self) -> list[str]:
        """Names of all runs in the array."""
        return [run for bundle in self.bundles for run in bundle]

    def job_id_of(self, run: str) -> str | None:
        """Id of the job that trains a run, as SLURM prints it; None if the array was not accepted."""
        index = next(index for index, bundle in enumerate(self.bundles) if run in bundle)
        return self.job_id if self.job_id is None or len(self.bundles) == 1 else f"{self.job_id}_{index}"


@dataclass(frozen=True)
class Position:
    """Where a run with a provisional name is in its study."""

    index: int  # among all runs of the study
    count: int  # of runs in the study
    label: str
    nth: int  # among the runs with the same label


@dataclass
class Submission:
    """One call to `sweep`, `resume` or `prepare` that submitted jobs."""

    folder: Path
    time: float  # seconds since the epoch
    allocation: dict[str, Any]  # the allocation after merging all sources
    options: dict[str, Any]  # the options given on the command line
    resources: dict[str, Any]
    store: str
    source: str
    commit: str | None
    arrays: list[Array] = field(default_factory=list)
    preparation: list[Array] = field(default_factory=list)  # jobs that encode text, and the job that writes the stores
    provisional: dict[str, Position] = field(
        default_factory=dict
    )  # runs with provisional names; see `slurm.resolution`
    cancelled: list[str] = field(default_factory=list)

    @classmethod
    def new(cls, study_dir: Path, **fields: Any) -> "Submission":
        """Create a submission with a new id, without writing it to disk."""
        now = datetime.now(UTC)
        folder = sweeps_dir(study_dir) / f"{now:%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}"
        return cls(folder, now.timestamp(), **fields)

    @property
    def logs(self) -> Path:
        """The folder for the jobs' output."""
        return self.folder / "logs"

    @property
    def runs(self) -> list[str]:
        """Names of all runs in the submission."""
        return [run for array in self.arrays for run in array.runs]

    def write(self) -> None:
        """Write sweep.json atomically."""
        record = asdict(self)
        del record["folder"]
        write_json(self.folder / "sweep.json", record)

    def job_id_of(self, run: str) -> str | None:
        """Id of the job that trains a run; None if the submission does not record one."""
        return next(array for array in self.arrays if run in array.runs).job_id_of(run)

    def error_logs(self, run: str) -> list[Path]:
        """The standard-error files of the run's job, one per task, starting with the first task."""
        return self.error_logs_of_job(self.job_id_of(run))

    def error_logs_of_job(self, job_id: str | None) -> list[Path]:
        """The standard-error files of a job, one per task, starting with the first task."""
        if not job_id:
            return []
        from submitit.core.utils import JobPaths  # imported here because it takes 0.05 s and `status` rarely needs it

        first = JobPaths(self.logs, job_id=job_id, task_id=0).stderr
        return sorted(first.parent.glob(first.name.replace("_0_log", "_*_log")))


def sweeps_dir(study_dir: Path) -> Path:
    """The folder that contains a study's submissions."""
    return study_dir / "sweeps"


@contextmanager
def submission_lock(study_dir: Path) -> Iterator[None]:
    """Lock the study while jobs are submitted or cancelled. Raises InputError if another process has locked it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive_lock(sweeps_dir(study_dir) / ".lock"))
        except AlreadyLocked as error:
            raise InputError(
                f"{sweeps_dir(study_dir)}: another process is submitting or cancelling runs of this study"
            ) from error
        yield


def read_submissions(study_dir: Path) -> list[Submission]:
    """All submissions of a study, oldest first. Raises InputError if a record is malformed."""
    submissions = [_read(path) for path in sweeps_dir(study_dir).glob("*/sweep.json")]
    return sorted(submissions, key=lambda submission: submission.time)


def latest_submission_by_run(submissions: Sequence[Submission]) -> dict[str, Submission]:
    """The latest submission of each run. `submissions` must be sorted from oldest to newest."""
    return {run: submission for submission in submissions for run in submission.runs}


def jobs_by_run(submissions: Sequence[Submission], queue: Queue) -> dict[str, list[QueuedJob]]:
    """Map the name of each queued run to its jobs."""
    bundles = {
        (array.name, index): bundle
        for submission in submissions
        for array in submission.arrays
        for index, bundle in enumerate(array.bundles)
    }
    jobs: dict[str, list[QueuedJob]] = {}
    for name_and_index, job in queue.items():
        for run in bundles.get(name_and_index, []):
            jobs.setdefault(run, []).append(job)
    return jobs


def preparation_jobs(submissions: Sequence[Submission], queue: Queue) -> list[QueuedJob]:
    """The queued jobs that prepare the study's data."""
    names = {array.name for submission in submissions for array in submission.preparation}
    return [job for (name, _), job in queue.items() if name in names]


def _read(path: Path) -> Submission:
    try:
        record = json.loads(read_regular(path))
        for key in ("arrays", "preparation"):  # older records have no preparation
            record[key] = [Array(**array) for array in record.get(key, [])]
        record["provisional"] = {name: Position(**position) for name, position in record.get("provisional", {}).items()}
        return Submission(folder=path.parent, **record)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); restore it, or cancel the jobs named *.{path.parent.name}.* and delete its folder"
        ) from error
