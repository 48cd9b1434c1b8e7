"""What verbs share: their arguments, and how a study, its store and its runs are found."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from data_prep.build_progress import BuildDisplay
from data_prep.errors import InputError
from repeat_study.config.run import Run
from repeat_study.config.study import Study, load_study
from repeat_study.preparation import PreparedStudy, prepare_study

# Pipes and logs get wide lines, never cropped or wrapped ones.
console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200)

StudyArgument = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="a study's TOML file, or the name of one in studies/ or of one that comes with this package",
    ),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a key, e.g. training.tokens=1000000")
]
DataOption = Annotated[Path, typer.Option("--data-dir", help="where token stores are kept")]
RunsOption = Annotated[Path, typer.Option("--runs-dir", help="where run directories are kept")]
ProcessesOption = Annotated[int | None, typer.Option(min=1, help="processes, one thread each; default: one per core")]

LanesOption = Annotated[
    str | None, typer.Option("--lanes", metavar="N|auto", help="runs of one shape that one process trains in lockstep")
]


def load(study: str, overrides: list[str] | None, lanes: str | None = None) -> Study:
    """The declared study, by path or by name; `lanes` is short for an override of `resources.lanes`."""
    if lanes is not None:
        overrides = [*(overrides or []), f"resources.lanes={lanes}"]
    return load_study(study, overrides or [])


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepared(study: Study, data_dir: Path) -> PreparedStudy:
    """The study with its token stores, built where they do not stand yet."""
    with BuildDisplay(console) as display:
        return prepare_study(study, data_dir, display)


def named(name: str, runs: list[Run], study: str) -> Run:
    """The run that is called so, by name or label; InputError where it is none or several."""
    found = [run for run in runs if name in (run.name, run.label)]
    if len(found) != 1:
        known = ", ".join(run.name if found else run.label for run in found or runs)
        raise InputError(f"{name}: {len(found) or 'no'} runs of {study} are called so; there are {known}")
    return found[0]
