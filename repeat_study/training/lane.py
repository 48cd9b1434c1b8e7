"""A run in training, alone or as a lane in a bundle, with its directory, evaluation sets, clock and TensorBoard events."""

from dataclasses import dataclass, field
from typing import Any

from data_prep.token_store import find_store
from repeat_study.checkpoints.files import checkpointed_digests
from repeat_study.checkpoints.parents import FinishedParent, finished_parent, parent_weights
from repeat_study.config.run import Run
from repeat_study.model.hardware import precision_name
from repeat_study.probes.evaluation import Evaluator, evaluator
from repeat_study.records.completion import AlteredRecord, RecordWatch
from repeat_study.records.digests import record_digests
from repeat_study.records.evaluations import heads_of, rewind
from repeat_study.records.run_directory import RunDirectory
from repeat_study.records.tensorboard.run_writer import TensorBoardWriter
from repeat_study.training.divergence import Diverged
from repeat_study.training.session import Session


@dataclass
class Clock:
    """Seconds that a run has spent on each activity, summed over its sessions."""

    train: float = 0.0
    evaluation: float = 0.0
    saving: float = 0.0

    def add(self, account: str, seconds: float) -> None:
        """Add seconds to the field named by `account`."""
        setattr(self, account, getattr(self, account) + seconds)


@dataclass
class Lane:
    """A run in training, with everything needed to evaluate and record it."""

    run: Run
    directory: RunDirectory
    evaluator: Evaluator
    parent: FinishedParent | None = None
    parent_sha256: str | None = None  # checksum of the parent's weights if this session started from them
    previous_rows: list[dict[str, Any]] = field(default_factory=list)  # evaluations before this session
    clock: Clock = field(default_factory=Clock)
    tensorboard: TensorBoardWriter | None = None  # None except on the lead process
    watch: RecordWatch | None = None  # detects altered records; None except on the lead process
    # Checksums of the records up to the last evaluation; empty except on the lead process.
    digests: dict[str, str] = field(default_factory=dict)
    failure: Diverged | AlteredRecord | None = None  # if set, nothing more is written about the run

    def open_tensorboard(self) -> None:
        """Start writing TensorBoard events, including earlier evaluations that the existing event files lack."""
        rows = [row | timing for row, timing in zip(self.previous_rows, self.directory.timings(), strict=True)]
        heads = heads_of(self.directory, self.previous_rows)
        self.tensorboard = TensorBoardWriter(self.directory.path, self.run, zip(rows, heads, strict=True))


def open_lane(run: Run, directory: RunDirectory, step: int, session: Session) -> Lane:
    """Prepare a run to continue after `step` steps: find its parent, prepare its evaluation sets, and rewind its records to that step.

    Raises InputError if the parent is not finished or its weights are damaged, if an evaluation set cannot be built or its token
    store was altered, if the run was started with a different precision, or if records are missing or altered.
    """
    parent = finished_parent(run, directory.path.parent)
    if parent and not step:
        parent_weights(parent)  # damaged weights cause an error here, where it stops only this run
    needed = {test.fingerprint for test in run.further_tests} | run.training_fingerprints
    for fingerprint in needed | (parent.run.training_fingerprints if parent else set()):
        session.store_watch.add(find_store(session.store.folder.parent, fingerprint))
    lane = Lane(run, directory, evaluator(run, session.store, parent.run if parent else None), parent)
    if session.process_group.is_lead:
        directory.check_precision(precision_name(session.resources))
        evaluated = [due for due in run.evaluation.steps(run.steps) if due <= step] if step else []
        checkpoint_lists = checkpointed_digests(directory) if step else None
        lane.previous_rows = rewind(directory, step or -1, evaluated, checkpoint_lists)
        lane.digests = record_digests(directory, step)
        lane.watch = RecordWatch(directory.records)
        lane.watch.remember()
    return lane
