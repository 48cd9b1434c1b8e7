"""Record the inputs of a report, so that the next report plots only the figures whose inputs have changed.

figures/.digests.json contains a digest of the report's inputs, the size and modification time of every file that the report wrote,
the digest, title and caption of each figure, and the console table. A figure is reused only if its digest is unchanged and its
files have not been modified. If the record is missing or damaged, all figures are plotted again.
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
from analysis.figures.plot import Missing, Noise, SavedPlot
from data_prep.files import canonical_json, read_regular, write_atomically
from repeat_study.records.run_directory import RunDirectory

RECORD = Path("figures", ".digests.json")
LIBRARIES = ("numpy", "pandas", "scipy", "matplotlib", "pyarrow", "jinja2")
Stamp = list[int]  # size in bytes and modification time in nanoseconds


@cache
def code_digest() -> str:
    """Digest of every source file and template that a report can depend on, and of the versions of Python and the libraries."""
    digest = hashlib.sha256(platform.python_version().encode())
    for name in LIBRARIES:
        digest.update(importlib.metadata.version(name).encode())
    for package in (analysis, repeat_study, data_prep):
        root = Path(package.__path__[0])
        for path in sorted(path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc"):
            digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()


def run_digests(folder: Path) -> dict[str, str]:
    """Map the name of every run in `folder` to a digest of its records.

    Call this before reading the records. If a run adds an evaluation in the meantime, the next report treats the run as changed.
    """
    return {path.parent.name: _run_digest(RunDirectory(path.parent)) for path in sorted(folder.glob("*/spec.json"))}


def _run_digest(run: RunDirectory) -> str:
    # done.json contains checksums of a finished run's records. Size and modification time reveal later changes.
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
    files: dict[str, Stamp] = field(default_factory=dict)  # by path relative to the folder
    figures: dict[str, dict[str, str]] = field(
        default_factory=dict
    )  # by name: the digest, and the title and caption or the reason why it is missing
    console: dict[str, Any] = field(default_factory=dict)
    date: str = ""  # of the page

    @classmethod
    def load(cls, folder: Path) -> "ReportRecord":
        """Read the record of the last report. Returns an empty record if the file is missing or damaged."""
        try:
            record = cls(folder, **json.loads(read_regular(folder / RECORD)))
            assert all(isinstance(stamp, list) and _is_inside(path) for path, stamp in record.files.items())
            assert all("digest" in figure for figure in record.figures.values())
            assert isinstance(record.date, str)
            return record
        except (OSError, ValueError, TypeError, AttributeError, AssertionError):
            return cls(folder)

    def is_current(self, inputs: str) -> bool:
        """Whether the last report used these inputs and its files are unmodified."""
        return self.inputs == inputs and bool(self.files) and all(map(self._is_as_written, self.files))

    def console_table(self) -> pd.DataFrame:
        """The last report's console table, with every cell as text."""
        return pd.DataFrame(self.console["data"], columns=self.console["columns"])

    def figure(self, name: str, digest: str) -> SavedPlot | Missing | None:
        """A figure from the last report, or None if it must be plotted again."""
        entry = self.figures.get(name)
        if not entry or entry["digest"] != digest:
            return None
        if "reason" in entry:
            return Missing(entry["name"], entry["reason"])
        if not all(map(self._is_as_written, SavedPlot.files(name))):
            return None
        svg = (self.folder / "figures" / f"{name}.svg").read_bytes()
        noise = Noise(entry["noise_title"], entry["noise"]) if "noise" in entry else None
        return SavedPlot(name, entry["title"], entry["caption"], svg, noise)

    def add_figure(self, name: str, digest: str, figure: SavedPlot | Missing) -> None:
        """Record a figure, or the reason why it is missing."""
        entry = {"digest": digest}
        if isinstance(figure, Missing):
            entry |= {"name": figure.name, "reason": figure.reason}
        else:
            entry |= {"title": figure.title, "caption": figure.caption}
            if figure.noise:
                entry |= {"noise_title": figure.noise.title, "noise": figure.noise.sentence}
        self.figures[name] = entry

    def save(self, inputs: str, written: Iterable[str], console: pd.DataFrame) -> None:
        """Write the record of a complete report. written: the paths of the report's files, relative to the folder."""
        self.inputs = inputs
        self.files = {path: stamp for path in written if (stamp := _stamp(self.folder / path))}
        self.console = {"columns": list(console), "data": [[str(value) for value in row] for row in console.to_numpy()]}
        content = {"inputs": self.inputs, "date": self.date, "files": self.files, "figures": self.figures}
        content |= {"console": self.console}
        write_atomically(self.folder / RECORD, json.dumps(content, indent=1).encode())

    def delete_files_not_in(self, written: Iterable[str]) -> None:
        """Delete this report's files that a newer report did not write, unless they have been modified since."""
        for path in self.files.keys() - set(written):
            if self._is_as_written(path):
                (self.folder / path).unlink(missing_ok=True)

    def _is_as_written(self, path: str) -> bool:
        return path in self.files and _stamp(self.folder / path) == self.files[path]


def _is_inside(path: str) -> bool:
    return not PurePath(path).is_absolute() and ".." not in PurePath(path).parts
