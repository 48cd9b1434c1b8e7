"""Options and functions that `sweep` and `resume` share to submit a study's runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repeat_study.formatting import plural
from repeat_study_cli.arguments import console, prepare_with_progress

if TYPE_CHECKING:
    from repeat_study.config.run import Run
    from repeat_study.config.study import Study
    from repeat_study.preparation import PreparedStudy
    from slurm.allocation import Allocation

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


def allocation_options(context: typer.Context) -> dict[str, Any]:
    """The allocation options given on the command line. They have the same names as the keys of the `[slurm]` table."""
    from slurm.allocation import Allocation

    return {key: context.params[key] for key in Allocation.model_fields if context.params.get(key) is not None}


def merged_allocations(declared: "Study", options: dict[str, Any]) -> "dict[str, Allocation]":
    """The allocation of a study and of its ancestors, by name. Raises InputError if an option, a table or the user's file is invalid."""
    from slurm.allocation import merge_allocation

    return {study.name: merge_allocation(study.slurm, options, USER_FILE) for study in declared.lineage}


def submit_study(
    declared: "Study", allocations: "dict[str, Allocation]", options: dict[str, Any], data_dir: Path, runs_dir: Path
) -> None:
    """Submit all unfinished runs in a study. Parent runs from other studies are submitted first."""
    from repeat_study.records.run_directory import RunDirectory, Status
    from slurm import client

    for study in declared.lineage:
        allocations[study.name].tasks_per_node(study.resources)
    declared.check_sharing(declared.data.expected_vocabulary())
    client.max_array_size()  # without a cluster, fail before building token stores
    for partition in {allocation.partition for allocation in allocations.values() if allocation.partition}:
        client.check_partition(partition)
    ready = prepare_with_progress(declared, data_dir)
    from repeat_study.records.tensorboard.study_page import write_study_page
    from slurm.sweep import Sweep, submit

    def submit_runs(stage: "PreparedStudy", runs: "list[Run]") -> None:
        folder, allocation = runs_dir / stage.study.name, allocations[stage.study.name]
        write_study_page(folder, stage.known_runs(runs_dir).runs)
        sweep = Sweep(runs, stage.store, folder, allocation, stage.study.resources, options)
        submitted = submit(sweep, console.print)
        if submitted:
            console.print(
                f"logs: {submitted.logs}; use `repeat-study status` to follow the runs and `repeat-study resume` to submit"
                " unfinished ones again"
            )

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
