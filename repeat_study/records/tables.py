"""The Parquet tables of a run: heads.parquet, paragraph.parquet and test_sequences.parquet, rows grouped by evaluation."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from data_prep.errors import InputError
from data_prep.files import write_atomically

Columns = dict[str, list[Any]]


def read_table(path: Path) -> pa.Table | None:
    """A table; None if there is no file. Raises InputError if it is damaged."""
    if not path.is_file():
        return None
    try:
        with parquet.ParquetFile(path) as file:  # twice as fast as read_table, which sets up a dataset first
            return file.read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: damaged ({error}); delete the run's folder to train it again") from error


def write_table(path: Path, table: pa.Table) -> None:
    """Replace a table, atomically."""
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    write_atomically(path, buffer.getvalue())


def append_columns(path: Path, step: int, tokens: int, columns: Columns) -> None:
    """Add the rows of one evaluation to a table, with its step and its trained tokens; nothing if there are no columns."""
    if not columns:
        return
    entries = len(next(iter(columns.values())))
    existing = read_table(path)
    schema = existing.schema if existing else None
    added = pa.table({"step": [step] * entries, "tokens": [tokens] * entries, **columns}, schema=schema)
    write_table(path, pa.concat_tables([existing, added]) if existing else added)


def columns_at(table: pa.Table, step: int) -> Columns:
    """The rows of one evaluation, as columns."""
    return dict(table.filter(pc.field("step") == step).to_pydict())


def up_to(table: pa.Table, step: int) -> pa.Table:
    """The rows of evaluations up to a step."""
    return table.filter(pc.field("step") <= step)


def steps_in(table: pa.Table | None) -> list[int]:
    """The steps of a table's evaluations, in order."""
    return sorted(set(table["step"].to_pylist())) if table else []
