"""Verbs that train a study's runs and say where they stand: run, status."""

import signal
from pathlib import Path
from typing import Annotated, Any

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
from repeat_study.plan import plain_table
from repeat_study.resources import Keep


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
    from repeat_study.monitoring import write_study_page
    from repeat_study.outcome import Outcome
    from repeat_study.probes.copying import copying_probe
    from slurm.console import PoolDisplay
    from slurm.local_pool import Pool

    text = declared.evaluation.copying_text
    if text is not None:  # refuse one that cannot be copied before any training
        copying_probe(store.tokenizer(), store.end_of_text, declared.training.context, text)
    folder = runs_dir / declared.name
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
        console.print(
            f"{end.outcome.value}: {runs_dir / declared.name / end.run}" + (f": {end.reason}" if end.reason else "")
        )
    if bad:
        raise typer.Exit(1)


def status(
    study: StudyArgument,
    set_: SetOption = None,
    data_dir: DataOption = Path("data"),
    runs_dir: RunsOption = Path("runs"),
) -> None:
    """Show where every run stands, as the run directories tell."""
    from repeat_study.records import RunDirectory, Status

    declared = load(study, set_)
    store = TokenStore(data_dir / declared.data.store_name)
    table = plain_table(
        "run", "status", "step", "test loss", "tokens/s", "of peak", "memory", "left", "evaluation", "note"
    )
    counts: dict[str, int] = {}
    for run in declared.runs(store.fingerprint):
        directory = RunDirectory(runs_dir / declared.name / run.name)
        state = directory.status()
        rows = directory.rows()
        step, loss = (str(rows[-1]["step"]), f"{rows[-1]['test_loss']:.3f}") if rows else ("0", "")
        note = directory.failure() if state is Status.FAILED else ""
        table.add_row(run.name, state, f"{step}/{run.steps}", loss, *_speed(directory.timings()), note)
        counts[state] = counts.get(state, 0) + 1
    console.print(table)
    console.print(", ".join(f"{count} {state}" for state, count in counts.items()))


def _speed(timings: list[dict[str, Any]]) -> tuple[str, ...]:
    """Cells of `status`: rate, utilisation, memory, minutes left, evaluation's share of the time so far."""
    if not timings or timings[-1]["tokens_per_second"] is None:
        return ("",) * 5
    from repeat_study.records import evaluation_share

    last = timings[-1]
    return (
        f"{last['tokens_per_second']:,.0f}",
        f"{last['utilisation']:.0%}",
        f"{last['memory_bytes'] / 1e9:.2f} GB",
        f"{last['seconds_left'] / 60:.1f} min" if last["seconds_left"] else "",
        f"{evaluation_share(last):.1%}",
    )
