"""Give runs that were submitted before their data was prepared their final names.

A run's identity contains the fingerprints of its token stores. Until the stores are built, a run has a provisional name, under which
it is submitted. The job that writes the stores replaces these names in the records of all submissions, before the runs start.
"""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from data_prep.data_spec import DataSpec
from data_prep.errors import InputError
from data_prep.token_store import MANIFEST
from repeat_study.config.corpora import UNPREPARED
from repeat_study.config.grid import KnownRuns
from repeat_study.config.parents import Parents
from repeat_study.config.run import Run
from repeat_study.config.study import Study
from repeat_study.preparation import PreparedStudy, open_study
from repeat_study.records.recorded_run import final_test_losses
from slurm.submissions import Position, Submission, read_submissions, submission_lock

LOCK_SECONDS = 60.0  # to wait for a command that is submitting or cancelling runs


def stores_in_order(study: Study) -> list[DataSpec]:
    """Every store of a study and its ancestors. A store comes after the one whose tokenizer it uses."""
    specs = [spec for declared in study.lineage for spec in declared.stores]
    return list({spec.store_name: spec for spec in specs}.values())


def missing_stores(study: Study, data_dir: Path) -> list[Path]:
    """Folders of the token stores that a study and its ancestors need but that are not built."""
    folders = [data_dir / spec.store_name for spec in stores_in_order(study)]
    return [folder for folder in folders if not (folder / MANIFEST).is_file()]


def known_runs(study: Study, data_dir: Path, runs_dir: Path) -> KnownRuns:
    """The runs of a study, with provisional names if a token store is missing."""
    if not missing_stores(study, data_dir):
        return open_study(study, data_dir).known_runs(runs_dir)
    return study.known_runs(UNPREPARED, candidate_parents(study, data_dir, runs_dir))


def candidate_parents(study: Study, data_dir: Path, runs_dir: Path) -> Parents | None:
    """The runs of the parent study, with provisional names if a token store is missing; None if there is no parent study."""
    if not (parent := study.parent_study):
        return None
    runs = known_runs(parent, data_dir, runs_dir).runs
    return Parents(parent.name, runs, final_test_losses(runs_dir / parent.name, runs))


def positions(runs: Sequence[Run]) -> dict[str, Position]:
    """The position of each run among all runs of its study, by name."""
    seen: Counter[str] = Counter()
    by_name = {}
    for index, run in enumerate(runs):
        by_name[run.name] = Position(index, len(runs), run.label, seen[run.label])
        seen[run.label] += 1
    return by_name


def final_run(position: Position, runs: Sequence[Run]) -> Run | None:
    """The run at a position, or with the same label if there are more or fewer runs than before the data was prepared."""
    if len(runs) == position.count:
        return runs[position.index]
    same = [run for run in runs if run.label == position.label]
    return same[position.nth] if position.nth < len(same) else None


def resolve_submissions(prepared: PreparedStudy, runs_dir: Path) -> None:
    """Replace the provisional names in the records of all submissions of a study and its ancestors."""
    for stage in prepared.lineage:
        study_dir = runs_dir / stage.study.name
        if any(submission.provisional for submission in read_submissions(study_dir)):
            runs = stage.known_runs(runs_dir).runs
            _rename(study_dir, runs)
            from repeat_study.records.tensorboard.study_page import (
                write_study_page,
            )  # slow to import, and `status` does not need it

            write_study_page(study_dir, runs)


def _rename(study_dir: Path, runs: Sequence[Run]) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            with submission_lock(study_dir):
                for submission in read_submissions(study_dir):
                    if submission.provisional:
                        _rename_in(submission, runs)
                return
        except InputError:  # another process is submitting or cancelling runs
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def _rename_in(submission: Submission, runs: Sequence[Run]) -> None:
    final = {name: final_run(position, runs) for name, position in submission.provisional.items()}
    names = {name: run.name for name, run in final.items() if run}
    for array in submission.arrays:
        array.bundles = [[names.get(run, run) for run in bundle] for bundle in array.bundles]
    submission.cancelled = sorted(names.get(run, run) for run in submission.cancelled)
    submission.provisional = {}
    submission.write()
