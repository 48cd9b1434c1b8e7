"""CSV files of a user's runs, read strictly and line by line."""

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
    """How a column is read, and which of its values are accepted."""

    parse: Callable[[str], float | None]
    accepted: str
    holds: Callable[[float], bool] = lambda value: True


READ_AS = {
    "params": Column(parse_count, ACCEPTED_COUNTS),
    "tokens": Column(parse_count, ACCEPTED_COUNTS),
    "fraction": Column(_decimal, "a number from 0 to 1", lambda value: 0 <= value <= 1),
    "repeats": Column(parse_number, "a number from 1 (clean) to 1e12", lambda value: 1 <= value <= 1e12),
    "loss": Column(_decimal, "nats per token, above 0 and up to 100", lambda value: 0 < value <= 100),
}
COLUMNS = tuple(READ_AS)


def parse_columns(text: str) -> dict[str, str]:
    """The argument of --columns, e.g. `params=N,loss=test_loss`: our names and the names in the header of the file.

    Raises InputError for another form, an unknown name, and a name that is given twice.
    """
    known = (*COLUMNS, SEED)
    names: dict[str, str] = {}
    for entry in text.split(","):
        ours, equals, theirs = (piece.strip() for piece in entry.partition("="))
        if not (ours and equals and theirs):
            raise InputError(f"--columns {text}: {entry!r} found; expected pairs such as params=N,tokens=T,loss=L")
        if ours not in known:
            raise InputError(f"--columns {text}: unknown column {ours!r}; expected {', '.join(known)}")
        if ours in names or theirs in names.values():
            raise InputError(f"--columns {text}: {entry!r} names a column a second time; expected once")
        names[ours] = theirs
    return names


def read_points(path: Path, columns: Mapping[str, str] | None = None) -> Points:
    """Runs from a CSV file with the columns of COLUMNS, and perhaps others.

    Rows that differ only in `seed`, or only in `loss`, are seeds. columns: the names of our columns in the header of the
    file, where they differ. Raises InputError that names the line and the column, what was found and what is accepted.
    """
    lines = _lines(path)
    header = next(lines, (0, []))[1]
    places = _places(path, header, columns or {})
    values: list[list[float]] = []
    first_lines: dict[tuple[object, ...], int] = {}
    for line, cells in lines:
        where = f"{path}, line {line}"
        if any(cells[len(header) :]) or len(cells) < len(header):
            raise InputError(
                f"{where}: {len(cells)} cells, but the header has {len(header)}; expected a cell per column"
            )
        row = [_value(where, name, cells[place]) for name, place in places.items()]
        run = dict(zip(places, row, strict=True))
        if run["fraction"] == 0 and run["repeats"] > 1:
            raise InputError(f"{where}: fraction is 0 but repeats is above 1; a clean run has repeats 1")
        others = [cell for place, cell in enumerate(cells[: len(header)]) if place not in places.values()]
        first = first_lines.setdefault((*row, *others), line)
        if first != line:
            raise InputError(
                f"{where}: the same run as on line {first}, in every column; if it is another seed, tell them apart in a"
                f" column {SEED!r}"
            )
        values.append(row)
    if not values:
        raise InputError(f"{path}: found no runs below the header; expected one run per line")
    params, tokens, fraction, repeats, loss = np.array(values).T
    return Points(params, tokens, np.where(repeats == 1, 0.0, fraction), repeats, loss)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of every line that is not empty, the header first."""
    if not path.exists():
        raise InputError(f"{path}: no such file")
    reader = csv.reader(io.StringIO(read_text(path, MOST_BYTES), newline=""), strict=True, skipinitialspace=True)
    line = 1
    try:
        for row in reader:
            if any(cells := [cell.strip() for cell in row]):
                yield line, cells
            line = reader.line_num + 1  # a cell in quotes may contain line breaks
    except csv.Error as error:
        raise InputError(f"{path}, line {line}: not CSV: {error}") from error


def _places(path: Path, header: list[str], names: Mapping[str, str]) -> dict[str, int]:
    """Index of each of COLUMNS in the header."""
    wanted = {name: names.get(name, name) for name in COLUMNS}
    if missing := [name for name in (*wanted.values(), *names.values()) if name not in header]:
        if len(header) == 1 and (mark := next((mark for mark in ";\t|" if mark in header[0]), "")):
            raise InputError(f"{path}: columns are separated by {mark!r}; expected a comma")
        raise InputError(
            f"{path}: missing column {', '.join(dict.fromkeys(missing))}; found {', '.join(header)}; required are"
            f" {', '.join(COLUMNS)}; to use other names: --columns params=N,tokens=T"
        )
    if repeated := [name for name in wanted.values() if header.count(name) > 1]:
        raise InputError(f"{path}: column {', '.join(repeated)} appears twice; expected once")
    return {name: header.index(theirs) for name, theirs in wanted.items()}


def _value(where: str, name: str, text: str) -> float:
    column = READ_AS[name]
    value = column.parse(text)
    if value is None or not column.holds(value):
        raise InputError(f"{where}: {name} is {text!r}; expected {column.accepted}")
    return value
