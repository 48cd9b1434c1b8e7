"""Check whether a run is done: done.json must exist, and the run's records must match the checksums in it."""

import json
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.errors import InputError
from data_prep.files import read_regular, sha256_file
from repeat_study.records.json_lines import last_row
from repeat_study.records.outcome import FileFault

ALTERED = "altered after the run finished; delete the run's folder to train it again"
# Maps each key of done.json to the key in the last evaluation whose value must be equal.
FINAL_VALUES = {"steps": "step", "tokens": "tokens", "test_loss": "test_loss"}
Stamp = tuple[int, int] | None  # size in bytes and modification time in ns; None if there is no regular file


class AlteredRecord(FileFault):
    """Raised if a run's record differs from what the training process wrote."""


def stamp(path: Path) -> Stamp:
    """Size and modification time of a regular file, used to detect that it was rewritten; None for anything else."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def checksums(records: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """SHA-256 and stamp of every existing record, by file name, in the format of done.json."""
    existing = [path for path in records if path.is_file()]
    return {
        "sha256": {path.name: sha256_file(path) for path in existing},
        "stamps": {path.name: stamp(path) for path in existing},
    }


def done_record(path: Path) -> dict[str, Any] | None:
    """The content of done.json; None if the file is missing or does not describe a complete run in its folder."""
    try:
        record = json.loads(read_regular(path))
        steps = json.loads(read_regular(path.parent / "spec.json"))["steps"]
        names = record["sha256"].keys()
        complete = record["steps"] == steps and "metrics.jsonl" in names and FINAL_VALUES.keys() <= record.keys()
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return record if complete and all(Path(name).name == name for name in names) else None


def altered_file(path: Path, done: dict[str, Any], hash_all: bool = False) -> Path | None:
    """The first altered record of a finished run, or done.json itself if it does not match the records; None if everything matches.

    path: the path of done.json. done: its content. Records with an unchanged stamp are hashed only if `hash_all` is true.
    """
    folder, stamps = path.parent, done.get("stamps")  # earlier versions did not write stamps
    for name, digest in done["sha256"].items():
        current = stamp(folder / name)
        recorded = stamps.get(name) if isinstance(stamps, dict) else None
        if not hash_all and current and recorded == list(current):
            continue
        if not (folder / name).is_file() or sha256_file(folder / name) != digest:
            return folder / name
    try:
        row = last_row(folder / "metrics.jsonl")
    except InputError:
        row = None
    if not row or any(done[key] != row.get(row_key) for key, row_key in FINAL_VALUES.items()):
        return path
    return path if "prefix_matching" in row and "heads.parquet" not in done["sha256"] else None


@dataclass
class RecordWatch:
    """Detects changes that another process makes to a run's records while this process trains the run."""

    records: tuple[Path, ...]
    _expected: dict[Path, tuple[Stamp, str]] = field(default_factory=dict)  # stamp and SHA-256

    def remember(self) -> None:
        """Store the current state of the records as the expected state. Call this after writing or checking the records."""
        self._expected = {path: (stamp(path), sha256_file(path) if path.is_file() else "") for path in self.records}

    def check(self) -> None:
        """Raise AlteredRecord if a record has changed since the last call to `remember`."""
        for path, (expected, digest) in self._expected.items():
            if (current := stamp(path)) == expected:
                continue
            if current is None:
                raise AlteredRecord(f"{path}: removed while the run was training")
            if not path.is_file() or sha256_file(path) != digest:
                raise AlteredRecord(f"{path}: altered by another process while the run was training")
