"""Rows of JSONL and Parquet files, as bytes. Apart from text_files.py because importing pyarrow takes 0.1 s."""

import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.errors import InputError
from data_prep.sources.document import BadText, decode_utf8, one_line

TEXT_TYPES = (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary())
PARQUET_ROWS = 256  # decoded at once: a few MB of web text
BLOCK_BYTES = 1 << 20  # read at once
COLUMNS_LISTED = 20  # in an error


def json_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Line number, from 1, and bytes of every line that is not blank; decompressed according to the suffix."""
    # pyarrow's streams detect a truncated file, which zstandard's do not, and are six times as fast as gzip's.
    with pa.input_stream(os.fspath(path)) as stream:
        for number, line in enumerate(io.BufferedReader(stream, BLOCK_BYTES), 1):
            if not line.isspace():
                yield number, line


def json_field(line: bytes, field: str) -> object:
    """Value of one field of a JSON object; raises BadText if the line has none."""
    text = decode_utf8(line)
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadText(f"not JSON ({error})") from error
    if not isinstance(row, dict):
        raise BadText(f"a JSON {type(row).__name__} found, an object expected")
    if field not in row:
        raise BadText(f"no field {field!r} (data.source.text_field); fields: {_listed(row)}")
    return row[field]


def parquet_column(path: Path, column: str) -> Iterator[tuple[int, bytes | None]]:
    """Row number, from 1, and bytes (None: null) of every row of one text column; reads no other column."""
    # Buffered: otherwise the first row loads a whole row group (measured: 410 MB instead of 20 MB).
    with pq.ParquetFile(path, buffer_size=BLOCK_BYTES, pre_buffer=False) as file:
        schema = file.schema_arrow
        if column not in schema.names:
            raise InputError(f"{path}: no column {column!r} (data.source.text_field); columns: {_listed(schema.names)}")
        kind = schema.field(column).type
        if (kind.value_type if pa.types.is_dictionary(kind) else kind) not in TEXT_TYPES:
            raise InputError(f"{path}: column {column!r} (data.source.text_field) holds {kind}, text expected")
        batches = file.iter_batches(PARQUET_ROWS, columns=[column])
        # As bytes, so that a row that is not UTF-8 is one bad row instead of the end of the file.
        values = (value for batch in batches for value in batch.column(column).cast(pa.large_binary()))
        for number, value in enumerate(values, 1):
            yield number, value.as_py()


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn errors of the file system and of pyarrow into an InputError that names the file."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise InputError(f"{path}: cannot be read: {reason}") from error


def _listed(names: Iterable[str]) -> str:
    first = list(islice(names, COLUMNS_LISTED + 1))
    return ", ".join(first[:COLUMNS_LISTED]) + (", …" if len(first) > COLUMNS_LISTED else "") or "none"
