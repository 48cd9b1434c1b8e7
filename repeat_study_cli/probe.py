"""`repeat-study probe`: measure a trained model."""

from pathlib import Path
from typing import Annotated

import typer

from data_prep.errors import InputError
from repeat_study_cli.arguments import (
    RUN_HELP,
    DataOption,
    RunFolderArgument,
    RunsOption,
    SetOption,
    console,
    require_writable,
    run_folder,
)


def probe(
    study_or_folder: RunFolderArgument,
    run: Annotated[str | None, typer.Argument(metavar="RUN", help=RUN_HELP)] = None,
    step: Annotated[
        int | None,
        typer.Option(min=1, help="Load the weights from this step, if they were kept. [default: the last checkpoint]"),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            help="Text file with the paragraphs to copy, separated by blank lines. [default: the study's text]"
        ),
    ] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="Also write all numbers to this file.")] = None,
    set_: SetOption = None,
    data_dir: DataOption = Path("data"),
    runs_dir: RunsOption = Path("runs"),
) -> None:
    """Measure copying, induction and every attention head of a trained model.

    Prints each measurement alongside its null and the value for the untrained model. Specify the run as STUDY RUN or by its folder.
    """
    from data_prep.files import json_text, read_text, write_output
    from repeat_study.probes import checkpoint_probe
    from repeat_study.probes.copying import CopyingTextError
    from repeat_study_cli.inspect import NO_TOKENIZER
    from repeat_study_cli.probe_tables import tables_of

    paragraphs = read_text(text, accept_pipes=True) if text else None
    require_writable(json_)
    folder = run_folder(study_or_folder, run, set_, data_dir, runs_dir)
    trained = checkpoint_probe.load_trained(folder, data_dir, step)
    try:
        probed = checkpoint_probe.probe(trained, paragraphs)
    except CopyingTextError as error:
        raise InputError(f"{text or 'evaluation.copying_text'}: {error}") from error
    if not trained.store.has_tokenizer:
        console.print(NO_TOKENIZER)
    for section in tables_of(probed):
        console.print(section)
    if json_:
        write_output(json_, json_text(probed.record()))
        console.print(f"written: {json_}")
