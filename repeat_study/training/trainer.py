"""Train runs in their directories: lock the directories, train, and record how each run ended.

`train_bundle` takes these steps:
1. Lock the directories, so that no other process trains these runs.
2. Find the step of each run's checkpoint.
3. Train the runs that are furthest behind until they catch up with the next ones. Repeat this until every run has ended.
4. Return how each run ended.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from data_prep.errors import InputError
from data_prep.files import AlreadyLocked, exclusive_lock
from data_prep.token_store import TokenStore
from repeat_study.checkpoints.files import checkpointed_step
from repeat_study.config.resources import Resources
from repeat_study.config.run import Run
from repeat_study.model.hardware import uses_cuda
from repeat_study.records.outcome import Outcome, Progress, reason_of
from repeat_study.records.run_directory import RunDirectory, Status
from repeat_study.training.bundles import bundle_key
from repeat_study.training.distributed import ProcessGroup
from repeat_study.training.lane import Lane, open_lane
from repeat_study.training.lockstep import Ending, train_lanes
from repeat_study.training.session import Session
from repeat_study.training.store_watch import StoreWatch

Result = TypeVar("Result")


def train(
    run: Run,
    store: TokenStore,
    study_dir: Path,
    report: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    resources: Resources | None = None,
) -> Outcome:
    """Train one run to its end in its directory under `study_dir`, resuming from its checkpoint if there is one.

    report: called at every evaluation.
    should_stop: called after every step. If it returns true, or if SIGTERM arrives, the run is saved and this function returns.

    Processes that were started with torchrun's environment variables share the run, and all of them return the same outcome.
    Raises InputError if the directory belongs to a different spec. Any other error is recorded in failed.json and then raised.
    """
    ending = train_bundle([run], store, study_dir, report, should_stop, resources)[run.name]
    if isinstance(ending, Exception):
        raise ending
    return ending


def train_bundle(
    runs: Sequence[Run],
    store: TokenStore,
    study_dir: Path,
    report: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    resources: Resources | None = None,
) -> dict[str, Ending]:
    """Train runs with the same `bundle_key` in lockstep, each in its own directory. Returns each run's outcome by name.

    Runs that are done, or that another process is training, are skipped. A run that diverges is marked as failed, and its outcome is
    the Diverged error. If a run's directory or parent cannot be used, its outcome is the InputError. The other runs continue.
    The arguments are the same as for `train`. An error that affects all runs is recorded in every unfinished run and then raised.
    """
    resources = resources or Resources()
    session = Session(store, resources, ProcessGroup.from_environment(), StoreWatch(store), report, should_stop)
    directories = {run: RunDirectory(study_dir / run.name) for run in runs}
    assert len(runs) == 1 or session.process_group.world == 1, "several processes can share only one run"
    assert len({bundle_key(run) for run in runs}) == 1, "these runs cannot share a bundle"
    session.process_group.join(uses_cuda(resources))
    try:
        with claimed(directories, session) as ended_before:
            open_runs = {run: directory for run, directory in directories.items() if run.name not in ended_before}
            endings = ended_before | _train_claimed(open_runs, session)
    finally:
        session.process_group.leave()
    return {run.name: endings[run.name] for run in runs}


@contextmanager
def claimed(directories: dict[Run, RunDirectory], session: Session) -> Iterator[dict[str, Ending]]:
    """Lock the directories while the context is open. Yields, by name, the outcomes of runs that need no training or cannot be trained.

    The lead process locks the directories and broadcasts these outcomes. If it fails, it broadcasts FAILED for all runs.
    """
    endings: dict[str, Ending] = dict.fromkeys((run.name for run in directories), Outcome.FAILED)
    with ExitStack() as locks:
        try:
            if session.process_group.is_lead:
                claims = {
                    run.name: _claim(run, directory, session.store, locks) for run, directory in directories.items()
                }
                endings = {name: ending for name, ending in claims.items() if ending is not None}
        finally:
            endings = session.process_group.broadcast(endings)
        yield endings


def _claim(run: Run, directory: RunDirectory, store: TokenStore, locks: ExitStack) -> Ending | None:
    """Lock a directory until `locks` closes. Returns None if its run can be trained, otherwise the run's outcome."""
    try:
        directory.make()
        locks.enter_context(exclusive_lock(directory.lock))
        directory.claim(run, store)
        directory.check_unaltered()
    except AlreadyLocked:
        return Outcome.BUSY
    except InputError as error:
        return error
    if directory.status() is Status.DONE:
        return Outcome.ALREADY_DONE
    directory.failed.unlink(missing_ok=True)
    return None


def _train_claimed(directories: dict[Run, RunDirectory], session: Session) -> dict[str, Ending]:
    """Train in stages until every run has ended. Each stage trains the runs that are furthest behind until others can join."""
    group = session.process_group
    endings: dict[str, Ending] = {}
    try:
        while remaining := [run for run in directories if run.name not in endings]:
            steps, unusable = _for_each_run(remaining, lambda run: checkpointed_step(run, directories[run]), group)
            endings |= unusable
            if not steps:
                break
            stage = furthest_behind(steps)
            check_same_step(directories[stage.runs[0]], stage.start, group)
            lanes, unusable = _open_lanes(stage, directories, session)
            endings |= unusable
            if lanes:
                endings |= train_lanes(list(lanes.values()), stage.start, stage.until, session)
            if Outcome.INTERRUPTED in endings.values() or session.terminated.is_set():
                return dict.fromkeys((run.name for run in directories), Outcome.INTERRUPTED) | endings
    except InputError:
        raise  # without marking the runs as failed
    except Exception as error:
        if group.is_lead:
            _mark_failed([directories[run] for run in directories if run.name not in endings], error)
        raise
    return endings


@dataclass(frozen=True)
class Stage:
    """Runs whose checkpoints are all at step `start`, to be trained together up to step `until`."""

    runs: list[Run]
    start: int
    until: int


def furthest_behind(steps: dict[Run, int]) -> Stage:
    """Select the runs that are furthest behind, and the step at which the next ones can join. `steps`: each run's current step."""
    start = min(steps.values())
    last = next(iter(steps)).steps
    until = min((step for step in steps.values() if step > start), default=last)
    return Stage([run for run, step in steps.items() if step == start], start, until)


def check_same_step(directory: RunDirectory, step: int, process_group: ProcessGroup) -> None:
    """Raise InputError if the lead process sees a checkpoint from a different step. A node's view of a shared folder may lag behind."""
    lead_step = process_group.broadcast(step)
    if lead_step != step:
        raise InputError(
            f"{directory.checkpoint}: step {step} on this process, step {lead_step} on the lead process; start the run again"
        )


def _open_lanes(
    stage: Stage, directories: dict[Run, RunDirectory], session: Session
) -> tuple[dict[Run, Lane], dict[str, Ending]]:
    return _for_each_run(
        stage.runs, lambda run: open_lane(run, directories[run], stage.start, session), session.process_group
    )


def _for_each_run(
    runs: Sequence[Run], function: Callable[[Run], Result], process_group: ProcessGroup
) -> tuple[dict[Run, Result], dict[str, Ending]]:
    """Apply a function to each run. Returns its results, keyed by run, and the InputErrors that it raised, keyed by run name.

    If several processes share the run, the error is raised instead, because the other processes would wait for this one.
    """
    results: dict[Run, Result] = {}
    errors: dict[str, Ending] = {}
    for run in runs:
        try:
            results[run] = function(run)
        except InputError as error:
            if process_group.world > 1:
                raise
            errors[run.name] = error
    return results, errors


def _mark_failed(directories: Sequence[RunDirectory], error: Exception) -> None:
    for directory in directories:
        if directory.status() is Status.DONE:
            continue
        with suppress(OSError, InputError):  # a full disk must not hide the original error
            directory.fail(reason_of(error))
