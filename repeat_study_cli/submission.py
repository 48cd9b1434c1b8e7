"""Options and functions that `sweep` and `resume` share to submit a study's runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repeat_study.formatting import plural
from repeat_study_cli.arguments import console, prepare_with_progress

if TYPE_CHECKING:
    from data_prep.token_store import TokenStore
    from repeat_study.config.run import Run
    from repeat_study.config.study import Study
    from repeat_study.preparation import PreparedStudy
    from slurm.allocation import Allocation
    from slurm.sweep import StoreInPreparation

USER_FILE = Path(typer.get_app_dir("repeat-study")) / "slurm.toml"

PartitionOption = Annotated[str | None, typer.Option(help="SLURM partition.")]
AccountOption = Annotated[str | None, typer.Option(help="SLURM account to charge.")]
QosOption = Annotated[str | None, typer.Option(help="SLURM quality of service.")]
TimeOption = Annotated[
    str | None, typer.Option(help="Time limit per job, e.g. 8:00:00. Longer runs are requeued and resume.")
]
NodesOption = Annotated[int | None, typer.Option(min=1, help="Number of nodes per run.")]
GpusOption = Annotated[
    int | None, typer.Option("--gpus-per-node", min=0, help="Number of GPUs per node, one per process.")
]
CpusOption = Annotated[int | None, typer.Option("--cpus-per-task", min=1, help="Number of cores per process.")]
MemoryOption = Annotated[float | None, typer.Option("--mem-gb", help="Memory per node, in GB.")]
ParallelismOption = Annotated[
    int | None, typer.Option("--array-parallelism", min=1, help="Maximum number of jobs that run at the same time.")
]
TasksOption = Annotated[
    int | None,
    typer.Option(
        "--tasks",
        min=1,
        help="Number of jobs that encode text. [default: one per GB of text, at most 64]",
        show_default=False,
    ),
]


def allocation_options(context: typer.Context) -> dict[str, Any]:
    """The allocation options given on the command line. They have the same names as the keys of the `[slurm]` table."""
    from slurm.allocation import Allocation

    return {key: context.params[key] for key in Allocation.model_fields if context.params.get(key) is not None}


def merged_allocations(declared: "Study", options: dict[str, Any]) -> "dict[str, Allocation]":
    """The allocation of a study and of its ancestors, by name. Raises InputError if an option, a table or the user's file is invalid."""
    from slurm.allocation import merge_allocation

    return {study.name: merge_allocation(study.slurm, options, USER_FILE) for study in declared.lineage}


def check_cluster(declared: "Study", allocations: "dict[str, Allocation]") -> None:
    """Raise InputError if there is no cluster or if an allocation does not suit it, before anything is built."""
    from slurm import client

    for study in declared.lineage:
        allocations[study.name].tasks_per_node(study.resources)
    declared.check_sharing(declared.data.expected_vocabulary())
    client.max_array_size()  # without a cluster, fail before building token stores
    for partition in {allocation.partition for allocation in allocations.values() if allocation.partition}:
        client.check_partition(partition)


def submit_study(
    declared: "Study",
    allocations: "dict[str, Allocation]",
    options: dict[str, Any],
    data_dir: Path,
    runs_dir: Path,
    prepare_here: bool = False,
    tasks: int | None = None,
) -> None:
    """Submit all unfinished runs in a study. Parent runs from other studies are submitted first.

    If a token store is missing, jobs that prepare the data are submitted first, unless `prepare_here` is true. tasks: their number.
    """
    from repeat_study.records.run_directory import RunDirectory, Status
    from repeat_study.records.tensorboard.study_page import write_study_page
    from slurm.resolution import missing_stores

    check_cluster(declared, allocations)
    if missing_stores(declared, data_dir) and not prepare_here:
        _submit_with_preparation(declared, allocations, options, data_dir, runs_dir, tasks)
        return
    ready = prepare_with_progress(declared, data_dir)

    def submit_runs(stage: "PreparedStudy", runs: "list[Run]") -> None:
        write_study_page(runs_dir / stage.study.name, stage.known_runs(runs_dir).runs)
        _submit_runs(stage.study, stage.store, runs, allocations[stage.study.name], options, runs_dir)

    for stage, runs in ready.ancestors(runs_dir):
        if any(RunDirectory(runs_dir / stage.study.name / run.name).status() is not Status.DONE for run in runs):
            console.print(f"parent runs in study {stage.study.name}:")
            submit_runs(stage, runs)
    resolved = ready.known_runs(runs_dir)
    submit_runs(ready, resolved.runs)
    if resolved.waiting:
        console.print(
            f"{plural(len(resolved.waiting), 'more run')} not known yet: {resolved.waiting[0]}; repeat the command later"
        )


def _submit_with_preparation(
    declared: "Study",
    allocations: "dict[str, Allocation]",
    options: dict[str, Any],
    data_dir: Path,
    runs_dir: Path,
    tasks: int | None,
) -> None:
    """Submit the preparation of the data, and the runs behind it."""
    from repeat_study.preparation import open_study
    from repeat_study.records.run_directory import RunDirectory, Status
    from slurm.preparation import Preparation, submit_preparation
    from slurm.resolution import candidate_parents, known_runs, missing_stores, positions
    from slurm.sweep import StoreInPreparation

    allocation = allocations[declared.name]
    job_id = submit_preparation(
        Preparation(declared, data_dir, runs_dir, allocation, tasks, options=options), console.print
    )
    for number, study in enumerate(declared.lineage):
        known = known_runs(study, data_dir, runs_dir)
        runs = known.runs
        if study is not declared:
            parents = candidate_parents(declared.lineage[number + 1], data_dir, runs_dir)
            runs = declared.lineage[number + 1].parents_needed(parents) if parents else []
        if missing_stores(study, data_dir):
            store: TokenStore | StoreInPreparation = StoreInPreparation(study, data_dir, job_id, positions(known.runs))
        else:
            store = open_study(study, data_dir).store
            runs = [run for run in runs if RunDirectory(runs_dir / study.name / run.name).status() is not Status.DONE]
        if study is not declared and runs:
            console.print(f"parent runs in study {study.name}:")
        if runs:
            _submit_runs(study, store, runs, allocations[study.name], options, runs_dir)
    if known.waiting:
        console.print(
            f"{plural(len(known.waiting), 'more run')} not known yet: {known.waiting[0]}; repeat the command later"
        )


def _submit_runs(
    study: "Study",
    store: "TokenStore | StoreInPreparation",
    runs: "list[Run]",
    allocation: "Allocation",
    options: dict[str, Any],
    runs_dir: Path,
) -> None:
    from slurm.sweep import Sweep, submit

    sweep = Sweep(runs, store, runs_dir / study.name, allocation, study.resources, options)
    if submitted := submit(sweep, console.print):
        console.print(
            f"logs: {submitted.logs}; use `repeat-study status` to follow the runs and `repeat-study resume` to submit"
            " unfinished ones again"
        )
