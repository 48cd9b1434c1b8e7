"""Submit the preparation of a study's token stores: an array of jobs that encode text, and a job that writes the stores."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.chunks.ledger import clear_errors
from data_prep.chunks.plan import BYTES_PER_TOKEN, PLAN, make_plan
from data_prep.errors import InputError
from data_prep.sources import Source
from repeat_study.config.resources import Resources
from repeat_study.config.study import Study
from slurm import client
from slurm.allocation import Allocation
from slurm.executor import recording, submit_array
from slurm.preparation_jobs import EncodeJob, WriteJob
from slurm.resolution import stores_in_order
from slurm.selection import reconcile
from slurm.source_snapshot import commit, keep_source
from slurm.submissions import Array, Submission, preparation_jobs, read_submissions, submission_lock, sweeps_dir
from slurm.sweep import check_path

BYTES_PER_TASK = 10**9  # of text, which takes a core about seven minutes
MOST_TASKS = 64  # by default
ENCODE_GB, WRITE_GB = 2.0, 4.0  # memory of one job, unless it is specified


@dataclass(frozen=True)
class Preparation:
    """A study whose stores are to be prepared on a cluster."""

    study: Study
    data_dir: Path
    runs_dir: Path
    allocation: Allocation  # nodes, GPUs, cores and memory, which it lists for training, are not used
    tasks: int | None = None  # jobs that encode text; None: one per GB of text, at most MOST_TASKS
    mem_gb: float | None = None  # memory of each job; None: ENCODE_GB and WRITE_GB
    options: dict[str, Any] = field(default_factory=dict)  # from the command line, recorded for `resume`


def submit_preparation(preparation: Preparation, report: Callable[[str], None]) -> str:
    """Submit the jobs, unless they are in the queue. Returns the id of the job that writes the stores.

    Raises InputError without submitting anything if the cluster does not respond or another process is submitting.
    """
    study, study_dir = preparation.study, preparation.runs_dir / preparation.study.name
    check_path(study_dir.resolve())
    most_tasks = client.max_array_size()
    tasks = min(preparation.tasks or _default_tasks(study), most_tasks)
    if preparation.tasks and preparation.tasks > most_tasks:
        raise InputError(f"--tasks: {preparation.tasks} found; this cluster allows at most {most_tasks} jobs per array")
    with submission_lock(study_dir):
        earlier = read_submissions(study_dir)
        reconcile(earlier)
        if job_id := _queued(earlier):
            report(f"the preparation of {study.name} is already in the queue: job {job_id}")
            return job_id
        for spec in stores_in_order(study):
            if (spec.chunks_folder(preparation.data_dir) / PLAN).is_file():  # the input may have changed
                make_plan(spec, preparation.data_dir, lambda stage, share: None)
            clear_errors(spec.chunks_folder(preparation.data_dir))
        allocation = preparation.allocation.model_copy(update={"nodes": 1, "gpus_per_node": 0, "cpus_per_task": 1})
        allocations = [
            allocation.model_copy(update={"mem_gb": preparation.mem_gb or default}) for default in (ENCODE_GB, WRITE_GB)
        ]
        submission = Submission.new(
            study_dir,
            allocation=allocation.model_dump(),
            options=preparation.options,
            resources=study.resources.model_dump(mode="json"),
            store=str(preparation.data_dir.resolve()),
            source=keep_source(sweeps_dir(study_dir)).name,
            commit=commit(),
        )
        name = f"{study.name}.{submission.folder.name}"
        encode = Array(f"{name}.encode", [[f"encode {number}"] for number in range(tasks)])
        write = Array(f"{name}.write", [["write"]])
        submission.preparation = [encode, write]
        data_dir, runs_dir = preparation.data_dir.resolve(), preparation.runs_dir.resolve()
        with recording(submission):
            encoders = [EncodeJob(study, data_dir, Path.cwd())] * tasks
            slots = min(allocation.array_parallelism or tasks, tasks)
            submit_array(submission, encode, encoders, allocations[0], Resources(), slots)
            report(f"job {encode.job_id}: encoding text in {tasks} task" + "s" * (tasks != 1))
            # If an encoding job fails or is cancelled, the others do its work, so the write job does not depend on its success. It
            # checks that all text is encoded.
            writer = WriteJob(study, data_dir, runs_dir, Path.cwd())
            submit_array(submission, write, [writer], allocations[1], Resources(), 1, [f"afterany:{encode.job_id}"])
            report(f"job {write.job_id}: writing the token stores, waiting for job {encode.job_id}")
        return str(write.job_id)


def _queued(submissions: list[Submission]) -> str | None:
    """The id of a queued job that writes the stores. Encoding jobs without such a job are cancelled."""
    queue = client.queued_jobs()
    for submission in reversed(submissions):
        if not submission.preparation:
            continue
        writers = [job for (name, _), job in queue.items() if name == submission.preparation[-1].name]
        if writers and not writers[0].ending:
            return writers[0].job_id
        client.cancel_jobs([job.job_id for job in preparation_jobs([submission], queue)])
    return None


def _default_tasks(study: Study) -> int:
    text = 0.0
    for spec in stores_in_order(study):
        size = spec.source.text_bytes() if isinstance(spec.source, Source) else 0.0
        text += min(math.inf if size is None else size, BYTES_PER_TOKEN * spec.max_tokens)
    return max(1, min(MOST_TASKS, math.ceil(text / BYTES_PER_TASK)))
