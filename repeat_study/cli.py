"""The repeat-study command: one thin verb per stage of a study."""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from data_prep.build import prepare as prepare_store
from data_prep.console import BuildDisplay
from data_prep.errors import InputError
from data_prep.files import read_text, write_json
from data_prep.token_store import TokenStore
from repeat_study.plan import Prices, plain_table, plan_of
from repeat_study.resources import Keep
from repeat_study.study import Run, Study, load_study

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)
# Pipes and logs get wide lines, never cropped or wrapped ones.
console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200)

StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="a study's TOML file, or its name in studies/")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a key, e.g. training.tokens=1000000")
]
DataOption = Annotated[Path, typer.Option("--data-dir", help="where token stores are kept")]
RunsOption = Annotated[Path, typer.Option("--runs-dir", help="where run directories are kept")]
ProcessesOption = Annotated[int | None, typer.Option(min=1, help="processes, one thread each; default: one per core")]


def _load(study: str, overrides: list[str] | None) -> Study:
    path = Path(study)
    if path.suffix != ".toml" and os.sep not in study:
        path = Path("studies") / f"{study}.toml"
    return load_study(path, overrides)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _store(study: Study, data_dir: Path) -> TokenStore:
    with BuildDisplay(console) as display:
        return prepare_store(study.data, data_dir, display)


def _runs(study: Study, store: TokenStore) -> list[Run]:
    runs = study.runs(store.fingerprint)
    for run in runs:
        run.draw(store)  # refuses a corpus that is too small, before any training
    return runs


@app.command()
def plan(
    study: StudyArgument,
    set_: SetOption = None,
    processes: ProcessesOption = None,
    gigaflops: Annotated[float, typer.Option(min=1e-3, help="assumed GFLOP/s of one process on a CPU")] = 30.0,
    peak: Annotated[
        float, typer.Option(min=1e-3, help="a GPU's peak in TFLOP/s; an H100's in bfloat16 is 989")
    ] = 989.0,
    utilisation: Annotated[float, typer.Option(min=1e-3, max=1, help="assumed share of that peak")] = 0.4,
) -> None:
    """Show the grid with its exact repeat accounting and cost; nothing is built or trained."""
    declared = _load(study, set_)
    prices = Prices(peak * 1e12 * utilisation, gigaflops * 1e9 * (processes or _cores()))
    for part in plan_of(declared, prices):
        console.print(part)
    console.print(
        f"assumed: a GPU of {peak:g} TFLOP/s at {utilisation:.0%}, and here {processes or _cores()} processes of {gigaflops:g} GFLOP/s"
    )


@app.command()
def prepare(study: StudyArgument, set_: SetOption = None, data_dir: DataOption = Path("data")) -> None:
    """Build the study's token store, or check the one that stands."""
    declared = _load(study, set_)
    store = _store(declared, data_dir)
    for name, split in store.manifest["splits"].items():
        console.print(
            f"{name}: {split['documents']:,} documents, {split['tokens']:,} tokens, {split['text_bytes']:,} bytes"
        )
    console.print(f"{store.folder}: fingerprint {store.fingerprint}")
    _runs(declared, store)


@app.command()
def inspect(study: StudyArgument, set_: SetOption = None, data_dir: DataOption = Path("data")) -> None:
    """Show the study's token store: what it was built from, its sizes, and what repeats in it by nature."""
    store = TokenStore(data_dir / _load(study, set_).data.store_name)
    manifest = store.manifest
    console.print(
        f"{store.folder}: fingerprint {store.fingerprint}, vocabulary {store.vocabulary}, {manifest['dtype']}"
    )
    source = manifest["built_from"]["source"]
    console.print("source: " + ", ".join(f"{key} {value}" for key, value in source.items()))
    table = plain_table("split", "documents", "tokens", "bytes of text", "bytes/token")
    for name, split in manifest["splits"].items():
        counts = (split["documents"], split["tokens"], split["text_bytes"])
        table.add_row(name, *(f"{count:,}" for count in counts), f"{split['text_bytes'] / split['tokens']:.2f}")
    console.print(table)
    for part in (manifest["corpus"], store.natural_repeats()):
        for key, value in part.items():
            if value != []:
                console.print(f"{key.replace('_', ' ')}: {f'{value:.4%}' if key.endswith('share') else value}")


@app.command()
def provenance(
    study: StudyArgument,
    run: Annotated[str, typer.Argument(help="a run's name or label, as `status` shows them")],
    step: Annotated[int, typer.Option(min=0, help="optimiser step, counted from 0")],
    text: Annotated[bool, typer.Option("--text", help="also print every sequence, decoded")] = False,
    set_: SetOption = None,
    data_dir: DataOption = Path("data"),
) -> None:
    """Show every sequence of one step: pool or unique, which copy, how far its other copies are, which documents."""
    declared = _load(study, set_)
    store = TokenStore(data_dir / declared.data.store_name)
    runs = declared.runs(store.fingerprint)
    named = [candidate for candidate in runs if run in (candidate.name, candidate.label)]
    if len(named) != 1:
        known = ", ".join(candidate.name if named else candidate.label for candidate in named or runs)
        raise InputError(f"{run}: {len(named) or 'no'} runs of {declared.name} are called so; there are {known}")
    (chosen,) = named
    if step >= chosen.steps:
        raise InputError(f"--step {step}: the run has steps 0 to {chosen.steps - 1}")
    from data_prep.provenance import sightings

    table = plain_table("position", "stream", "place", "copy", "since last", "until next", "documents")
    table.columns[-1].justify = "left"
    first = step * chosen.sequences_per_step
    found = list(sightings(chosen.mixture(), chosen.draw(store), range(first, first + chosen.sequences_per_step)))
    for seen in found:
        copy = f"{seen.copy} of {chosen.repeats}" if seen.copy else "only"
        gaps = ("–" if gap is None else f"{gap:,}" for gap in (seen.since, seen.until))
        table.add_row(
            f"{seen.position:,}", seen.stream.name.lower(), f"{seen.place:,}", copy, *gaps, ", ".join(seen.documents)
        )
    console.print(table)
    for seen in found if text else []:
        console.print(f"\n--- position {seen.position}\n{seen.text}")


@app.command()
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
    declared = _load(study, set_)
    resources = declared.resources
    if keep_checkpoints:
        resources = resources.model_copy(update={"keep_checkpoints": keep_checkpoints})
    from repeat_study.hardware import gpus_for

    gpus = gpus_for(resources)
    declared.check_sharing(declared.data.expected_vocabulary())
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: everything is saved
    store = _store(declared, data_dir)
    runs = _runs(declared, store)
    from repeat_study.monitoring import write_study_page
    from repeat_study.probes.copying import copying_probe
    from repeat_study.runner import Outcome
    from slurm.console import PoolDisplay
    from slurm.local_pool import Pool

    text = declared.evaluation.copying_text
    if text is not None:  # refuse one that cannot be copied before any training
        copying_probe(store.tokenizer(), store.end_of_text, declared.training.context, text)
    folder = runs_dir / declared.name
    processes = processes or _cores()
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


@app.command()
def status(
    study: StudyArgument,
    set_: SetOption = None,
    data_dir: DataOption = Path("data"),
    runs_dir: RunsOption = Path("runs"),
) -> None:
    """Show where every run stands, as the run directories tell."""
    from repeat_study.records import RunDirectory, Status

    declared = _load(study, set_)
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


@app.command()
def probe(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a run's folder, runs/STUDY/RUN")],
    step: Annotated[
        int | None, typer.Option(min=1, help="whose weights were kept; default: the last checkpoint")
    ] = None,
    text: Annotated[
        Path | None, typer.Option(help="paragraphs to copy, between blank lines; default: the study's")
    ] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="also write every number to this file")] = None,
    data_dir: DataOption = Path("data"),
) -> None:
    """Measure copying, induction and every head of a run's checkpoint, beside their nulls."""
    from repeat_study import probing

    given = read_text(text) if text else None
    if json_ and not json_.parent.is_dir():
        raise InputError(f"{json_}: no such folder; accepted is a file in one that is there")
    found = probing.probe(probing.trained(run, data_dir, step), given)
    for part in probing.tables_of(found):
        console.print(part)
    if json_:
        write_json(json_, found.record())
        console.print(f"written: {json_}")


@app.command()
def report(study: StudyArgument, set_: SetOption = None, runs_dir: RunsOption = Path("runs")) -> None:
    """Write tables, figures and report.html from the run directories of the study."""
    from analysis.report import write_report
    from analysis.runs import names_in

    declared = _load(study, set_)
    folder = runs_dir / declared.name
    summary, page = write_report(folder, names_in(folder, declared))
    table = plain_table(*summary.columns)
    for row in summary.itertuples(index=False):
        table.add_row(*map(str, row))
    console.print(table)
    console.print(f"report: {page}")


def main() -> None:
    """Entry point: bad input is one line on standard error and exit code 2."""
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], standalone_mode=False))
    except InputError as error:
        _refuse(str(error))
    except typer.Abort:
        sys.exit(130)
    except OSError as error:
        _refuse(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except Exception as error:
        if message := getattr(error, "format_message", None):  # a usage error, whichever click typer was built with
            _refuse(message())
        raise


def _refuse(message: str) -> None:
    print("repeat-study: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
