"""Verbs that look before anything is trained: plan, prepare, inspect, provenance."""

from pathlib import Path
from typing import Annotated

import typer

from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.preparation import open_study
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
    named,
    prepared,
)
from repeat_study_cli.plan_tables import Prices, plain_table, plan_of


def plan(
    study: StudyArgument,
    set_: SetOption = None,
    processes: ProcessesOption = None,
    lanes: LanesOption = None,
    gigaflops: Annotated[float, typer.Option(min=1e-3, help="assumed GFLOP/s of one process on a CPU")] = 30.0,
    peak: Annotated[
        float, typer.Option(min=1e-3, help="a GPU's peak in TFLOP/s; an H100's in bfloat16 is 989")
    ] = 989.0,
    utilisation: Annotated[float, typer.Option(min=1e-3, max=1, help="assumed share of that peak")] = 0.4,
) -> None:
    """Show the grid with its exact repeat accounting and cost; nothing is built or trained."""
    declared = load(study, set_, lanes)
    prices = Prices(peak * 1e12 * utilisation, gigaflops * 1e9 * (processes or cores()))
    for part in plan_of(declared, prices):
        console.print(part)
    console.print(
        f"assumed: a GPU of {peak:g} TFLOP/s at {utilisation:.0%}, and here {processes or cores()} processes of {gigaflops:g} GFLOP/s"
    )


def prepare(study: StudyArgument, set_: SetOption = None, data_dir: DataOption = Path("data")) -> None:
    """Build the study's token store, or check the one that stands."""
    declared = load(study, set_)
    store = prepared(declared, data_dir).store
    for name, split in store.manifest["splits"].items():
        console.print(
            f"{name}: {split['documents']:,} documents, {split['tokens']:,} tokens, {split['text_bytes']:,} bytes"
        )
    console.print(f"{store.folder}: fingerprint {store.fingerprint}")
    for text in declared.evaluate:
        other = TokenStore(data_dir / text.data(declared.data).store_name)
        split = other.manifest["splits"]["test"]
        console.print(
            f"evaluate, {text.name}: {split['documents']:,} documents, {split['tokens']:,} tokens; {other.folder}"
        )


def inspect(study: StudyArgument, set_: SetOption = None, data_dir: DataOption = Path("data")) -> None:
    """Show the study's token store: what it was built from, its sizes, and what repeats in it by nature."""
    store = TokenStore(data_dir / load(study, set_).data.store_name)
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


def provenance(
    study: StudyArgument,
    run: Annotated[str, typer.Argument(help="a run's name or label, as `status` shows them")],
    step: Annotated[int, typer.Option(min=0, help="optimiser step, counted from 0")],
    text: Annotated[bool, typer.Option("--text", help="also print every sequence, decoded")] = False,
    set_: SetOption = None,
    data_dir: DataOption = Path("data"),
    runs_dir: RunsOption = Path("runs"),
) -> None:
    """Show every sequence of one step: pool or unique, which copy, how far its other copies are, which documents."""
    declared = load(study, set_)
    ready = open_study(declared, data_dir)
    store, runs = ready.store, ready.known_runs(runs_dir).runs
    chosen = named(run, runs, declared.name)
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
