"""`repeat-study status`: show the state of every run in a study."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group

from data_prep.errors import InputError
from repeat_study_cli.arguments import DataOption, RunsOption, SetOption, StudyArgument, console, finite, load


def status(
    study: StudyArgument,
    set_: SetOption = None,
    data_dir: DataOption = Path("data"),
    runs_dir: RunsOption = Path("runs"),
    json_: Annotated[bool, typer.Option("--json", help="Print the status as JSON.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until no run is training or in the queue.")] = False,
    every: Annotated[
        float, typer.Option(min=1, callback=finite, help="Seconds between refreshes with --watch.")
    ] = 15.0,
    stuck_after: Annotated[
        float,
        typer.Option(
            min=0, callback=finite, help="A run counts as stuck if its next evaluation is overdue by this many minutes."
        ),
    ] = 10.0,
) -> None:
    """Show the state of every run in a study.

    States come from the run directories, and from the SLURM queue if runs were submitted there.
    """
    if json_ and watch:
        raise InputError("--json and --watch: give only one of them")
    from repeat_study_cli.overview import overview_of

    declared = load(study, set_)
    if json_:
        print(
            json.dumps(overview_of(declared, data_dir, runs_dir, stuck_after * 60).record(), indent=1, allow_nan=False)
        )
        return
    from repeat_study_cli.status_tables import tables_of

    if not watch:
        overview = overview_of(declared, data_dir, runs_dir, stuck_after * 60)
        console.print(Group(*tables_of(overview)))
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False, vertical_overflow="visible", transient=False) as live:
        while True:
            overview = overview_of(declared, data_dir, runs_dir, stuck_after * 60)
            screen = Group(*tables_of(overview, console.height - 8 if console.is_terminal else None))
            if console.is_terminal:
                live.update(screen, refresh=True)
            else:
                console.print(screen)
            if not overview.active:
                return
            time.sleep(every)
