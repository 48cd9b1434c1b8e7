"""Read, check and write a run's Parquet tables. Every evaluation appends a group of rows."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from data_prep.errors import InputError
from data_prep.files import write_atomically
from repeat_study.records.ranges import check_ranges

Columns = dict[str, list[Any]]
INTEGER_COLUMNS = ("step", "tokens", "layer", "head", "copy", "sequence")
LIST_SUFFIXES = ("_per_copy", "loss_by_position")  # suffixes of metrics.jsonl keys whose values are lists of numbers
REQUIRED = {  # columns that are required in addition to step and tokens
    "metrics.jsonl": ("test_loss",),
    "heads.parquet": ("layer", "head", "prefix_matching"),
    "paragraph.parquet": ("copy", "token", "loss"),
    "test_sequences.parquet": ("sequence", "loss"),
    "pool_sequences.parquet": ("sequence", "loss"),
}


def read_table(path: Path) -> pa.Table | None:
    """Read a table; None if the file does not exist. Raises InputError if the file is damaged."""
    if not path.is_file():
        return None
    try:
        with parquet.ParquetFile(path) as file:  # twice as fast as parquet.read_table
            table = file.read(use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error}); delete the run's folder to train it again") from error
    check_columns(table, path)
    return table


def check_columns(table: pa.Table, path: Path) -> None:
    """Raise InputError if a required column of a run's record is missing, or if a column has a wrong type or impossible numbers."""
    names = table.column_names
    if missing := [name for name in ("step", "tokens", *REQUIRED.get(path.name, ())) if name not in names]:
        raise InputError(f"{path}: column {missing[0]!r} is missing; delete the run's folder to train it again")
    for name, kind in zip(names, table.schema.types, strict=True):
        if names.count(name) > 1:
            raise InputError(f"{path}: two columns are named {name!r}; delete the run's folder to train it again")
        if name in INTEGER_COLUMNS:
            valid, accepted = pa.types.is_integer(kind) and not table[name].null_count, "an integer in every row"
        elif name == "token":
            valid, accepted = pa.types.is_string(kind) and not table[name].null_count, "text in every row"
        elif name.endswith(LIST_SUFFIXES):
            valid = pa.types.is_null(kind) or (pa.types.is_list(kind) and _is_number(kind.value_type))
            accepted = "lists of numbers"
        else:
            valid, accepted = _is_number(kind), "numbers"
            if name in REQUIRED.get(path.name, ()):
                finite = not pa.types.is_floating(kind) or pc.all(pc.is_finite(table[name]), min_count=0).as_py()
                valid, accepted = valid and not table[name].null_count and finite, "a finite number in every row"
        if not valid:
            raise InputError(f"{path}: column {name!r} of type {kind} has invalid values; expected {accepted}")
    check_ranges(table, path)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)


def write_table(path: Path, table: pa.Table) -> None:
    """Replace a table atomically."""
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    write_atomically(path, buffer.getvalue())


def append_columns(path: Path, step: int, tokens: int, columns: Columns) -> None:
    """Append one evaluation's rows to a table, and add the step and the number of trained tokens to every row.

    Does nothing if `columns` is empty.
    """
    if not columns:
        return
    rows = len(next(iter(columns.values())))
    existing = read_table(path)
    schema = existing.schema if existing else None
    added = pa.table({"step": [step] * rows, "tokens": [tokens] * rows, **columns}, schema=schema)
    write_table(path, pa.concat_tables([existing, added]) if existing else added)


def columns_at(table: pa.Table, step: int) -> Columns:
    """The rows of one evaluation, as columns."""
    return dict(table.filter(pc.field("step") == step).to_pydict())


def up_to(table: pa.Table, step: int) -> pa.Table:
    """The rows of all evaluations up to a step."""
    return table.filter(pc.field("step") <= step)


def steps_in(table: pa.Table | None) -> list[int]:
    """The steps of a table's evaluations, in order."""
    return sorted(pc.unique(table["step"]).to_pylist()) if table else []
