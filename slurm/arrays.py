"""Divides the runs to submit into job arrays: bundles, dependencies on parents, and the cluster's largest array size."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.errors import InputError
from repeat_study.config.run import Run
from repeat_study.records.run_directory import RunDirectory, Status
from slurm import client
from slurm.submissions import jobs_by_run, read_submissions


@dataclass(frozen=True)
class ArrayPlan:
    """An array to submit: one bundle per job, and the jobs of their parents, which have to leave the queue first."""

    bundles: Sequence[Sequence[Run]]
    after: Sequence[str]  # job ids


def plan_arrays(
    runs: Sequence[Run], study_dir: Path, largest: int, pack: Callable[[Iterable[Run]], list[list[Run]]]
) -> list[ArrayPlan]:
    """Arrays of at most `largest` bundles; `pack` divides runs into bundles.

    The first arrays hold runs that can start at once. Runs whose parents are still in the queue follow in one array per
    model, so that small models do not wait for the parents of large ones.
    Raises InputError if a parent is neither finished nor in the queue.
    """
    queue = client.queued_jobs()
    jobs_of = {
        study: jobs_by_run(read_submissions(study_dir.parent / study), queue)
        for study in {run.parent.study for run in runs if run.parent}
    }
    ready: list[Run] = []
    waiting: dict[str, list[Run]] = {}
    parent_jobs: dict[str, dict[str, None]] = {}  # by model; a dict keeps the order and drops duplicates
    for run in runs:
        parent = run.parent
        if not parent or RunDirectory(study_dir.parent / parent.study / parent.name).status() is Status.DONE:
            ready.append(run)
            continue
        if not (jobs := jobs_of[parent.study].get(parent.name)):
            parent_dir = study_dir.parent / parent.study / parent.name
            raise InputError(f"{run.label}: its parent is neither finished nor in the queue: {parent_dir}")
        waiting.setdefault(run.model, []).append(run)
        parent_jobs.setdefault(run.model, {}).update(dict.fromkeys(job.job_id for job in jobs))
    groups = [ArrayPlan(pack(ready), [])]
    groups += [ArrayPlan(pack(waiting[model]), list(parent_jobs[model])) for model in waiting]
    return [
        ArrayPlan(group.bundles[start : start + largest], group.after)
        for group in groups
        for start in range(0, len(group.bundles), largest)
    ]


def split_parallelism(limit: int | None, sizes: Sequence[int]) -> list[int]:
    """How many jobs of each array may run at a time, given the limit for all arrays together; at least one each."""
    if limit is None:
        return list(sizes)
    count = len(sizes)
    return [max(1, limit // count + (index < limit % count)) for index in range(count)]
