"""Divide runs into job arrays, taking into account bundles, parents and the cluster's maximum array size."""

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
    """A job array to submit. Each job trains one bundle after all jobs in `after` have left the queue."""

    bundles: Sequence[Sequence[Run]]
    after: Sequence[str]  # ids of the jobs that train the parents


def plan_arrays(
    runs: Sequence[Run], study_dir: Path, max_array_size: int, pack: Callable[[Iterable[Run]], list[list[Run]]]
) -> list[ArrayPlan]:
    """Pack runs into bundles with `pack`, and divide the bundles into arrays of at most `max_array_size` jobs.

    The first arrays contain the runs that can start immediately. Each of the other arrays contains runs of a single model whose
    parents are still in the queue, so that small models do not wait for the parents of large ones. Raises InputError if a parent is
    neither finished nor in the queue.
    """
    queue = client.queued_jobs()
    jobs_of = {
        study: jobs_by_run(read_submissions(study_dir.parent / study), queue)
        for study in {run.parent.study for run in runs if run.parent}
    }
    ready: list[Run] = []
    waiting: dict[str, list[Run]] = {}
    parent_jobs: dict[str, dict[str, None]] = {}  # keys: models; each inner dict is an ordered set of job ids
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
        ArrayPlan(group.bundles[start : start + max_array_size], group.after)
        for group in groups
        for start in range(0, len(group.bundles), max_array_size)
    ]


def split_parallelism(limit: int | None, sizes: Sequence[int]) -> list[int]:
    """Divide the limit on simultaneous jobs among the arrays. Each array gets at least one job."""
    if limit is None:
        return list(sizes)
    count = len(sizes)
    return [max(1, limit // count + (index < limit % count)) for index in range(count)]
