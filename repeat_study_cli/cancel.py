"""`repeat-study cancel`: remove runs from the SLURM queue."""

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


def cancel(
    study: StudyArgument,
    runs: Annotated[list[str] | None, typer.Argument(metavar="RUN", help=RUN_HELP)] = None,
    all_: Annotated[bool, typer.Option("--all", help="Cancel every run in the study.")] = False,
    set_: SetOption = None,
    data_dir: DataOption = Path("data"),
    runs_dir: RunsOption = Path("runs"),
) -> None:
    """Remove a study's runs from the SLURM queue.

    Runs that are training save their state first. Use `repeat-study resume` to submit cancelled runs again.
    """
    declared = load(study, set_)
    study_dir = runs_dir / declared.name
    if bool(runs) == all_:
        raise InputError("cancel: give either the runs to cancel or --all")
    from slurm.cancel import cancel as cancel_runs
    from slurm.cancel import runs_sharing_jobs
    from slurm.resolution import known_runs

    chosen = None
    if runs:
        candidates = known_runs(declared, data_dir, runs_dir).runs
        chosen = {choose_run(run, candidates, study_dir).name for run in runs}
    sharing = runs_sharing_jobs(chosen or set(), study_dir)
    jobs = cancel_runs(chosen, study_dir)
    listed = f": {', '.join(jobs)}" if 0 < len(jobs) <= 10 else ""
    missing = len(chosen) - len(jobs) if chosen else 0
    console.print(
        f"cancelled jobs: {len(jobs)}{listed}" + (f"; {missing} of the runs were not in the queue" * (missing > 0))
    )
    if sharing:
        console.print(
            f"{len(sharing)} other runs were in the same jobs and are cancelled too; submit them again with `repeat-study resume`"
        )
