"""The verb that trains a study's runs on this machine: run."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from data_prep.token_store import TokenStore
from repeat_study.cli.arguments import (
    DataOption,
    ProcessesOption,
    RunsOption,
    SetOption,
    StudyArgument,
    console,
    cores,
    load,
    prepared,
    runs_of,
)
from repeat_study.resources import Keep, Resources
from repeat_study.run import Run


def run(
    study: StudyArgument,
    set_: SetOption = None,
    processes: ProcessesOption = None,
    data_dir: DataOption = Path("data"),
    runs_dir: RunsOption = Path("runs"),
    keep_checkpoints: Annotated[
        Keep | None, typer.Option(help="which evaluations' weights stay beside the last checkpoint")
    ] = None,
) -> None:
    """Train every run of the study that is not done, on this machine. Call it again to go on after any stop."""
    declared = load(study, set_)
    resources = declared.resources
    if keep_checkpoints:
        resources = resources.model_copy(update={"keep_checkpoints": keep_checkpoints})
    from repeat_study.hardware import gpus_for

    gpus = gpus_for(resources)
    declared.check_sharing(declared.data.expected_vocabulary())
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: everything is saved
    store = prepared(declared, data_dir)
    runs = runs_of(declared, store)
    train_here(runs, store, runs_dir / declared.name, resources, processes, gpus)


def train_here(
    runs: list[Run], store: TokenStore, folder: Path, resources: Resources, processes: int | None, gpus: int
) -> None:
    """Train runs with a pool of processes and show it; raises typer.Exit where it was stopped or a run failed."""
    from repeat_study.monitoring import write_study_page
    from repeat_study.outcome import Outcome
    from slurm.console import PoolDisplay
    from slurm.local_pool import Pool

    processes = processes or cores()
    write_study_page(folder, runs)
    on = f"{gpus} GPUs" if gpus else f"{processes} processes"
    console.print(f"training {len(runs)} runs on {on}; `tensorboard --logdir {folder}` shows them")
    with PoolDisplay(runs, console) as display:
        try:
            ended = Pool(store, folder, processes, display, resources, gpus).train(runs)
        except KeyboardInterrupt:
            console.print("stopped; every run keeps its last checkpoint: the same command goes on from there")
            raise typer.Exit(130) from None
    bad = [end for end in ended.values() if end.outcome not in (Outcome.DONE, Outcome.ALREADY_DONE)]
    for end in bad:
        console.print(f"{end.outcome.value}: {folder / end.run}" + (f": {end.reason}" if end.reason else ""))
    if bad:
        raise typer.Exit(1)
