"""Read the rows of JSONL and Parquet files as bytes.

This code is kept out of text_files.py because importing pyarrow takes 0.1 s.
"""

import codecs
import importlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.errors import InputError
from data_prep.sources.decoding import decode_utf8
from data_prep.sources.document import BadText, one_line

TEXT_TYPES = (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary())
PARQUET_ROWS = 256  # rows per batch, a few MB of web text
BLOCK_BYTES = 1 << 20  # per read
COLUMNS_LISTED = 20  # in an error message
WINDOW_TOO_LARGE = "requires too much memory"  # part of pyarrow's error message for a Zstandard window above 128 MB
LARGEST_WINDOW = 2**31  # bytes, the window of `zstd --long=31`
COMPRESSION = {".gz": "gzip", ".zst": "zstd"}
COMPRESSED_BYTES = 1 << 16  # per read; larger reads would need a lot of memory if the text compresses well


def json_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the line number (from 1) and bytes of every line that is not blank. The file's suffix determines its compression.

    A byte-order mark at the start of any line is dropped, because concatenated files can have such marks in the middle.
    """
    for number, line in enumerate(_all_lines(path), 1):
        if content := _content(line):
            yield number, content


class CompressedLines:
    """Reads ranges of lines from a compressed file. Ascending ranges are read from one stream, so the file is decompressed once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._restart()

    def _restart(self) -> None:
        self._lines = _all_lines(self._path)
        self._start = self._number = 0  # of the next line: its first byte, and the number of lines before it
        self._next: bytes | None = None

    def between(self, first: int, last: int | None) -> Iterator[tuple[int, bytes]]:
        """Like `json_lines`, but only the lines that start at bytes first..last (exclusive) of the decompressed file."""
        if first < self._start:
            self._restart()
        while last is None or self._start < last:
            try:
                line = self._next or next(self._lines, None)
            except Exception:
                self._restart()  # a generator that has raised an error would seem to be at its end
                raise
            if line is None:
                return
            self._next = line  # kept if the caller stops here
            start = self._start
            if start >= first and (content := _content(line)):
                yield self._number + 1, content
            self._start, self._number, self._next = start + len(line), self._number + 1, None


@lru_cache(maxsize=1)
def _open_compressed(path: Path, state: str) -> CompressedLines:
    return CompressedLines(path)


def lines_between(path: Path, first: int, last: int | None, state: str = "") -> Iterator[tuple[int, bytes]]:
    """Yield the lines that start at bytes first..last (exclusive), like `json_lines`, but with other line numbers.

    The lines of a file without compression are numbered from the start of the range, so that a process reads only this range. For a
    compressed file, the range counts decompressed bytes, and line numbers count from the start of the file. state: identifies the file's
    content.
    """
    if path.suffix.lower() in COMPRESSION:
        yield from _open_compressed(path, state).between(first, last)
        return
    with path.open("rb", BLOCK_BYTES) as file:
        start = 0
        if first:
            file.seek(first - 1)
            start = first - 1 + len(file.readline())  # the rest of a line that starts before the range
        number = 0
        while (last is None or start < last) and (line := file.readline()):
            number += 1
            start += len(line)
            if content := _content(line):
                yield number, content


def count_lines(path: Path, first: int, last: int) -> int:
    """Number of lines that start at bytes first..last (exclusive) of a file without compression. `last` is not after its end."""
    count, left = int(first == 0), last - max(first, 1)
    with path.open("rb") as file:
        file.seek(max(first - 1, 0))
        while left > 0 and (block := file.read(min(left, BLOCK_BYTES))):
            count += block.count(b"\n")
            left -= len(block)
    return count


def _all_lines(path: Path) -> Iterator[bytes]:
    """Yield every line of a file, decompressed."""
    number = 0
    try:
        # Unlike zstandard's streams, pyarrow's detect truncated files. They are also six times as fast as the gzip module.
        with pa.input_stream(os.fspath(path), COMPRESSION.get(path.suffix.lower())) as stream:
            for line in io.BufferedReader(stream, BLOCK_BYTES):
                number += 1
                yield line
    except OSError as error:
        if WINDOW_TOO_LARGE not in str(error):
            raise
        with LongWindowStream(path) as stream:
            yield from islice(io.BufferedReader(stream, BLOCK_BYTES), number, None)


def _content(line: bytes) -> bytes:
    """The line without a byte-order mark; empty if the line is blank."""
    content = line.removeprefix(codecs.BOM_UTF8)
    return b"" if content.isspace() else content


class LongWindowStream(io.RawIOBase):
    """A stream of the decompressed bytes in a Zstandard file whose window is too large for pyarrow. Needs the zstandard package."""

    def __init__(self, path: Path) -> None:
        """Open the file. Raises InputError if the zstandard package is missing."""
        super().__init__()
        try:
            zstandard: Any = importlib.import_module("zstandard")
        except ModuleNotFoundError as error:
            raise InputError(
                f"{path}: cannot be read: its Zstandard window is larger than 128 MB; run pip install zstandard, or"
                " compress the file again without --long (zstd -d --long=31, then zstd)"
            ) from error
        self._error = zstandard.ZstdError
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
        self._file = path.open("rb")
        self._frame: Any = None
        self._compressed = self._decompressed = b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read bytes into the buffer and return how many (0 at the end). Raises OSError if the file is truncated or damaged."""
        while not self._decompressed:
            self._compressed = self._compressed or self._file.read(COMPRESSED_BYTES)
            if not self._compressed:
                if self._frame is not None:
                    raise OSError("Truncated compressed stream")
                return 0
            self._frame = self._frame or self._decompressor.decompressobj()
            try:
                self._decompressed = self._frame.decompress(self._compressed)
            except self._error as error:
                raise OSError(str(error)) from error
            self._compressed = self._frame.unused_data if self._frame.eof else b""
            self._frame = None if self._frame.eof else self._frame
        count = min(len(buffer), len(self._decompressed))
        buffer[:count] = self._decompressed[:count]
        self._decompressed = self._decompressed[count:]
        return count

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def json_field(line: bytes, field: str) -> object:
    """Value of a field in a JSON line. Raises BadText if the line is not a JSON object or lacks the field."""
    text = decode_utf8(line)
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadText(f"not JSON ({error})") from error
    if not isinstance(row, dict):
        raise BadText(f"expected a JSON object, found {type(row).__name__}")
    if field not in row:
        raise BadText(f"no field {field!r} (data.source.text_field); fields: {_listed(row)}")
    return row[field]


def parquet_column(
    path: Path, column: str, first: int = 0, last: int | None = None, rows_before: int = 0
) -> Iterator[tuple[int, bytes | None]]:
    """Yield the row number (from 1) and bytes (None for null) of every value in a text column. Reads only that column.

    first, last: range of row groups (`last` is exclusive; None means the end); rows_before: number of rows before the range.
    """
    # Without a buffer, reading the first row loads a whole row group (measured: 410 MB instead of 20 MB).
    with pq.ParquetFile(path, buffer_size=BLOCK_BYTES, pre_buffer=False) as file:
        schema = file.schema_arrow
        if column not in schema.names:
            raise InputError(f"{path}: no column {column!r} (data.source.text_field); columns: {_listed(schema.names)}")
        if (count := schema.names.count(column)) > 1:
            raise InputError(
                f"{path}: {count} columns are named {column!r} (data.source.text_field), expected one; columns:"
                f" {_listed(schema.names)}"
            )
        kind = schema.field(column).type
        if (kind.value_type if pa.types.is_dictionary(kind) else kind) not in TEXT_TYPES:
            raise InputError(f"{path}: column {column!r} (data.source.text_field) has type {kind}, expected text")
        groups = list(range(first, file.num_row_groups if last is None else last))
        batches = file.iter_batches(PARQUET_ROWS, row_groups=groups, columns=[column])
        # Read bytes, because otherwise a single row that is not UTF-8 would make the whole file unreadable.
        values = (value for batch in batches for value in batch.column(column).cast(pa.large_binary()))
        for number, value in enumerate(values, rows_before + 1):
            yield number, value.as_py()


def row_groups(path: Path, column: str) -> list[tuple[int, int]]:
    """Number of rows and bytes of text in each row group of a Parquet file. Empty if the file cannot be read."""
    try:
        with pq.ParquetFile(path) as file:
            groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    except (OSError, pa.ArrowException):  # reading the file reports the error
        return []
    sizes = []
    for group in groups:
        columns = [group.column(number) for number in range(group.num_columns)]
        text = sum(chunk.total_uncompressed_size for chunk in columns if chunk.path_in_schema == column)
        sizes.append((group.num_rows, text))
    return sizes


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Convert file-system and pyarrow errors to an InputError that names the file."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise InputError(f"{path}: cannot be read: {reason}") from error


def _listed(names: Iterable[str]) -> str:
    first = list(islice(names, COLUMNS_LISTED + 1))
    return ", ".join(first[:COLUMNS_LISTED]) + (", …" if len(first) > COLUMNS_LISTED else "") or "none"
