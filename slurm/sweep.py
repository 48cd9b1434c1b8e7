"""Submit a study's unfinished runs to SLURM as job arrays. A run is never in the queue twice."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.config.resources import Accelerator, Resources
from repeat_study.config.run import Run
from repeat_study.config.study import Study
from repeat_study.records.run_directory import RunDirectory
from repeat_study.training.bundles import pack_bundles
from slurm import client
from slurm.allocation import Allocation
from slurm.arrays import ArrayPlan, plan_arrays, split_parallelism
from slurm.executor import recording, submit_array
from slurm.job import DeferredTrainJob, TrainJob
from slurm.selection import count_runs, group_after_ending
from slurm.source_snapshot import commit, keep_source
from slurm.submissions import Array, Position, Submission, submission_lock, sweeps_dir


@dataclass(frozen=True)
class StoreInPreparation:
    """The store of a study whose data is prepared by a job in the queue. The study's runs have provisional names."""

    study: Study
    data_dir: Path
    job_id: str  # of the job that writes the study's stores
    positions: dict[str, Position]  # of the study's runs

    @property
    def folder(self) -> Path:
        """The folder of the store once it is written."""
        return self.data_dir / self.study.data.store_name

    @property
    def vocabulary(self) -> int:
        """The size of the vocabulary."""
        return self.study.data.expected_vocabulary()


@dataclass(frozen=True)
class Sweep:
    """A study's runs and the resources for training them on a cluster."""

    runs: Sequence[Run]
    store: "TokenStore | StoreInPreparation"
    study_dir: Path
    allocation: Allocation
    resources: Resources = field(default_factory=Resources)
    options: dict[str, Any] = field(default_factory=dict)  # from the command line, recorded for `resume`


def submit(sweep: Sweep, report: Callable[[str], None]) -> Submission | None:
    """Submit every run that is neither done nor in the queue. Returns the submission, or None if there is nothing to submit.

    `report` is called with each line for the console. Raises InputError without submitting anything if the cluster does not
    respond, another process is submitting, or a run directory belongs to a different spec. Also raises InputError if sbatch
    rejects an array; the arrays accepted before it are recorded.
    """
    study_dir, allocation = sweep.study_dir, sweep.allocation
    check_path(study_dir.resolve())
    resources = sweep.resources
    if allocation.gpus_per_node and resources.accelerator is Accelerator.AUTO:
        # If the GPU cannot be used, the job must fail. Otherwise it would train on the CPU for weeks, and in float32.
        resources = resources.model_copy(update={"accelerator": Accelerator.CUDA})
    max_array_size = client.max_array_size()
    with submission_lock(study_dir):
        if isinstance(sweep.store, TokenStore):
            for run in sweep.runs:
                RunDirectory(study_dir / run.name).check(run, sweep.store)
        groups = group_after_ending(sweep.runs, study_dir, report)
        report(groups.summary())
        if not groups.todo:
            return None
        on_gpu = bool(allocation.gpus_per_node)
        pack = partial(pack_bundles, resources=resources, vocabulary=sweep.store.vocabulary, gpu=on_gpu)
        plans = plan_arrays(groups.todo, study_dir, max_array_size, pack)
        submission = Submission.new(
            study_dir,
            allocation=allocation.model_dump(),
            options=sweep.options,
            resources=resources.model_dump(mode="json"),
            store=str(sweep.store.folder.resolve()),
            source=keep_source(sweeps_dir(study_dir)).name,
            commit=commit(),
            provisional=sweep.store.positions if isinstance(sweep.store, StoreInPreparation) else {},
        )
        names = [f"{study_dir.name}.{submission.folder.name}.{number}" for number in range(len(plans))]
        submission.arrays = [
            Array(name, [[run.name for run in bundle] for bundle in plan.bundles])
            for name, plan in zip(names, plans, strict=True)
        ]
        for array, plan in zip(_submit_arrays(submission, plans, sweep, resources), plans, strict=True):
            report(_describe(array, plan))
        return submission


def check_path(folder: Path) -> None:
    """Raise InputError if SLURM would misread this path and write job output to a different folder."""
    for mark, meaning in (("%", "a pattern"), ("\\", "an escape character")):
        if mark in str(folder):
            raise InputError(f"{folder}: SLURM interprets {mark} in a path as {meaning}; use a folder without {mark}")
    if not str(folder).isprintable():
        raise InputError(
            f"{str(folder)!r}: a path in a batch script cannot contain control characters; use another folder"
        )


def _describe(array: Array, plan: ArrayPlan) -> str:
    line = f"job {array.job_id}: {count_runs(array.runs)}"
    if len(plan.bundles) < len(array.runs):
        line += f" in {len(plan.bundles)} bundle" + "s" * (len(plan.bundles) > 1)
    if plan.after:
        line += f", waiting for {len(plan.after)} parent job" + "s" * (len(plan.after) > 1)
    return line


def _submit_arrays(
    submission: Submission, plans: Sequence[ArrayPlan], sweep: Sweep, resources: Resources
) -> Iterator[Array]:
    """Submit the arrays in order, yielding each one after sbatch has accepted it."""
    limit = sweep.allocation.array_parallelism
    slots = split_parallelism(limit, [len(plan.bundles) for plan in plans])
    with recording(submission):
        for number, (array, plan) in enumerate(zip(submission.arrays, plans, strict=True)):
            after = list(plan.after)
            if limit and number >= limit:  # more arrays than jobs allowed, so wait for an earlier array
                after.append(str(submission.arrays[number - limit].job_id))
            # With afterok, SLURM would not start the run if a parent failed. With afterany, the run starts and reports the failure.
            conditions = [":".join(["afterany", *after])] if after else []
            if isinstance(sweep.store, StoreInPreparation):
                conditions.insert(0, f"afterok:{sweep.store.job_id}")
            calls = [_job(sweep, bundle, resources) for bundle in plan.bundles]
            submit_array(submission, array, calls, sweep.allocation, resources, slots[number], conditions)
            yield array


def _job(sweep: Sweep, bundle: Sequence[Run], resources: Resources) -> TrainJob | DeferredTrainJob:
    store = sweep.store
    if isinstance(store, StoreInPreparation):
        where = tuple(store.positions[run.name] for run in bundle)
        return DeferredTrainJob(
            store.study, store.data_dir.resolve(), sweep.study_dir.resolve().parent, where, resources
        )
    return TrainJob(tuple(bundle), store.folder.resolve(), sweep.study_dir.resolve(), resources)
