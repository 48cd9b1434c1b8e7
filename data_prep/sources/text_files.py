"""Read the user's text files: plain text, JSON lines (uncompressed, gzip or Zstandard) and Parquet."""

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field

from data_prep.errors import InputError
from data_prep.sources.decoding import decode_python, decode_text, decode_utf8
from data_prep.sources.document import BadRow, BadText, Document
from data_prep.sources.find_files import JSON_LINES, PLAIN, find_files, has_suffix
from data_prep.sources.source import Source


class TextFiles(Source):
    """Files, folders and globs; `~` and relative paths work as in a shell. Each plain file, line or row is one document."""

    kind: Literal["files"] = "files"
    paths: tuple[str, ...] = Field(strict=False, min_length=1)  # not strict, because TOML has lists but no tuples
    text_field: str = "text"  # JSON key or Parquet column
    max_bad_rows: int = Field(0, ge=0)  # in all files together

    def read(self) -> Iterator[Document | BadRow]:
        """Yield the documents of all files, in the order of `paths` and, within a folder or glob, sorted by name.

        A document's name is its path relative to the given folder, followed by `:line` in JSONL files and `:row` in
        Parquet files. Only one plain file, one JSONL line or one batch of a Parquet column is in memory at a time. A row
        is bad if it is not UTF-8 or not a JSON object, or if its field is missing or not a string.
        Raises InputError if a path matches no files, a file is unreadable or truncated, or a Parquet file lacks the
        column.
        """
        from data_prep.sources.record_files import read_errors

        for name, path in find_files(self.paths).files:
            with read_errors(path):
                yield from self._read_file(name, path)

    def _read_file(self, name: str, path: Path) -> Iterator[Document | BadRow]:
        from data_prep.sources.record_files import json_field, json_lines, parquet_column

        if has_suffix(path, PLAIN):
            decode = decode_python if has_suffix(path, (".py",)) else decode_text
            try:
                yield Document.of(name, decode(path.read_bytes()))
            except BadText as error:
                yield BadRow(str(path), str(error))
            return
        json = has_suffix(path, JSON_LINES)
        text_of = partial(json_field, field=self.text_field) if json else decode_utf8
        for number, content in json_lines(path) if json else parquet_column(path, self.text_field):
            try:
                yield Document.of(
                    f"{name}:{number}", None if content is None else text_of(content), field=self.text_field
                )
            except BadText as error:
                yield BadRow(f"{path}:{number}", str(error))

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
