"""Your own text: plain files, JSON lines (plain, gzip or Zstandard) and Parquet."""

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from glob import glob
from pathlib import Path
from typing import Literal

from pydantic import Field

from data_prep.errors import InputError
from data_prep.sources.document import BadRow, BadText, Document, decode_utf8
from data_prep.sources.source import Source

PLAIN, JSON_LINES, PARQUET = (".txt", ".md", ".py"), (".jsonl", ".jsonl.gz", ".jsonl.zst"), (".parquet",)
SUFFIXES = (*PLAIN, *JSON_LINES, *PARQUET)


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

        for name, path in find_files(self.paths):
            with read_errors(path):
                yield from self._read_file(name, path)

    def _read_file(self, name: str, path: Path) -> Iterator[Document | BadRow]:
        from data_prep.sources.record_files import json_field, json_lines, parquet_column

        if path.name.endswith(PLAIN):
            try:
                yield Document.of(name, decode_utf8(path.read_bytes()))
            except BadText as error:
                yield BadRow(str(path), str(error))
            return
        json = path.name.endswith(JSON_LINES)
        text_of = partial(json_field, field=self.text_field) if json else decode_utf8
        for number, content in json_lines(path) if json else parquet_column(path, self.text_field):
            try:
                yield Document.of(f"{name}:{number}", None if content is None else text_of(content))
            except BadText as error:
                yield BadRow(f"{path}:{number}", str(error))

    def input_sizes(self) -> dict[str, str]:
        """Size of every file; {} if a path has no files, since the store may have been copied from another machine."""
        with suppress(InputError):
            return {name: f"{path.stat().st_size} bytes" for name, path in find_files(self.paths)}
        return {}


def find_files(paths: tuple[str, ...]) -> list[tuple[str, Path]]:
    """Name and path of every file that the paths match, each file once.

    Raises InputError if a path matches no file with a known suffix, or names a file with another one.
    """
    files: dict[Path, tuple[str, Path]] = {}
    for given in paths:
        path = Path(given)
        with suppress(RuntimeError):  # ~nobody: there is no such home, so there is no such file
            path = path.expanduser()
        try:
            root, matches = _matches(path)
            inside = sorted({file for match in matches for file in (match.rglob("*") if match.is_dir() else [match])})
            inside = [file for file in inside if file.name.endswith(SUFFIXES) and file.is_file()]
            for file in inside:
                files.setdefault(file.resolve(), (file.relative_to(root).as_posix(), file))
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        if not inside:
            raise InputError(f"{given}: data.source.paths matches no file that ends in {' '.join(SUFFIXES)}")
    return list(files.values())


def _matches(path: Path) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, and the files and folders that match a path."""
    if path.is_dir():
        return path, [path]
    if path.exists():
        if not path.name.endswith(SUFFIXES):
            raise InputError(f"{path}: unknown file type; accepted suffixes: {' '.join(SUFFIXES)}")
        return path.parent, [path]
    # Not Path.glob, which raises on patterns that shells accept.
    return _folder_of_glob(path), [Path(match) for match in glob(os.fspath(path), recursive=True)]  # noqa: PTH207


def _folder_of_glob(path: Path) -> Path:
    """The folders of a glob before its first wildcard."""
    names = path.parts
    first = next((place for place, name in enumerate(names) if set(name) & set("*?[")), len(names) - 1)
    return Path(*names[:first])
