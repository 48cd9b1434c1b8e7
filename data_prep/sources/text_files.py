"""Your own text: plain files, JSON lines (plain, gzip, Zstandard) and Parquet."""

import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from glob import glob
from itertools import islice
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from data_prep.errors import InputError
from data_prep.sources.document import BadRow, Document, SourceReport, decoded, one_line

Row = tuple[int, bytes | None]  # number in the file from 1 (0: the file is the row), bytes or null
PLAIN, LINES, TABLES = (".txt", ".md", ".py"), (".jsonl", ".jsonl.gz", ".jsonl.zst"), (".parquet",)
SUFFIXES = (*PLAIN, *LINES, *TABLES)
TEXT_TYPES = (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary())
PARQUET_ROWS = 256  # decoded at once: a few MB of web text
BLOCK_BYTES = 1 << 20  # read at once
COLUMNS_TOLD = 20


class TextFiles(BaseModel):
    """Files, folders and globs (`~` and relative paths as in a shell); a document per plain file, line or row."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["files"] = "files"
    paths: tuple[str, ...] = Field(strict=False, min_length=1)  # not strict: TOML has lists only
    text_field: str = "text"  # JSON key or Parquet column
    max_bad_rows: int = Field(0, ge=0)  # of all files together


def read(spec: TextFiles, report: SourceReport) -> Iterator[Document]:
    """Documents of all files, in the order of `paths`, below a folder or glob in the order of the names.

    A document is named by its path below the folder it was found from; in a file of many, `:row` follows (in JSONL
    the line). Memory holds one plain file, one line of JSONL or one batch of one Parquet column.
    Raises InputError for a path that gives no file, an unreadable or truncated file, a Parquet file without the
    column, and more than `max_bad_rows` bad rows: not UTF-8, not a JSON object, no such field, no string in it.
    """
    for name, path in find_files(spec.paths):
        with _named_when_unreadable(path):
            for number, content in _rows(path, spec.text_field):
                row = f":{number}" if number else ""
                try:
                    document = Document.of(name + row, _text_of(path, content, spec.text_field))
                except BadRow as error:
                    report.add_bad(f"{path}{row}", str(error), spec.max_bad_rows)
                else:
                    yield document


def find_files(paths: tuple[str, ...]) -> list[tuple[str, Path]]:
    """Name and path of every file the paths stand for, each file once, however often it is matched.

    Raises InputError when a path matches no file of a known suffix, or names a file of another one.
    """
    found: dict[Path, tuple[str, Path]] = {}
    for given in paths:
        path = Path(given)
        with suppress(RuntimeError):  # ~nobody: no such home, so no such file
            path = path.expanduser()
        with _named_when_unreadable(path):
            root, matches = _matches(path)
            files = sorted({file for match in matches for file in (match.rglob("*") if match.is_dir() else [match])})
            files = [file for file in files if file.name.endswith(SUFFIXES) and file.is_file()]
            if not files:
                raise InputError(f"{given}: data.source.paths finds no file here that ends in {' '.join(SUFFIXES)}")
            for file in files:
                found.setdefault(file.resolve(), (file.relative_to(root).as_posix(), file))
    return list(found.values())


def _matches(path: Path) -> tuple[Path, list[Path]]:
    """The folder that names are given below, and the files and folders a path stands for."""
    if path.is_dir():
        return path, [path]
    if path.exists():
        if not path.name.endswith(SUFFIXES):
            raise InputError(f"{path}: cannot tell what it holds; names may end in {' '.join(SUFFIXES)}")
        return path.parent, [path]
    # Not Path.glob, which raises on patterns that shells accept.
    return _folder_of_glob(path), [Path(match) for match in glob(os.fspath(path), recursive=True)]  # noqa: PTH207


def _folder_of_glob(path: Path) -> Path:
    """The part of a glob before its first wildcard."""
    parts = path.parts
    first = next((place for place, part in enumerate(parts) if set(part) & set("*?[")), len(parts) - 1)
    return Path(*parts[:first])


def _rows(path: Path, field: str) -> Iterator[Row]:
    if path.name.endswith(PLAIN):
        return iter([(0, path.read_bytes())])
    return _lines(path) if path.name.endswith(LINES) else _column(path, field)


def _text_of(path: Path, content: bytes | None, field: str) -> object:
    """The text of a row, or whatever stands in its place; raises BadRow when the row cannot be read."""
    if content is None:
        return None
    return _value(content, field) if path.name.endswith(LINES) else decoded(content)


def _lines(path: Path) -> Iterator[Row]:
    """The lines of a file that are not blank, decompressed by suffix."""
    # pyarrow's streams tell a truncated file, which zstandard's pass over in silence, and are six times as fast as
    # gzip's.
    with pa.input_stream(os.fspath(path)) as stream:
        for number, line in enumerate(io.BufferedReader(stream, BLOCK_BYTES), 1):
            if not line.isspace():
                yield number, line


def _value(line: bytes, field: str) -> object:
    try:
        row = json.loads(decoded(line))
    except BadRow:
        raise
    except (ValueError, RecursionError) as error:
        raise BadRow(f"not JSON ({error})") from error
    if not isinstance(row, dict):
        raise BadRow(f"a JSON {type(row).__name__} found, an object expected")
    if field not in row:
        raise BadRow(f"no field {field!r} (data.source.text_field); there is {_listed(row)}")
    return row[field]


def _column(path: Path, column: str) -> Iterator[Row]:
    """The bytes of each row of one text column; no other column is read."""
    # Buffered: otherwise the first row brings a whole row group into memory (20 MB measured against 410).
    with pq.ParquetFile(path, buffer_size=BLOCK_BYTES, pre_buffer=False) as file:
        schema = file.schema_arrow
        if column not in schema.names:
            raise InputError(f"{path}: no column {column!r} (data.source.text_field); there is {_listed(schema.names)}")
        kind = schema.field(column).type
        if (kind.value_type if pa.types.is_dictionary(kind) else kind) not in TEXT_TYPES:
            raise InputError(f"{path}: column {column!r} (data.source.text_field) holds {kind}, text expected")
        batches = file.iter_batches(PARQUET_ROWS, columns=[column])
        # As bytes, so that a row that is not UTF-8 is one bad row and not the end of the file.
        values = (value for batch in batches for value in batch.column(column).cast(pa.large_binary()))
        for number, value in enumerate(values, 1):
            yield number, value.as_py()


def _listed(names: Iterable[str]) -> str:
    first = list(islice(names, COLUMNS_TOLD + 1))
    return ", ".join(first[:COLUMNS_TOLD]) + (", …" if len(first) > COLUMNS_TOLD else "") or "none"


@contextmanager
def _named_when_unreadable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise InputError(f"{path}: cannot be read: {reason}") from error
