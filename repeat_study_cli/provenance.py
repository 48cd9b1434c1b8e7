"""`repeat-study provenance`: show the text that a run trains on at one step."""

from pathlib import Path
from typing import Annotated

import typer

from data_prep.errors import InputError
from repeat_study_cli.arguments import (
    RUN_HELP,
    DataOption,
    RunsOption,
    SetOption,
    StudyArgument,
    choose_run,
    console,
    load,
)
from repeat_study_cli.tables import WrappedTable


def provenance(
    study: StudyArgument,
    run: Annotated[str, typer.Argument(metavar="RUN", help=RUN_HELP)],
    step: Annotated[int, typer.Option(min=0, help="Optimizer step, counted from 0.")],
    text: Annotated[bool, typer.Option("--text", help="Also print the text of every sequence.")] = False,
    set_: SetOption = None,
    data_dir: DataOption = Path("data"),
    runs_dir: RunsOption = Path("runs"),
) -> None:
    """Show the text that a run trains on at one step.

    For each sequence, prints whether it comes from the repeated pool or the unique stream, which copy it is, the distance in
    sequences to the previous and next copies, and the source and documents that it comes from.
    """
    from data_prep.provenance import describe_sequences
    from data_prep.token_store import NO_TOKENIZER
    from repeat_study.preparation import open_study

    declared = load(study, set_)
    ready = open_study(declared, data_dir)
    chosen = choose_run(run, ready.known_runs(runs_dir).runs, runs_dir / declared.name)
    if step >= chosen.steps:
        raise InputError(f"--step {step}: expected a step from 0 to {chosen.steps - 1}")
    first = step * chosen.sequences_per_step
    positions = range(first, first + chosen.sequences_per_step)
    sources = ready.source_names
    sequences = list(describe_sequences(chosen.mixture(), chosen.draw(ready.store), positions))
    table = WrappedTable("position", "stream", "index", "copy", "since last copy", "until next copy", notes="documents")
    show_source = len(sources) > 1
    for sequence in sequences:
        copy = f"{sequence.copy} of {chosen.repeats}" if sequence.copy else "only"
        gaps = ("–" if gap is None else f"{gap:,}" for gap in (sequence.since_last, sequence.until_next))
        cells = (f"{sequence.position:,}", sequence.stream.name.lower(), f"{sequence.place:,}", copy, *gaps)
        source = f"{sources[sequence.store.fingerprint]}: " if show_source else ""
        table.add_row(*cells, note=source + ", ".join(sequence.documents))
    console.print(f"{chosen.label}, step {step}: sequences and the documents they come from")
    console.print(table)
    if text and not ready.store.has_tokenizer:
        console.print(NO_TOKENIZER)
    for sequence in sequences if text else []:
        console.print(f"\n--- position {sequence.position}\n{sequence.text}")
