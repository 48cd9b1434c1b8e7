"""`repeat-study sweep`: submit a study to SLURM, or train it without SLURM."""

import os
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repeat_study_cli.arguments import (
    DataOption,
    LanesOption,
    ProcessesOption,
    RunsOption,
    SetOption,
    StudyArgument,
    console,
    load,
    prepare_with_progress,
)
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

if TYPE_CHECKING:
    from repeat_study.config.run import Run
    from repeat_study.preparation import PreparedStudy


# Environment variables that torchrun and SLURM jobs set for processes that train a run together.
PROCESS_GROUP = ("RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Cluster(StrEnum):
    """Where a sweep's runs are trained."""

    SLURM = "slurm"
    LOCAL = "local"  # in worker processes on this machine, like `run`
    DEBUG = "debug"  # one after another in this process


def sweep(
    context: typer.Context,
    study: StudyArgument,
    set_: SetOption = None,
    cluster: Annotated[
        Cluster,
        typer.Option(help="Where to train: slurm, local (worker processes on this machine) or debug (this process)."),
    ] = Cluster.SLURM,
    partition: PartitionOption = None,
    account: AccountOption = None,
    qos: QosOption = None,
    time: TimeOption = None,
    nodes: NodesOption = None,
    gpus_per_node: GpusOption = None,
    cpus_per_task: CpusOption = None,
    mem_gb: MemoryOption = None,
    array_parallelism: ParallelismOption = None,
    tasks: TasksOption = None,
    prepare_here: Annotated[
        bool, typer.Option("--prepare-here", help="Build missing token stores in this process before submitting.")
    ] = False,
    processes: ProcessesOption = None,
    lanes: LanesOption = None,
    data_dir: DataOption = Path("data"),
    runs_dir: RunsOption = Path("runs"),
) -> None:
    """Submit all unfinished runs in a study to SLURM.

    Runs that are done or in the queue are skipped. If the study's token stores are missing, jobs that prepare them are submitted first,
    and the runs wait for them. Options that are not given come from the study's [slurm] table or, if
    they are not there, from ~/.config/repeat-study/slurm.toml. Without SLURM, use --cluster local.
    """
    declared = load(study, set_, lanes)
    options = allocation_options(context)
    allocations = merged_allocations(declared, options)  # also without SLURM, so that wrong options are reported
    if cluster is Cluster.SLURM:
        submit_study(declared, allocations, options, data_dir, runs_dir, prepare_here, tasks)
        return
    if cluster is Cluster.LOCAL:
        from repeat_study_cli.run import report_arguments, train_with_parents

        train_with_parents(declared, data_dir, runs_dir, processes, report_arguments(study, set_, runs_dir))
        return
    ready = prepare_with_progress(declared, data_dir)
    for stage, runs in ready.ancestors(runs_dir):
        _train_in_this_process(stage, runs, runs_dir)
    _train_in_this_process(ready, ready.runs(runs_dir), runs_dir)


def _leave_process_group() -> None:
    """Unset torchrun's variables, which another command may have set. They would make this process wait forever."""
    leftover = [name for name in PROCESS_GROUP if os.environ.pop(name, None) is not None]
    if leftover:
        console.print(f"{', '.join(leftover)}: ignored, because --cluster debug trains in this process alone")


def _train_in_this_process(ready: "PreparedStudy", runs: "list[Run]", runs_dir: Path) -> None:
    """Train runs in this process, one bundle after another. If a run fails, its exception is raised."""
    import torch

    from repeat_study.model.hardware import uses_cuda
    from repeat_study.records.outcome import Outcome
    from repeat_study.records.tensorboard.study_page import write_study_page
    from repeat_study.training.bundles import pack_bundles
    from repeat_study.training.trainer import train_bundle
    from slurm.job import print_progress
    from slurm.preemption import StopSignal

    _leave_process_group()
    torch.set_num_threads(1)  # like worker processes, because rounding depends on the number of threads
    folder = runs_dir / ready.study.name
    write_study_page(folder, ready.known_runs(runs_dir).runs)
    leave = StopSignal("INT", "TERM")
    resources = ready.study.resources
    for bundle in pack_bundles(runs, resources, ready.store.vocabulary, uses_cuda(resources)):
        console.print(", ".join(run.label for run in bundle))
        show = partial(print_progress, with_run_name=len(bundle) > 1)
        outcomes = train_bundle(bundle, ready.store, folder, show, leave, resources)
        for run in bundle:
            outcome = outcomes[run.name]
            console.print(f"{run.label}: {outcome.value if isinstance(outcome, Outcome) else outcome}")
        if Outcome.INTERRUPTED in outcomes.values():
            raise typer.Exit(130)
        for outcome in outcomes.values():
            if isinstance(outcome, Exception):
                raise outcome
