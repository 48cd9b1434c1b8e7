"""Read a user's runs from a CSV file and check every line."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from analysis.counts import parse_number
from analysis.csv_table import COUNT, FRACTION, Column, decimal, read_rows
from analysis.laws.pairing import Pairing, paired
from analysis.laws.points import Points
from data_prep.errors import InputError

SEED, CELL, CLEAN_LOSS = "seed", "cell", "clean_loss"
OPTIONAL = (SEED, CELL, CLEAN_LOSS)

READ_AS = {
    "params": COUNT,
    "tokens": COUNT,
    "fraction": FRACTION,
    "repeats": Column(parse_number, "a number from 1 (clean) to 1e12", lambda value: 1 <= value <= 1e12),
    "loss": Column(decimal, "nats per token, above 0 and up to 100", lambda value: 0 < value <= 100),
}
COLUMNS = tuple(READ_AS)
_CLEAN_LOSS = Column(
    lambda text: decimal(text) if text else float("nan"),
    "nats per token, above 0 and up to 100, or nothing",
    lambda value: value != value or 0 < value <= 100,
)


def parse_columns(text: str) -> dict[str, str]:
    """Parse the argument of --columns, such as `params=N,loss=test_loss`, into a map from our column names to the user's.

    Raises InputError if the argument is malformed, or if a name is unknown or repeated.
    """
    accepted = (*COLUMNS, *OPTIONAL)
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


def read_points(path: Path, columns: Mapping[str, str] | None = None) -> Pairing:
    """Read runs from a CSV file that has at least the columns in COLUMNS, and pair repeated runs with clean runs.

    Rows that differ only in `loss`, or only in a column such as `seed`, are treated as runs with different seeds. Optional columns say
    which clean run to compare with: `clean_loss` gives its loss, `seed` prefers the clean run with the same seed, and only runs with
    the same `cell`, such as a learning rate, are compared.

    columns: maps our names to the names in the file's header, where the two differ. Raises an InputError that gives the line, the
    column, the value found and the values accepted.
    """
    values: list[list[float]] = []
    given: list[float] = []
    labels: dict[str, list[str]] = {}
    first_lines: dict[tuple[object, ...], int] = {}
    hint = ", or names mapped with --columns params=N,tokens=T"
    for line in read_rows(path, COLUMNS, columns or {}, hint, OPTIONAL):
        row = [column.value(line.where, name, line.cells[name]) for name, column in READ_AS.items()]
        run = dict(zip(COLUMNS, row, strict=True))
        if run["fraction"] == 0 and run["repeats"] > 1:
            raise InputError(f"{line.where}: fraction is 0 but repeats is above 1; a clean run has repeats 1")
        first = first_lines.setdefault((*row, *line.others), line.line)
        if first != line.line:
            raise InputError(
                f"{line.where}: identical to line {first}; if the runs differ in their seed, add a column {SEED!r}"
            )
        values.append(row)
        given.append(_CLEAN_LOSS.value(line.where, CLEAN_LOSS, line.cells.get(CLEAN_LOSS, "")))
        for name in (SEED, CELL):
            if name in line.cells:
                labels.setdefault(name, []).append(line.cells[name])
    if not values:
        raise InputError(f"{path}: no runs below the header; expected one run per line")
    params, tokens, fraction, repeats, loss = np.array(values).T
    points = Points(params, tokens, np.where(repeats == 1, 0.0, fraction), repeats, loss, np.array(given))
    return paired(points, labels.get(SEED), labels.get(CELL))
