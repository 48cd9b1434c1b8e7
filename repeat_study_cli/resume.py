"""`repeat-study resume`: submit unfinished runs again."""

from pathlib import Path

import typer

from data_prep.errors import InputError
from repeat_study_cli.arguments import DataOption, LanesOption, RunsOption, SetOption, StudyArgument, load
from repeat_study_cli.submission import (
    AccountOption,
    CpusOption,
    GpusOption,
    MemoryOption,
    NodesOption,
    ParallelismOption,
    PartitionOption,
    QosOption,
    TasksOption,
    TimeOption,
    allocation_options,
    merged_allocations,
    submit_study,
)


def resume(
    context: typer.Context,
    study: StudyArgument,
    set_: SetOption = None,
    partition: PartitionOption = None,
    account: AccountOption = None,
    qos: QosOption = None,
    time: TimeOption = None,
    nodes: NodesOption = None,
    gpus_per_node: GpusOption = None,
    cpus_per_task: CpusOption = None,
    mem_gb: MemoryOption = None,
    array_parallelism: ParallelismOption = None,
    lanes: LanesOption = None,
    tasks: TasksOption = None,
    data_dir: DataOption = Path("data"),
    runs_dir: RunsOption = Path("runs"),
) -> None:
    """Submit unfinished runs to SLURM again with the options of the last submission.

    Runs in the queue are skipped, so the command can be repeated at any time. New options override earlier ones.
    """
    from slurm.submissions import read_submissions

    declared = load(study, set_, lanes)
    submissions = read_submissions(runs_dir / declared.name)
    earlier = [submission for submission in submissions if submission.arrays]  # without preparations
    if not earlier:
        raise InputError(f"{runs_dir / declared.name}: no submission found; use `repeat-study sweep` first")
    last = earlier[-1]
    if lanes is None and not any(override.startswith("resources.lanes") for override in set_ or []):
        same_lanes = {"lanes": last.resources.get("lanes", declared.resources.lanes)}
        declared = declared.model_copy(update={"resources": declared.resources.model_copy(update=same_lanes)})
    options = last.options | allocation_options(context)
    preparations = [submission.preparation for submission in submissions if submission.preparation]
    if tasks is None and preparations:
        tasks = len(preparations[-1][0].bundles)
    submit_study(declared, merged_allocations(declared, options), options, data_dir, runs_dir, tasks=tasks)
