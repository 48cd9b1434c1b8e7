"""Read the user's text files: plain text, JSON lines (uncompressed, gzip or Zstandard) and Parquet."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Literal

from pydantic import Field

from data_prep.errors import InputError
from data_prep.sources.decoding import decode_python, decode_text, decode_utf8
from data_prep.sources.document import BadRow, BadText, Document
from data_prep.sources.find_files import JSON_LINES, PARQUET, PLAIN, find_files, has_suffix, names_of
from data_prep.sources.source import Chunk, Source

EXPANSION = 4  # assumed bytes of text per byte of a compressed file


class TextFiles(Source):
    """Files, folders and globs; `~` and relative paths work as in a shell. Each plain file, line or row is one document."""

    kind: Literal["files"] = "files"
    paths: tuple[str, ...] = Field(strict=False, min_length=1)  # not strict, because TOML has lists but no tuples
    text_field: str = "text"  # JSON key or Parquet column
    max_bad_rows: int = Field(0, ge=0)  # in all files together

    @property
    def in_words(self) -> str:
        """See `DataSource.in_words`."""
        return f"files ({names_of(self.paths)})"

    def read(self) -> Iterator[Document | BadRow]:
        """Yield the documents of all files, in the order of `paths` and, within a folder or glob, sorted by name.

        A document's name is its path relative to the given folder, followed by `:line` in JSONL files and `:row` in
        Parquet files. Only one plain file, one JSONL line or one batch of a Parquet column is in memory at a time. A row
        is bad if it is not UTF-8 or not a JSON object, or if its field is missing or not a string.
        Raises InputError if a path matches no files, a file is unreadable or truncated, or a Parquet file lacks the
        column.
        """
        for name, path in find_files(self.paths).files:
            yield from self.read_chunk(Chunk(((name, str(path)),)))

    def read_chunk(self, chunk: Chunk) -> Iterator[Document | BadRow]:
        """Yield the documents of several plain files, or of one range of a file with records. Raises InputError like `read`."""
        from data_prep.sources.record_files import read_errors

        for name, path in chunk.files:
            with read_errors(Path(path)):
                yield from self._read_file(name, Path(path), chunk)

    def _read_file(self, name: str, path: Path, chunk: Chunk) -> Iterator[Document | BadRow]:
        from data_prep.sources.record_files import json_field, lines_between, parquet_column

        if has_suffix(path, PLAIN):
            decode = decode_python if has_suffix(path, (".py",)) else decode_text
            try:
                yield Document.of(name, decode(path.read_bytes()))
            except BadText as error:
                yield BadRow(str(path), str(error))
            return
        text_of: Callable[[bytes], object] = decode_utf8
        rows: Iterator[tuple[int, bytes | None]]
        if has_suffix(path, JSON_LINES):
            text_of = partial(json_field, field=self.text_field)
            before = chunk.rows_before or 0
            lines = lines_between(path, chunk.first, chunk.last, chunk.state)
            rows = ((before + number, line) for number, line in lines)
        else:
            rows = parquet_column(path, self.text_field, chunk.first, chunk.last, chunk.rows_before or 0)
        for number, content in rows:
            try:
                yield Document.of(
                    f"{name}:{number}", None if content is None else text_of(content), field=self.text_field
                )
            except BadText as error:
                yield BadRow(f"{path}:{number}", str(error))

    def text_bytes(self) -> float | None:
        """Size of all files. Compressed files count EXPANSION times."""
        with suppress(InputError, OSError):
            return sum(_text_bytes(path) for _, path in find_files(self.paths).files)
        return None

    def chunks(self, size: int, most_tokens: int) -> list[Chunk]:
        """Several plain files, a range of bytes of a JSON lines file, or a range of row groups of a Parquet file per chunk."""
        from data_prep.sources.record_files import read_errors

        chunks: list[Chunk] = []
        plain: list[Chunk] = []  # one file each
        for name, path in find_files(self.paths).files:
            with read_errors(path):
                stat = path.stat()
                file = Chunk(
                    ((name, str(path)),), text_bytes=_text_bytes(path), state=f"{stat.st_size} {stat.st_mtime_ns}"
                )
            if has_suffix(path, PLAIN):
                plain.append(file)
            if plain and (not has_suffix(path, PLAIN) or sum(chunk.text_bytes or 0 for chunk in plain) >= size):
                chunks.append(_joined(plain))
                plain = []
            if has_suffix(path, PARQUET):
                chunks += _row_group_chunks(file, self.text_field, size)
            elif not has_suffix(path, PLAIN):
                chunks += _line_chunks(file, size)
        return [*chunks, *([_joined(plain)] if plain else [])]

    def rows_in(self, chunk: Chunk, rows: int) -> int:
        """The number of lines for a range of a JSON lines file, which includes blank ones. Rows of other files have known numbers."""
        from data_prep.sources.record_files import count_lines

        if chunk.last is None or not _is_plain_json(chunk):
            return 0
        return count_lines(Path(chunk.files[0][1]), chunk.first, chunk.last)

    def numbered(self, chunk: Chunk) -> Chunk:
        """The same chunk with `rows_before`, which is counted if necessary."""
        from data_prep.sources.record_files import count_lines

        if chunk.rows_before is not None:
            return chunk
        return replace(chunk, rows_before=count_lines(Path(chunk.files[0][1]), 0, chunk.first))

    def input_sizes(self) -> dict[str, str]:
        """Size of every file. Empty if a path matches no files, because the store may have been built on another machine."""
        with suppress(InputError):
            return {name: f"{path.stat().st_size} bytes" for name, path in find_files(self.paths).files}
        return {}

    def skipped_input(self) -> str:
        """One-line summary of the hidden files and other file types that were skipped; empty if nothing was skipped."""
        with suppress(InputError):
            return find_files(self.paths).skipped()
        return ""


def _text_bytes(path: Path) -> int:
    return path.stat().st_size * (EXPANSION if has_suffix(path, (".gz", ".zst")) else 1)


def _is_plain_json(chunk: Chunk) -> bool:
    path = Path(chunk.files[0][1])
    return has_suffix(path, JSON_LINES) and not has_suffix(path, (".gz", ".zst"))


def _joined(files: list[Chunk]) -> Chunk:
    return Chunk(
        tuple(file.files[0] for file in files),
        text_bytes=sum(file.text_bytes or 0 for file in files),
        state=",".join(file.state for file in files),
    )


def _line_chunks(file: Chunk, size: int) -> Iterator[Chunk]:
    """Ranges of `size` bytes. The last one continues to the end, because the size of a compressed file is an estimate."""
    count = max(1, ceil((file.text_bytes or 0) / size))
    for number in range(count):
        first, last = number * size, None if number == count - 1 else (number + 1) * size
        known = number == 0 or not _is_plain_json(file)
        yield replace(
            file,
            first=first,
            last=last,
            rows_before=0 if known else None,
            text_bytes=size if last else max(0, (file.text_bytes or 0) - first),
        )


def _row_group_chunks(file: Chunk, column: str, size: int) -> Iterator[Chunk]:
    """Ranges of row groups of about `size` bytes."""
    from data_prep.sources.record_files import row_groups

    groups = row_groups(Path(file.files[0][1]), column)
    first = rows_before = rows = text = 0
    for number, (group_rows, group_bytes) in enumerate(groups, 1):
        rows, text = rows + group_rows, text + group_bytes
        if text >= size or number == len(groups):
            yield replace(file, first=first, last=number, rows_before=rows_before, text_bytes=text)
            first, rows_before, rows, text = number, rows_before + rows, 0, 0
    if not groups:
        yield file
