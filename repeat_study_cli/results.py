"""Verbs that look at what was trained: probe, report."""

from pathlib import Path
from typing import Annotated

import typer

from data_prep.errors import InputError
from data_prep.files import read_text, write_json
from repeat_study_cli.arguments import DataOption, RunsOption, SetOption, StudyArgument, console, load
from repeat_study_cli.plan_tables import plain_table


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
    from repeat_study.probes import checkpoint_probe as probing
    from repeat_study_cli.probe_tables import tables_of

    given = read_text(text) if text else None
    if json_ and not json_.parent.is_dir():
        raise InputError(f"{json_}: no such folder; accepted is a file in one that is there")
    found = probing.probe(probing.trained(run, data_dir, step), given)
    for part in tables_of(found):
        console.print(part)
    if json_:
        write_json(json_, found.record())
        console.print(f"written: {json_}")


def report(study: StudyArgument, set_: SetOption = None, runs_dir: RunsOption = Path("runs")) -> None:
    """Write tables, figures and report.html from the run directories of the study."""
    from analysis.report.build import write_report
    from analysis.runs import names_in

    declared = load(study, set_)
    folder = runs_dir / declared.name
    summary, page = write_report(folder, names_in(folder, declared))
    table = plain_table(*summary.columns)
    for row in summary.itertuples(index=False):
        table.add_row(*map(str, row))
    console.print(table)
    console.print(f"report: {page}")
