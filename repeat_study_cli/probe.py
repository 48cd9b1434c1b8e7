"""`repeat-study probe`: measure a trained model, or all models in a table."""

from pathlib import Path
from typing import Annotated

import typer

from data_prep.errors import InputError
from repeat_study_cli.arguments import (
    RUN_HELP,
    DataOption,
    RunsOption,
    SetOption,
    console,
    require_writable,
    run_folder,
)


def probe(
    study_or_folder: Annotated[
        str | None,
        typer.Argument(
            metavar="STUDY|FOLDER",
            help="The run's study; or, if RUN is omitted, the run's folder or the folder of a Hugging Face model.",
        ),
    ] = None,
    run: Annotated[str | None, typer.Argument(metavar="RUN", help=RUN_HELP)] = None,
    step: Annotated[
        int | None,
        typer.Option(min=1, help="Load the weights from this step, if they were kept. [default: the last checkpoint]"),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            help="Text file with the paragraphs to copy, separated by blank lines. [default: the study's text, or"
            " the shipped English ones]"
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            min=8, help="Longest probe sequence for a Hugging Face model, in tokens. [default: its context, up to 2048]"
        ),
    ] = None,
    ablation: Annotated[
        bool,
        typer.Option(
            "--ablation/--no-ablation",
            help="Ablate the heads of a Hugging Face model with the highest prefix matching (slow).",
        ),
    ] = True,
    device: Annotated[str, typer.Option(metavar="cpu|cuda", help="Where the model runs.")] = "cpu",
    json_: Annotated[Path | None, typer.Option("--json", help="Also write all numbers to this file.")] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="MODELS.csv",
            help="Probe all models in this file. Columns: path, params, tokens, fraction, repeats and seed.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="With --table: folder of the scores, the table and the figures. [default: MODELS.csv without its extension]",
        ),
    ] = None,
    set_: SetOption = None,
    data_dir: DataOption = Path("data"),
    runs_dir: RunsOption = Path("runs"),
) -> None:
    """Measure copying, induction and every attention head of a trained model.

    Prints each measurement alongside its null and the value for the untrained model. Specify a run as STUDY RUN or by its folder,
    and a Hugging Face model by its local folder. Nothing is downloaded, and no code from the folder is run. To compare many
    models, list them in a CSV file; this writes a table and figures of copying and prefix matching against R.
    """
    from data_prep.files import json_text, read_text, write_output
    from repeat_study.probes.copying import CopyingTextError
    from repeat_study.probes.path_probe import ProbeOptions, probe_path
    from repeat_study_cli.probe_tables import tables_of
    from repeat_study_cli.progress import show_progress

    paragraphs = read_text(text, accept_pipes=True) if text else None
    options = ProbeOptions(data_dir, paragraphs, context, device, ablation)
    if table is not None:
        from repeat_study_cli.probe_models import probe_models

        if study_or_folder is not None or step is not None or json_ is not None:
            raise InputError("--table cannot be combined with STUDY, RUN, a folder, --step or --json")
        probe_models(table, table.with_suffix("") if out is None else out, options)
        return
    if out is not None:
        raise InputError("--out: only --table writes to a folder; to write the scores of one model, use --json")
    if study_or_folder is None:
        raise InputError("no model given; expected STUDY RUN, the folder of a run or a model, or --table MODELS.csv")
    require_writable(json_)
    folder = run_folder(study_or_folder, run, set_, data_dir, runs_dir)
    try:
        with show_progress() as report:
            probed = probe_path(folder, options, step, lambda stage: report(f"probing {stage}", None))
    except CopyingTextError as error:
        raise InputError(f"{text or 'evaluation.copying_text'}: {error}") from error
    for section in tables_of(probed):
        console.print(section)
    if json_:
        write_output(json_, json_text(probed.record()))
        console.print(f"written: {json_}")
