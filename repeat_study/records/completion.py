"""What makes a run done: done.json lists the checksums of its records, and the records still match them."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.errors import InputError
from data_prep.files import sha256_file
from repeat_study.records.json_lines import last_row
from repeat_study.records.outcome import FileFault

ALTERED = "altered after the run was done; delete the run's folder to train it again"
REPEATED = {
    "steps": "step",
    "tokens": "tokens",
    "test_loss": "test_loss",
}  # key of done.json: key of the last evaluation
Stamp = tuple[int, int] | None  # bytes and time of change in ns; None if there is no file


class AlteredRecord(FileFault):
    """A record of a run is not what the training process wrote."""


def stamp(path: Path) -> Stamp:
    """What changes whenever a file is written."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def checksums(records: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """For done.json: SHA-256 and stamp of every record that exists, by file name."""
    existing = [path for path in records if path.is_file()]
    return {
        "sha256": {path.name: sha256_file(path) for path in existing},
        "stamps": {path.name: stamp(path) for path in existing},
    }


def done_record(path: Path) -> dict[str, Any] | None:
    """The content of done.json; None if it is missing, or is nothing that a complete run of this folder writes."""
    try:
        record = json.loads(path.read_bytes())
        steps = json.loads((path.parent / "spec.json").read_bytes())["steps"]
        names = record["sha256"].keys()
        complete = record["steps"] == steps and "metrics.jsonl" in names and REPEATED.keys() <= record.keys()
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return record if complete and all(Path(name).name == name for name in names) else None


def altered_file(path: Path, done: dict[str, Any], hash_all: bool = False) -> Path | None:
    """The first file that does not match the rest: a record, or done.json itself, which is at `path`.

    Records whose stamp is that of done.json are read only if `hash_all` is set.
    """
    folder, stamps = path.parent, done.get("stamps")  # missing in runs of earlier versions
    for name, digest in done["sha256"].items():
        now = stamp(folder / name)
        listed = stamps.get(name) if isinstance(stamps, dict) else None
        if not hash_all and now and listed == list(now):
            continue
        if not (folder / name).is_file() or sha256_file(folder / name) != digest:
            return folder / name
    try:
        row = last_row(folder / "metrics.jsonl")
    except InputError:
        row = None
    if not row or any(done[key] != row.get(own) for key, own in REPEATED.items()):
        return path
    return path if "prefix_matching" in row and "heads.parquet" not in done["sha256"] else None


@dataclass
class RecordWatch:
    """Notices that somebody else changes the records of a run while this process trains it."""

    records: tuple[Path, ...]
    _known: dict[Path, tuple[Stamp, str]] = field(default_factory=dict)  # stamp and SHA-256

    def remember(self) -> None:
        """Take the records for right: this process has just written or checked them."""
        self._known = {path: (stamp(path), sha256_file(path) if path.is_file() else "") for path in self.records}

    def check(self) -> None:
        """Raise AlteredRecord if a record is not as it was when it was remembered."""
        for path, (known, digest) in self._known.items():
            if (now := stamp(path)) == known:
                continue
            if now is None:
                raise AlteredRecord(f"{path}: removed while the run was training")
            if not path.is_file() or sha256_file(path) != digest:
                raise AlteredRecord(f"{path}: altered by another process while the run was training")
