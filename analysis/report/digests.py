"""What a report was made from, so that the next one redraws only what changed.

figures/.digests.json holds a digest of everything that the report depends on, the size and time of every file it wrote, a
digest, title and caption for each figure, and the table for the console. A figure is reused only if its digest is the same and its
files are as they were written; if any of this is missing or damaged, everything is drawn anew.
"""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePath
from typing import Any

import pandas as pd

import analysis
import data_prep
import repeat_study
from analysis.figures.plot import Missing, SavedPlot
from data_prep.files import canonical_json, write_atomically
from repeat_study.records.run_directory import RunDirectory

RECORD = Path("figures", ".digests.json")
LIBRARIES = ("numpy", "pandas", "scipy", "matplotlib", "pyarrow", "jinja2")
Stamp = list[int]  # size in bytes and time of the last change in ns


@cache
def code_digest() -> str:
    """Digest of every source file and template that a report can depend on, and of the libraries' versions."""
    digest = hashlib.sha256(platform.python_version().encode())
    for name in LIBRARIES:
        digest.update(importlib.metadata.version(name).encode())
    for package in (analysis, repeat_study, data_prep):
        root = Path(package.__path__[0])
        for path in sorted(path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc"):
            digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()


def run_digests(folder: Path) -> dict[str, str]:
    """A digest of the records of every run below `folder`, by name.

    Take it before the records are read: a run that is still training then counts as changed in the next report.
    """
    return {path.parent.name: _run_digest(RunDirectory(path.parent)) for path in sorted(folder.glob("*/spec.json"))}


def _run_digest(run: RunDirectory) -> str:
    # done.json has the checksums of a finished run's records; their size and time tell whether they still apply.
    content = [path.read_bytes().hex() if path.is_file() else "" for path in (run.spec, run.done)]
    stamps = [_stamp(path) for path in (run.metrics, *run.tables, run.sessions)]
    return digest_of([run.status(), content, stamps])


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


@dataclass
class ReportRecord:
    """The content of figures/.digests.json."""

    folder: Path
    inputs: str = ""
    files: dict[str, Stamp] = field(default_factory=dict)  # by path below the folder
    figures: dict[str, dict[str, str]] = field(default_factory=dict)  # digest, title and caption, or digest and reason
    console: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> "ReportRecord":
        """The record of the last report; an empty one if it is missing or damaged."""
        try:
            record = cls(folder, **json.loads((folder / RECORD).read_bytes()))
            assert all(isinstance(stamp, list) and _is_inside(path) for path, stamp in record.files.items())
            assert all("digest" in figure for figure in record.figures.values())
            return record
        except (OSError, ValueError, TypeError, AttributeError, AssertionError):
            return cls(folder)

    def is_current(self, inputs: str) -> bool:
        """Whether a report on these inputs would write what is there already."""
        return self.inputs == inputs and bool(self.files) and all(map(self._is_as_written, self.files))

    def console_table(self) -> pd.DataFrame:
        """The table that the last report returned, as text."""
        return pd.DataFrame(self.console["data"], columns=self.console["columns"])

    def figure(self, name: str, digest: str) -> SavedPlot | Missing | None:
        """A figure of the last report; None if it has to be plotted."""
        known = self.figures.get(name)
        if not known or known["digest"] != digest:
            return None
        if "reason" in known:
            return Missing(known["name"], known["reason"])
        if not all(map(self._is_as_written, SavedPlot.files(name))):
            return None
        svg = (self.folder / "figures" / f"{name}.svg").read_bytes()
        return SavedPlot(name, known["title"], known["caption"], svg)

    def add_figure(self, name: str, digest: str, figure: SavedPlot | Missing) -> None:
        """Remember how a figure came out."""
        self.figures[name] = {"digest": digest} | (
            {"name": figure.name, "reason": figure.reason}
            if isinstance(figure, Missing)
            else {"title": figure.title, "caption": figure.caption}
        )

    def save(self, inputs: str, written: Iterable[str], console: pd.DataFrame) -> None:
        """Remember a report that is complete, with the paths of its files below the folder."""
        self.inputs = inputs
        self.files = {path: stamp for path in written if (stamp := _stamp(self.folder / path))}
        self.console = {"columns": list(console), "data": [[str(value) for value in row] for row in console.to_numpy()]}
        content = {"inputs": self.inputs, "files": self.files, "figures": self.figures, "console": self.console}
        write_atomically(self.folder / RECORD, json.dumps(content, indent=1).encode())

    def delete_files_not_in(self, written: Iterable[str]) -> None:
        """Delete files of this, older report that a newer one did not write; files changed by somebody else stay."""
        for path in self.files.keys() - set(written):
            if self._is_as_written(path):
                (self.folder / path).unlink(missing_ok=True)

    def _is_as_written(self, path: str) -> bool:
        return path in self.files and _stamp(self.folder / path) == self.files[path]


def _is_inside(path: str) -> bool:
    return not PurePath(path).is_absolute() and ".." not in PurePath(path).parts
