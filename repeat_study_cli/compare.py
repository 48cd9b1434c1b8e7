"""`repeat-study compare`: compare studies on one page."""

import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from data_prep.errors import InputError
from repeat_study_cli.arguments import RunsOption, console, load_runs_of


def compare(
    studies: Annotated[
        list[str],
        typer.Argument(metavar="STUDY STUDY...", help="Study files, names of studies, or folders of run directories."),
    ],
    runs_dir: RunsOption = Path("runs"),
    out: Annotated[
        Path | None, typer.Option(help="Folder for the page. [default: comparisons/STUDY-STUDY in the folder of runs]")
    ] = None,
) -> None:
    """Compare studies on one page, with paired differences.

    Finds the factors in which the studies differ, and pairs the runs that agree in everything else. The first study is the reference.
    Writes compare.html, figures and tables. Reads only the run directories.
    """
    from analysis.report.compare import write_comparison

    if len(studies) < 2:
        raise InputError(f"{studies[0]}: one study found; expected two or more to compare")
    loaded = [load_runs_of(study, runs_dir) for study in studies]
    names = _distinct_names([runs.folder for runs in loaded])
    folder = out or runs_dir / "comparisons" / re.sub(r"[^\w.-]+", "_", "-".join(names))
    words = ["repeat-study", "compare", *studies]
    words += ["--runs-dir", str(runs_dir)] if runs_dir != Path("runs") else []
    words += ["--out", str(out)] if out else []
    page = write_comparison(list(zip(names, loaded, strict=True)), folder, shlex.join(words))
    console.print(f"comparison: {page}")


def _distinct_names(folders: list[Path]) -> list[str]:
    """The name of every folder, with as many of the folders above it as are needed to tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise InputError(f"{folders[0]}: given twice; expected different studies")
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(path[-depth:]).lstrip("/") for path in parts]
        if len(set(names)) == len(names):
            return names
    return ["/".join(path) for path in parts]
