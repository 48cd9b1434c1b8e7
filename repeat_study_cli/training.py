"""The verb that trains a study's runs on this machine: run."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from repeat_study.config.resources import Keep
from repeat_study.config.run import Run
from repeat_study.config.study import Study
from repeat_study.preparation import PreparedStudy
from repeat_study.records.run_directory import RunDirectory, Status
from repeat_study_cli.arguments import (
    DataOption,
    LanesOption,
    ProcessesOption,
    RunsOption,
    SetOption,
    StudyArgument,
    console,
    cores,
    load,
    prepared,
)


def run(
    study: StudyArgument,
    set_: SetOption = None,
    processes: ProcessesOption = None,
    data_dir: DataOption = Path("data"),
    runs_dir: RunsOption = Path("runs"),
    lanes: LanesOption = None,
    keep_checkpoints: Annotated[
        Keep | None, typer.Option(help="which evaluations' weights stay beside the last checkpoint")
    ] = None,
) -> None:
    """Train every run of the study that is not done, on this machine. Call it again to go on after any stop."""
    declared = load(study, set_, lanes)
    if keep_checkpoints:
        resources = declared.resources.model_copy(update={"keep_checkpoints": keep_checkpoints})
        declared = declared.model_copy(update={"resources": resources})
    train_with_parents(declared, data_dir, runs_dir, processes)


def train_with_parents(declared: Study, data_dir: Path, runs_dir: Path, processes: int | None) -> None:
    """Train a study's runs with a pool of processes, before them the runs of other studies that they start from, with the
    resources of those; raises typer.Exit where it was stopped or a run failed."""
    from repeat_study.model.hardware import gpus_for

    for study in declared.lineage:
        gpus_for(study.resources)
    declared.check_sharing(declared.data.expected_vocabulary())
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: everything is saved
    ready = prepared(declared, data_dir)
    well = True
    for stage, runs in ready.ancestors(runs_dir):
        folder = runs_dir / stage.study.name
        if todo := [run for run in runs if RunDirectory(folder / run.name).status() is not Status.DONE]:
            console.print(f"{stage.study.name}: {len(todo)} runs of it first, from which others start")
            well &= _train_here(todo, stage, runs_dir, processes)
    known = ready.known_runs(runs_dir)
    well &= _train_here(known.runs, ready, runs_dir, processes)
    if known.waiting:  # for a parent has failed
        console.print(f"{len(known.waiting)} more could not be trained: {known.waiting[0]}")
    if known.waiting or not well:
        raise typer.Exit(1)


def _train_here(runs: list[Run], ready: PreparedStudy, runs_dir: Path, processes: int | None) -> bool:
    """Whether all of these runs of a study are done now; raises typer.Exit where it was stopped."""
    from repeat_study.local.progress import ProgressDisplay
    from repeat_study.local.scheduler import LocalScheduler
    from repeat_study.model.hardware import gpus_for
    from repeat_study.records.outcome import Outcome
    from repeat_study.records.tensorboard.study_page import write_study_page

    folder, resources = runs_dir / ready.study.name, ready.study.resources
    processes, gpus = processes or cores(), gpus_for(resources)
    write_study_page(folder, ready.known_runs(runs_dir).runs)
    on = f"{gpus} GPUs" if gpus else f"{processes} processes"
    console.print(f"training {len(runs)} runs on {on}; `tensorboard --logdir {folder}` shows them")
    with ProgressDisplay(runs, console) as display:
        try:
            ended = LocalScheduler(ready.store, folder, processes, display, resources, gpus).train(runs)
        except KeyboardInterrupt:
            console.print("stopped; every run keeps its last checkpoint: the same command goes on from there")
            raise typer.Exit(130) from None
    bad = [end for end in ended.values() if end.outcome not in (Outcome.DONE, Outcome.ALREADY_DONE)]
    for end in bad:
        console.print(f"{end.outcome.value}: {folder / end.run}" + (f": {end.reason}" if end.reason else ""))
    return not bad
