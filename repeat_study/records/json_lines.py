"""Read and write JSON Lines files in which every line has a training step. A crash can only truncate the last line."""

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_prep.errors import InputError
from data_prep.files import write_atomically

Row = dict[str, Any]
NUMBERS = {  # keys whose values must be numbers in every line, by file name
    "metrics.jsonl": ("tokens", "test_loss"),
    "timing.jsonl": ("train_seconds", "evaluation_seconds", "saving_seconds"),
}
NONNEGATIVE = {  # keys whose values, if present, must be between 0 and LARGEST, by file name
    "timing.jsonl": (
        *NUMBERS["timing.jsonl"], "time", "tokens_per_second", "utilisation", "memory_bytes", "lanes", "seconds_left",
    ),
    "sessions.jsonl": ("time",),
}  # fmt: skip
LARGEST = 1e40  # the largest number that a record may contain
TAIL_BYTES = 2**14  # usually enough for the last line, because a line of metrics.jsonl is a few kilobytes long


def read_rows(path: Path) -> list[Row]:
    """All complete lines in order; an empty list if the file does not exist. Raises InputError if a line is malformed."""
    if not path.is_file():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    return _parse(path, lines)


def last_row(path: Path) -> Row | None:
    """The last complete line; None if there is none. In most cases, reads only the end of the file.

    Raises InputError if the line is malformed.
    """
    if not path.is_file():  # opening a pipe would wait for a writer
        return None
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            lines: list[bytes] = []
            for tail in (TAIL_BYTES, size):
                file.seek(max(size - tail, 0))
                if len(lines := file.read().split(b"\n")) > 2 or tail >= size:
                    break
    except FileNotFoundError:
        return None
    return _parse(path, lines[-2:-1])[0] if len(lines) > 1 else None


def append_row(path: Path, row: Row) -> None:
    """Append a line; it is on disk when this function returns. Raises InputError if the file cannot be written."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Replace the file atomically."""
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a number that a run can record")


def _parse(path: Path, lines: list[bytes]) -> list[Row]:
    try:
        rows = [json.loads(line, parse_constant=_refuse_constant) for line in lines]
        assert all(isinstance(row["step"], int) and row["step"] >= 0 for row in rows), "step is not a count"
        for key in NUMBERS.get(path.name, ()):
            assert all(_is_finite(row[key]) for row in rows), f"{key} is not a finite number"
        for key in NONNEGATIVE.get(path.name, ()):
            for value in (row.get(key) for row in rows):
                in_range = value is None or (_is_finite(value) and 0 <= value <= LARGEST)
                assert in_range, f"{key}: {value!r:.60} found; expected a number from 0 to {LARGEST:g}"
        return rows
    except (ValueError, TypeError, KeyError, AssertionError, RecursionError, OverflowError) as error:
        raise InputError(f"{path}: malformed line ({error}); delete the run's folder to train it again") from error
