"""Read a user's table of models: where each one is, and how it was trained."""

import os
from dataclasses import dataclass
from pathlib import Path

from analysis.counts import parse_number
from analysis.csv_table import COUNT, FRACTION, Column, read_rows
from data_prep.errors import InputError

REPEATS = Column(
    parse_number, "a number from 0 to 1e12, where 0 or 1 is a clean control", lambda value: 0 <= value <= 1e12
)
NUMBERS = {"params": COUNT, "tokens": COUNT, "fraction": FRACTION, "repeats": REPEATS}
COLUMNS = ("path", *NUMBERS, "seed")


@dataclass(frozen=True)
class ListedModel:
    """One line of the table.

    name: the folder as the table names it. path: the folder. tokens: T. fraction: f, which is 0 for clean controls. repeats: R.
    clean: whether it is a clean control.
    """

    where: str  # the line, for error messages
    name: str
    path: Path
    params: float
    tokens: float
    fraction: float
    repeats: float
    seed: str
    clean: bool


def read_models(path: Path) -> list[ListedModel]:
    """Read a CSV file with the columns in COLUMNS. Relative paths start at the file's folder.

    If some models have R = 0, these are the clean controls; otherwise, the models with R = 1 are. Raises an InputError that gives
    the line, the value found and the values accepted, also if two lines name the same folder or describe the same training.
    """
    rows = [
        (row, {name: column.value(row.where, name, row.cells[name]) for name, column in NUMBERS.items()})
        for row in read_rows(path, COLUMNS, {})
    ]
    if not rows:
        raise InputError(f"{path}: no models below the header; expected one model per line")
    control = 0 if any(numbers["repeats"] == 0 for _, numbers in rows) else 1
    models: list[ListedModel] = []
    lines: dict[object, int] = {}
    for row, numbers in rows:
        for name in ("path", "seed"):
            if not row.cells[name] or "\0" in row.cells[name]:
                raise InputError(f"{row.where}: {name} is {row.cells[name]!r}; expected a value")
        clean = numbers["repeats"] == control
        if numbers["fraction"] == 0 and not clean:
            raise InputError(
                f"{row.where}: fraction is 0 but repeats is {row.cells['repeats']}; expected the fraction of repeated tokens, or repeats ="
                f" {control} for a clean control"
            )
        fraction = 0.0 if clean else numbers["fraction"]
        folder = path.parent / Path(row.cells["path"])
        training = (numbers["params"], numbers["tokens"], fraction, numbers["repeats"], row.cells["seed"])
        for key, problem in (
            (os.path.realpath(folder), "the same folder as"),
            (training, "the same training and seed as"),
        ):
            if (first := lines.setdefault(key, row.line)) != row.line:
                raise InputError(f"{row.where}: {problem} line {first}; expected every model once")
        models.append(
            ListedModel(
                row.where,
                row.cells["path"],
                folder,
                numbers["params"],
                numbers["tokens"],
                fraction,
                numbers["repeats"],
                row.cells["seed"],
                clean,
            )
        )
    return models
