"""Verbs that place a study's runs on a cluster and watch them: sweep, resume, cancel, status, dev-cluster."""

import time
from collections import Counter
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from data_prep.errors import InputError
from repeat_study.config.run import Run
from repeat_study.config.study import Study
from repeat_study.preparation import PreparedStudy, open_study
from repeat_study.records.run_directory import RunDirectory, Status
from repeat_study.training.bundles import pack_bundles
from repeat_study_cli.arguments import (
    DataOption,
    LanesOption,
    ProcessesOption,
    RunsOption,
    SetOption,
    StudyArgument,
    console,
    load,
    named,
    prepared,
)
from repeat_study_cli.plan_tables import plain_table
from repeat_study_cli.training import train_with_parents

USER_FILE = Path(typer.get_app_dir("repeat-study")) / "slurm.toml"


class Cluster(StrEnum):
    """Where a sweep's runs are trained."""

    SLURM = "slurm"
    LOCAL = "local"  # a pool of processes on this machine, as `run`
    DEBUG = "debug"  # one after another in this process


PartitionOption = Annotated[str | None, typer.Option(help="where the jobs run")]
AccountOption = Annotated[str | None, typer.Option(help="who pays")]
QosOption = Annotated[str | None, typer.Option(help="quality of service")]
TimeOption = Annotated[str | None, typer.Option(help="of one stay on a node, e.g. 8:00:00; then a run is requeued")]
NodesOption = Annotated[int | None, typer.Option(min=1, help="per run")]
GpusOption = Annotated[int | None, typer.Option("--gpus-per-node", min=0, help="one for each process of a run")]
CpusOption = Annotated[int | None, typer.Option("--cpus-per-task", min=1, help="cores for each process of a run")]
MemoryOption = Annotated[float | None, typer.Option("--mem-gb", help="of each node, in GB")]
ParallelismOption = Annotated[
    int | None, typer.Option("--array-parallelism", min=1, help="jobs at a time, each with a run or a bundle")
]


def sweep(
    context: typer.Context,
    study: StudyArgument,
    set_: SetOption = None,
    cluster: Annotated[
        Cluster, typer.Option(help="slurm; local: processes on this machine; debug: in this process")
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
    processes: ProcessesOption = None,
    lanes: LanesOption = None,
    data_dir: DataOption = Path("data"),
    runs_dir: RunsOption = Path("runs"),
) -> None:
    """Submit every run that is neither done nor in the queue to SLURM, as arrays. What the options leave out is taken from
    the study's table `slurm`, then from slurm.toml in the user's configuration."""
    declared = load(study, set_, lanes)
    if cluster is Cluster.SLURM:
        _submit(declared, _given(context), data_dir, runs_dir)
        return
    if cluster is Cluster.LOCAL:
        train_with_parents(declared, data_dir, runs_dir, processes)
        return
    ready = prepared(declared, data_dir)
    for stage, runs in ready.ancestors(runs_dir):
        _train_in_this_process(stage, runs, runs_dir)
    _train_in_this_process(ready, ready.runs(runs_dir), runs_dir)


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
    data_dir: DataOption = Path("data"),
    runs_dir: RunsOption = Path("runs"),
) -> None:
    """Submit all that is unfinished and not in the queue, with the options of the last submission where none are given.
    Safe at any time."""
    from slurm.submissions import read_submissions

    declared = load(study, set_, lanes)
    before = read_submissions(runs_dir / declared.name)
    if not before:
        raise InputError(f"{runs_dir / declared.name}: nothing was submitted from here; `repeat-study sweep` does")
    if lanes is None and not any(given.startswith("resources.lanes") for given in set_ or []):
        as_before = {"lanes": before[-1].resources.get("lanes", declared.resources.lanes)}
        declared = declared.model_copy(update={"resources": declared.resources.model_copy(update=as_before)})
    _submit(declared, before[-1].options | _given(context), data_dir, runs_dir)


def cancel(
    study: StudyArgument,
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="RUN...", help="names or labels, as `status` shows")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="every run of the study")] = False,
    set_: SetOption = None,
    data_dir: DataOption = Path("data"),
    runs_dir: RunsOption = Path("runs"),
) -> None:
    """Take runs out of the queue. Those in training save their state first; `resume` submits them again."""
    declared = load(study, set_)
    if bool(runs) == all_:
        raise InputError("cancel: name the runs to stop, or give --all")
    from slurm.cancel import cancel as cancel_runs
    from slurm.cancel import runs_sharing_jobs

    there = [] if all_ else open_study(declared, data_dir).known_runs(runs_dir).runs
    chosen = None if all_ else {named(run, there, declared.name).name for run in runs or []}
    shared = runs_sharing_jobs(chosen or set(), runs_dir / declared.name)
    jobs = cancel_runs(chosen, runs_dir / declared.name)
    few = f": {', '.join(jobs)}" if 0 < len(jobs) <= 10 else ""
    absent = (
        f"; {len(chosen) - len(jobs)} of the runs were not in the queue" if chosen and len(jobs) < len(chosen) else ""
    )
    console.print(f"cancelled jobs: {len(jobs)}{few}{absent}")
    if shared:
        console.print(f"{len(shared)} other runs shared them and left with them; `resume` submits these again")


def status(
    study: StudyArgument,
    set_: SetOption = None,
    data_dir: DataOption = Path("data"),
    runs_dir: RunsOption = Path("runs"),
    watch: Annotated[bool, typer.Option("--watch", help="keep it current until nothing runs or waits")] = False,
    every: Annotated[float, typer.Option(min=1, help="seconds between two looks with --watch")] = 15.0,
    stuck_after: Annotated[float, typer.Option(min=0, help="minutes without a sign of life that are in order")] = 10.0,
) -> None:
    """Show where every run stands: by its directory, and by the queue where it was submitted."""
    declared = load(study, set_)
    ready = open_study(declared, data_dir)

    def look() -> tuple[Group, bool]:
        height = console.height - 8 if watch and console.is_terminal else None
        known = ready.known_runs(runs_dir)
        return _overview(known.runs, known.waiting, runs_dir / declared.name, stuck_after * 60, height)

    if not watch:
        console.print(look()[0])
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="visible", transient=False) as live:
        while True:
            shown, active = look()
            if console.is_terminal:
                live.update(shown, refresh=True)
            else:
                console.print(shown)
            if not active:
                return
            time.sleep(every)


def dev_cluster(
    action: Annotated[str, typer.Argument(metavar="start|stop")],
    folder: Annotated[Path, typer.Option(help="everything that the cluster is lies here")] = Path("dev-cluster"),
) -> None:
    """Start or stop a throw-away SLURM of two nodes on this machine, to try sweeps out."""
    from slurm.dev_cluster import DevCluster

    cluster = DevCluster(folder)
    if action == "start":
        cluster.start()
        console.print("two nodes with 2 cores and 2 make-believe GPUs each; partitions: main, urgent (preempts main)")
        console.print(f"for this shell: export SLURM_CONF={cluster.conf}")
    elif action == "stop":
        cluster.stop()
        console.print("stopped")
    else:
        raise InputError(f"dev-cluster: accepted are start and stop, found {action!r}")


def _given(context: typer.Context) -> dict[str, Any]:
    """What the command line says of the allocation; its options are called as the keys are."""
    from slurm.allocation import Allocation

    return {key: context.params[key] for key in Allocation.model_fields if context.params.get(key) is not None}


def _submit(declared: Study, given: dict[str, Any], data_dir: Path, runs_dir: Path) -> None:
    from slurm import client
    from slurm.allocation import merge_allocation

    allocations = {}
    for one in declared.lineage:
        allocation = allocations[one.name] = merge_allocation(one.slurm, given, USER_FILE)
        allocation.tasks_per_node(one.resources)
    declared.check_sharing(declared.data.expected_vocabulary())
    client.max_array_size()  # finds out whether a cluster answers, before a store is built
    for partition in {found.partition for found in allocations.values() if found.partition}:
        client.check_partition(partition)
    ready = prepared(declared, data_dir)
    from repeat_study.records.tensorboard.study_page import write_study_page
    from slurm.sweep import Sweep, submit

    def submit_runs(stage: PreparedStudy, runs: list[Run]) -> None:
        folder, allocation = runs_dir / stage.study.name, allocations[stage.study.name]
        write_study_page(folder, stage.known_runs(runs_dir).runs)
        sweep = Sweep(runs, stage.store, folder, allocation, stage.study.resources, given)
        submitted = submit(sweep, console.print)
        if submitted:
            console.print(
                f"logs: {submitted.logs}; `repeat-study status` shows the runs, `resume` submits what is left over"
            )

    for stage, runs in ready.ancestors(runs_dir):
        if any(RunDirectory(runs_dir / stage.study.name / run.name).status() is not Status.DONE for run in runs):
            console.print(f"{stage.study.name}, from whose runs others start:")
            submit_runs(stage, runs)
    known = ready.known_runs(runs_dir)
    submit_runs(ready, known.runs)
    if known.waiting:
        console.print(
            f"{len(known.waiting)} more are not known yet: {known.waiting[0]}; the same command then submits them"
        )


def _train_in_this_process(ready: PreparedStudy, runs: list[Run], runs_dir: Path) -> None:
    import torch

    from repeat_study.model.hardware import uses_cuda
    from repeat_study.records.outcome import Outcome
    from repeat_study.records.tensorboard.study_page import write_study_page
    from repeat_study.training.trainer import train_bundle
    from slurm.job import print_progress
    from slurm.preemption import StopSignal

    torch.set_num_threads(1)  # as everywhere else, for the same bits
    folder = runs_dir / ready.study.name
    write_study_page(folder, ready.known_runs(runs_dir).runs)
    leave = StopSignal("INT", "TERM")
    resources = ready.study.resources
    for bundle in pack_bundles(runs, resources, ready.store.vocabulary, uses_cuda(resources)):
        console.print(", ".join(run.label for run in bundle))
        show = partial(print_progress, with_run_name=len(bundle) > 1)
        endings = train_bundle(bundle, ready.store, folder, show, leave, resources)
        for run in bundle:
            ending = endings[run.name]
            console.print(f"{run.label}: {ending.value if isinstance(ending, Outcome) else ending}")
        if Outcome.INTERRUPTED in endings.values():
            raise typer.Exit(130)
        for ending in endings.values():
            if isinstance(ending, Exception):
                raise ending


def _overview(
    runs: list[Run], undecided: list[str], folder: Path, stuck_after: float, most: int | None
) -> tuple[Group, bool]:
    """What `status` shows, and whether anything runs or waits. `undecided`: why there are more to come. Where there are more
    than `most` rows, the runs that are done or not begun have none."""
    from slurm import client
    from slurm.status import State, run_states
    from slurm.submissions import jobs_by_run, read_submissions

    submitted, queue, trouble = read_submissions(folder), None, ""
    if submitted:
        try:
            queue = client.queued_jobs()
        except InputError as error:
            trouble = f"{error}; states are those of the run directories alone"
    found = list(run_states(runs, folder, submitted, queue, stuck_after))
    table = plain_table("run", "state", "step", "test loss", "tokens/s", "of peak", "memory", "left", "evaluation")
    for column in (["job"] if submitted else []) + ["note"]:
        table.add_column(column)
    quiet = {State.DONE, State.PENDING} if most is not None and len(found) > most else set()
    shown = [standing for standing in found if standing.state not in quiet]
    for standing in shown:
        loss = "" if standing.test_loss is None else f"{standing.test_loss:.3f}"
        cells = [standing.run.name, standing.state, f"{standing.step}/{standing.run.steps}", loss]
        job = [standing.job_id] if submitted else []
        table.add_row(*cells, *_speed(standing.timing), *job, standing.note)
    parts: list[RenderableType] = [table]
    for standing in shown:
        if standing.log:
            parts.append(Text(f"\n{standing.run.name}, the end of its error log:\n  " + "\n  ".join(standing.log)))
    counts = Counter(standing.state for standing in found)
    parts.append(Text(", ".join(f"{counts[state]} {state}" for state in State if counts[state])))
    parts += [Text(trouble)] if trouble else []
    parts += [Text(f"{len(undecided)} more are not known yet: {undecided[0]}")] if undecided else []
    strange = set(jobs_by_run(submitted, queue or {})) - {run.name for run in runs}
    if strange:
        what = f"{len(strange)} more in the queue that the study, as it is now, does not declare; `cancel --all` takes them too"
        parts.append(Text(f"{what}: {', '.join(sorted(strange)[:3])}{', ...' * (len(strange) > 3)}"))
    waiting = {State.PREEMPTED, State.STARTING, State.RUNNING, State.STUCK}
    active = any(
        standing.state in waiting or (standing.state is State.PENDING and standing.job_id) for standing in found
    )
    return Group(*parts), active


def _speed(timing: dict[str, Any] | None) -> tuple[str, ...]:
    """Cells of `status`: rate, utilisation, memory, minutes left, evaluation's share of the time so far."""
    if not timing or timing["tokens_per_second"] is None:
        return ("",) * 5
    from repeat_study.records.run_directory import evaluation_share

    return (
        f"{timing['tokens_per_second']:,.0f}",
        f"{timing['utilisation']:.0%}",
        f"{timing['memory_bytes'] / 1e9:.2f} GB",
        f"{timing['seconds_left'] / 60:.1f} min" if timing["seconds_left"] else "",
        f"{evaluation_share(timing):.1%}",
    )
