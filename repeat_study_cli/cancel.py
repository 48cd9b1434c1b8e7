"""The verb `cancel`: take runs out of the queue."""

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
    all_: Annotated[bool, typer.Option("--all", help="Cancel every run of the study.")] = False,
    set_: SetOption = None,
    data_dir: DataOption = Path("data"),
    runs_dir: RunsOption = Path("runs"),
) -> None:
    """Take runs of a study out of the SLURM queue.

    Runs in training save their state first. `repeat-study resume` submits cancelled runs again.
    """
    declared = load(study, set_)
    study_dir = runs_dir / declared.name
    if bool(runs) == all_:
        raise InputError("cancel: name the runs to cancel, or give --all")
    from repeat_study.preparation import open_study
    from slurm.cancel import cancel as cancel_runs
    from slurm.cancel import runs_sharing_jobs

    chosen = None
    if runs:
        known = open_study(declared, data_dir).known_runs(runs_dir).runs
        chosen = {choose_run(run, known, study_dir).name for run in runs}
    sharing = runs_sharing_jobs(chosen or set(), study_dir)
    jobs = cancel_runs(chosen, study_dir)
    listed = f": {', '.join(jobs)}" if 0 < len(jobs) <= 10 else ""
    missing = len(chosen) - len(jobs) if chosen else 0
    console.print(
        f"cancelled jobs: {len(jobs)}{listed}" + (f"; {missing} of the runs were not in the queue" * (missing > 0))
    )
    if sharing:
        console.print(
            f"{len(sharing)} other runs were in the same jobs and are cancelled too; `repeat-study resume` submits them again"
        )
