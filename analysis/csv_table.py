"""Read a user's CSV file and check every line and cell."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.counts import ACCEPTED_COUNTS, parse_count
from data_prep.errors import InputError
from data_prep.files import read_text

MOST_BYTES = 100_000_000
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?", re.IGNORECASE)


def decimal(text: str) -> float | None:
    """Parse a decimal number; None if this fails."""
    return float(text) if _DECIMAL.fullmatch(text) else None


@dataclass(frozen=True)
class Column:
    """How to parse a column, and which values to accept."""

    parse: Callable[[str], float | None]
    accepted: str
    accepts: Callable[[float], bool] = lambda value: True

    def value(self, where: str, name: str, text: str) -> float:
        """The value of a cell. Raises InputError if it is not accepted."""
        value = self.parse(text)
        if value is None or not self.accepts(value):
            raise InputError(f"{where}: {name} is {text!r}; expected {self.accepted}")
        return value


COUNT = Column(parse_count, ACCEPTED_COUNTS)
FRACTION = Column(decimal, "a number from 0 to 1", lambda value: 0 <= value <= 1)


@dataclass(frozen=True)
class Row:
    """A line below the header. cells: text by our column names. others: the cells of all other columns."""

    where: str  # for error messages
    line: int
    cells: dict[str, str]
    others: tuple[str, ...]


def read_rows(
    path: Path, columns: Sequence[str], names: Mapping[str, str], hint: str = "", optional: Sequence[str] = ()
) -> Iterator[Row]:
    """Yield every line below the header.

    columns: our names of the columns that the file must have. names: maps our names to those in the file's header, where they
    differ. hint: is added to the error for a missing column. optional: our names of columns that `cells` contains too if the file has
    them; they also count as other columns. Raises InputError if the file is not CSV, if it lacks a column, or
    if a line has too few or too many cells.
    """
    lines = _lines(path)
    header = next(lines, (0, []))[1]
    indices = _indices(path, header, columns, names, hint)
    extra = {name: header.index(theirs) for name in optional if (theirs := names.get(name, name)) in header}
    for line, cells in lines:
        where = f"{path}, line {line}"
        if any(cells[len(header) :]) or len(cells) < len(header):
            raise InputError(
                f"{where}: {len(cells)} cells, but the header has {len(header)}; expected one cell per column"
            )
        others = tuple(cell for index, cell in enumerate(cells[: len(header)]) if index not in indices.values())
        yield Row(where, line, {name: cells[index] for name, index in (indices | extra).items()}, others)


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


def _indices(
    path: Path, header: list[str], columns: Sequence[str], names: Mapping[str, str], hint: str
) -> dict[str, int]:
    """Find the position of every column in the header."""
    wanted = {name: names.get(name, name) for name in columns}
    if missing := [name for name in (*wanted.values(), *names.values()) if name not in header]:
        if len(header) == 1 and (mark := next((mark for mark in ";\t|" if mark in header[0]), "")):
            raise InputError(f"{path}: columns are separated by {mark!r}; expected a comma")
        raise InputError(
            f"{path}: missing column {', '.join(dict.fromkeys(missing))}; found {', '.join(header) or 'nothing'}; expected"
            f" {', '.join(columns)}{hint}"
        )
    if repeated := [name for name in wanted.values() if header.count(name) > 1]:
        raise InputError(f"{path}: column {', '.join(repeated)} appears twice; expected once")
    return {name: header.index(theirs) for name, theirs in wanted.items()}
