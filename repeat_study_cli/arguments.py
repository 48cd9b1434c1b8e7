"""Arguments that several commands share, and functions to load a study, open its token stores and select a run."""

import errno
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from data_prep.errors import InputError

if TYPE_CHECKING:
    from analysis.runs import Runs
    from repeat_study.config.run import Run
    from repeat_study.config.study import Study
    from repeat_study.preparation import PreparedStudy

# Pipes and files get long lines, so that each record stays on one line.
PIPE_WIDTH = 1_000
console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
# Progress goes to standard error, so that standard output contains only results.
progress_console = Console(
    highlight=False, markup=False, stderr=True, width=None if sys.stderr.isatty() else PIPE_WIDTH
)

StudyArgument = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="Study file (.toml), or name of a study in studies/ or in the installed package.",
    ),
]


def finite(value: float | None) -> float | None:
    """Raise a usage error for infinity and NaN, which typer's range checks accept."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


RunFolderArgument = Annotated[
    str,
    typer.Argument(metavar="STUDY|FOLDER", help="The run's study, or the run's folder if RUN is omitted."),
]
RUN_HELP = "Label, name or folder of a run. `repeat-study status` lists them."
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key of the study, e.g. training.tokens=1000000; can be repeated."
    ),
]
DataOption = Annotated[Path, typer.Option("--data-dir", help="Folder of the token stores.")]
RunsOption = Annotated[Path, typer.Option("--runs-dir", help="Folder of the run directories.")]
ProcessesOption = Annotated[
    int | None, typer.Option(min=1, help="Number of worker processes with one thread each. [default: one per core]")
]
LanesOption = Annotated[
    str | None,
    typer.Option(
        "--lanes",
        metavar="N|auto",
        help="Number of runs with the same shape that one process trains in lockstep.",
    ),
]
ColumnsOption = Annotated[
    str | None,
    typer.Option(metavar="OURS=YOURS,...", help="Column names in your file, e.g. params=N,tokens=T,loss=test_loss."),
]


def load(study: str, overrides: list[str] | None, lanes: str | None = None) -> "Study":
    """Load a study by path or by name; `lanes` overrides `resources.lanes`."""
    from repeat_study.config.study import load_study

    if lanes is not None:
        overrides = [*(overrides or []), f"resources.lanes={lanes}"]
    loaded = load_study(study, overrides or [])
    for declared in loaded.lineage:
        if declared.slurm:  # importing slurm.allocation takes time, and most studies have no [slurm] table
            from slurm.allocation import check_table

            try:
                check_table(declared.slurm)
            except InputError as error:
                raise InputError(f"{study if declared is loaded else declared.name}: {error}") from error
    return loaded


def load_runs_of(study: str, runs_dir: Path) -> "Runs":
    """Read the runs of a study, given as a folder of run directories, as a study file or by name."""
    from analysis.declared_runs import declared_names
    from analysis.runs import load_runs

    folder = Path(study)
    # A study's name takes precedence over a folder with the same name that contains no runs.
    if folder.is_dir() and (any(folder.glob("*/spec.json")) or not Path("studies", f"{study}.toml").is_file()):
        return load_runs(folder)
    declared = load(study, None)
    folder = runs_dir / declared.name
    return load_runs(folder, declared_names(folder, declared))


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare_with_progress(study: "Study", data_dir: Path, processes: int | None = None) -> "PreparedStudy":
    """Open the study's token stores, building missing ones and showing progress. Warns if there is too little text.

    processes: number of worker processes that encode text; None: one per core.
    """
    from data_prep.build_progress import BuildDisplay
    from repeat_study.preparation import prepare_study
    from repeat_study.shortages import actual_test_shortage, expected_train_shortage

    for declared in study.lineage:
        if not (data_dir / declared.data.store_name).exists():
            for warning in expected_train_shortage(declared):
                console.print(warning)
    with BuildDisplay(console) as display:
        prepared = prepare_study(study, data_dir, display, processes or cores())
    for ready in prepared.lineage:
        for warning in actual_test_shortage(ready):
            console.print(warning)
    return prepared


def choose_run(given: str, runs: "Sequence[Run]", study_dir: Path) -> "Run":
    """Find the run with this label, name or folder. Raises InputError if there is none or more than one.

    study_dir: the folder that contains the run directories.
    """
    folder = Path(os.path.realpath(given))  # Path.resolve raises RuntimeError for circular links
    name = folder.name if str(folder.parent) == os.path.realpath(study_dir) else given
    matches = [run for run in runs if name in (run.name, run.label)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = ", ".join(run.name for run in matches)
        raise InputError(f"{given}: {len(matches)} runs in {study_dir.name} have this label; expected one of {names}")
    labels = ", ".join(run.label for run in runs)
    raise InputError(
        f"{given or repr(given)}: no run in study {study_dir.name!r} has this label, name or folder; expected one of {labels}"
    )


def run_folder(study: str, run: str | None, set_: list[str] | None, data_dir: Path, runs_dir: Path) -> Path:
    """The folder of the run that is given as STUDY RUN, or by its folder. Raises InputError if there is no such run or folder."""
    from repeat_study.preparation import open_study

    if run is None:
        if not Path(study).is_dir():
            raise InputError(f"{study}: no such folder; specify a run as STUDY RUN or by its folder")
        return Path(study)
    declared = load(study, set_)
    candidates = open_study(declared, data_dir).known_runs(runs_dir).runs
    study_dir = runs_dir / declared.name
    return study_dir / choose_run(run, candidates, study_dir).name


def require_writable(path: Path | None) -> None:
    """Raise InputError if this file cannot be written. None is accepted."""
    if path is None:
        return
    if path.is_dir():  # an empty path is the working directory
        raise InputError(f"{path}: is a folder; expected a file in an existing folder")
    if path.exists() and not path.is_file():  # a device or a pipe
        if not os.access(path, os.W_OK):
            raise InputError(f"{path}: cannot be written: {os.strerror(errno.EACCES)}")
        return
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise InputError(f"{path}: cannot be written: {os.strerror(errno.ELOOP)}")
    folder = target.parent
    if not folder.is_dir():
        raise InputError(f"{path}: no such folder; expected a file in an existing folder")
    try:
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
