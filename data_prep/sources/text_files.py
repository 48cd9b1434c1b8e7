"""Your own text: plain files, JSON lines (plain, gzip or Zstandard) and Parquet."""

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
    """Files, folders and globs (`~` and relative paths as in a shell). One document per plain file, line or row."""

    kind: Literal["files"] = "files"
    paths: tuple[str, ...] = Field(strict=False, min_length=1)  # not strict: TOML has only lists
    text_field: str = "text"  # JSON key or Parquet column
    max_bad_rows: int = Field(0, ge=0)  # over all files

    def read(self) -> Iterator[Document | BadRow]:
        """Documents of all files, in the order of `paths`, then by name within a folder or glob.

        A document is named after its path relative to the given folder; in a file of many documents, `:row` follows
        (the line number in JSONL). Memory holds one plain file, one JSONL line or one batch of one Parquet column.
        Raises InputError for a path without files, an unreadable or truncated file, or a Parquet file without the
        column. Bad rows: not UTF-8, not a JSON object, no such field, or a field that is not a string.
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
                yield Document.of(f"{name}:{number}", None if content is None else text_of(content))
            except BadText as error:
                yield BadRow(f"{path}:{number}", str(error))

    def input_sizes(self) -> dict[str, str]:
        """Size of every file; {} if a path has no files, since the store may have been copied from another machine."""
        with suppress(InputError):
            return {name: f"{path.stat().st_size} bytes" for name, path in find_files(self.paths).files}
        return {}

    def skipped_input(self) -> str:
        """How many hidden files and files of other types were skipped; empty if none."""
        with suppress(InputError):
            return find_files(self.paths).skipped()
        return ""
