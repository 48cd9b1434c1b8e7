"""Read a user's runs from a CSV file and check every line."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.counts import ACCEPTED_COUNTS, parse_count, parse_number
from analysis.laws.points import Points
from data_prep.errors import InputError
from data_prep.files import read_text

MOST_BYTES = 100_000_000
SEED = "seed"
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?", re.IGNORECASE)


def _decimal(text: str) -> float | None:
    return float(text) if _DECIMAL.fullmatch(text) else None


@dataclass(frozen=True)
class Column:
    """How to parse a column, and which values to accept."""

    parse: Callable[[str], float | None]
    accepted: str
    accepts: Callable[[float], bool] = lambda value: True


READ_AS = {
    "params": Column(parse_count, ACCEPTED_COUNTS),
    "tokens": Column(parse_count, ACCEPTED_COUNTS),
    "fraction": Column(_decimal, "a number from 0 to 1", lambda value: 0 <= value <= 1),
    "repeats": Column(parse_number, "a number from 1 (clean) to 1e12", lambda value: 1 <= value <= 1e12),
    "loss": Column(_decimal, "nats per token, above 0 and up to 100", lambda value: 0 < value <= 100),
}
COLUMNS = tuple(READ_AS)


def parse_columns(text: str) -> dict[str, str]:
    """Parse the argument of --columns, such as `params=N,loss=test_loss`, into a map from our column names to the user's.

    Raises InputError if the argument is malformed, or if a name is unknown or repeated.
    """
    accepted = (*COLUMNS, SEED)
    names: dict[str, str] = {}
    for entry in text.split(","):
        ours, equals, theirs = (piece.strip() for piece in entry.partition("="))
        if not (ours and equals and theirs):
            raise InputError(f"--columns {text}: {entry!r} found; expected pairs such as params=N,tokens=T,loss=L")
        if ours not in accepted:
            raise InputError(f"--columns {text}: unknown column {ours!r}; expected {', '.join(accepted)}")
        if ours in names or theirs in names.values():
            raise InputError(f"--columns {text}: {entry!r} repeats a column; expected every column once")
        names[ours] = theirs
    return names


def read_points(path: Path, columns: Mapping[str, str] | None = None) -> Points:
    """Read runs from a CSV file that has at least the columns in COLUMNS.

    Rows that differ only in `loss`, or only in a column such as `seed`, are treated as runs with different seeds.

    columns: maps our names to the names in the file's header, where the two differ. Raises an InputError that gives the line, the
    column, the value found and the values accepted.
    """
    lines = _lines(path)
    header = next(lines, (0, []))[1]
    indices = _indices(path, header, columns or {})
    values: list[list[float]] = []
    first_lines: dict[tuple[object, ...], int] = {}
    for line, cells in lines:
        where = f"{path}, line {line}"
        if any(cells[len(header) :]) or len(cells) < len(header):
            raise InputError(
                f"{where}: {len(cells)} cells, but the header has {len(header)}; expected one cell per column"
            )
        row = [_value(where, name, cells[index]) for name, index in indices.items()]
        run = dict(zip(indices, row, strict=True))
        if run["fraction"] == 0 and run["repeats"] > 1:
            raise InputError(f"{where}: fraction is 0 but repeats is above 1; a clean run has repeats 1")
        others = [cell for index, cell in enumerate(cells[: len(header)]) if index not in indices.values()]
        first = first_lines.setdefault((*row, *others), line)
        if first != line:
            raise InputError(
                f"{where}: identical to line {first}; if the runs differ in their seed, add a column {SEED!r}"
            )
        values.append(row)
    if not values:
        raise InputError(f"{path}: no runs below the header; expected one run per line")
    params, tokens, fraction, repeats, loss = np.array(values).T
    return Points(params, tokens, np.where(repeats == 1, 0.0, fraction), repeats, loss)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and cells of every non-empty line, starting with the header."""
    if not path.exists():
        raise InputError(f"{path}: no such file")
    reader = csv.reader(
        io.StringIO(read_text(path, MOST_BYTES, accept_pipes=True), newline=""), strict=True, skipinitialspace=True
    )
    line = 1
    try:
        for row in reader:
            if any(cells := [cell.strip() for cell in row]):
                yield line, cells
            line = reader.line_num + 1  # a quoted cell may contain line breaks
    except csv.Error as error:
        raise InputError(f"{path}, line {line}: not CSV: {error}") from error


def _indices(path: Path, header: list[str], names: Mapping[str, str]) -> dict[str, int]:
    """Find the position in the header of every column in COLUMNS."""
    wanted = {name: names.get(name, name) for name in COLUMNS}
    if missing := [name for name in (*wanted.values(), *names.values()) if name not in header]:
        if len(header) == 1 and (mark := next((mark for mark in ";\t|" if mark in header[0]), "")):
            raise InputError(f"{path}: columns are separated by {mark!r}; expected a comma")
        raise InputError(
            f"{path}: missing column {', '.join(dict.fromkeys(missing))}; found {', '.join(header) or 'nothing'}; expected"
            f" {', '.join(COLUMNS)}, or names mapped with --columns params=N,tokens=T"
        )
    if repeated := [name for name in wanted.values() if header.count(name) > 1]:
        raise InputError(f"{path}: column {', '.join(repeated)} appears twice; expected once")
    return {name: header.index(theirs) for name, theirs in wanted.items()}


def _value(where: str, name: str, text: str) -> float:
    column = READ_AS[name]
    value = column.parse(text)
    if value is None or not column.accepts(value):
        raise InputError(f"{where}: {name} is {text!r}; expected {column.accepted}")
    return value
