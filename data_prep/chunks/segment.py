"""A segment: some consecutive documents of a chunk with their tokens, in one file."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from data_prep.document_batch import DIGEST_BYTES
from data_prep.errors import InputError
from data_prep.files import write_atomically
from data_prep.permutation import Ints
from data_prep.sources import BadRow

Content = TypeVar("Content")


@dataclass(frozen=True)
class Segment:
    """The documents that remain after empty ones and copies within the chunk were dropped. Rows are numbered from 1 in each chunk."""

    tokens: npt.NDArray[Any]  # all documents, each followed by the end-of-text token, in the data type of the store
    lengths: Ints  # tokens in each document, including the end-of-text token, shape [documents]
    digests: npt.NDArray[np.uint8]  # SHA-256 of each document, shape [documents, DIGEST_BYTES]
    is_test: npt.NDArray[np.bool_]
    rows: Ints  # row of each document
    text_bytes: Ints  # UTF-8 bytes of each document
    losses: Ints  # see TokenizerAudit.check, shape [documents, 3]; [0, 3] without an audit
    empty_rows: Ints
    bad_rows: Ints
    names: list[str]  # of the documents
    bad: list[BadRow]

    def numbered(self, row_base: int) -> "Segment":
        """The same segment with this number added to the number at the end of each name."""
        if not row_base:
            return self
        names = [_renumbered(name, row_base) for name in self.names]
        return replace(
            self, names=names, bad=[BadRow(_renumbered(row.place, row_base), row.reason) for row in self.bad]
        )

    def save(self, path: Path) -> None:
        """Write the file atomically. Raises InputError if the disk is full."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        # JSON, because names can contain any character.
        texts = json.dumps([self.names, [[row.place, row.reason] for row in self.bad]])
        arrays["names"], arrays["bad"] = np.frombuffer(texts.encode(), np.uint8), np.empty(0, np.uint8)
        content = io.BytesIO()
        np.savez(content, **arrays)
        write_atomically(path, content.getvalue())

    @classmethod
    def load(cls, path: Path) -> "Segment":
        """Read the file. Raises InputError if it is missing or damaged."""

        def read(file: Any) -> Segment:
            arrays = {name: file[name] for name in file.files}
            names, bad = json.loads(arrays["names"].tobytes())
            return cls(**arrays | {"names": names, "bad": [BadRow(*row) for row in bad]})

        return _read(path, read)


def load_arrays(path: Path, *names: str) -> list[npt.NDArray[Any]]:
    """Read only these arrays of a segment. Raises InputError if the file is missing or damaged."""
    return _read(path, lambda file: [file[name] for name in names])


def load_digests(path: Path) -> npt.NDArray[np.uint8]:
    """Read only the digests, shape [documents, DIGEST_BYTES]. Raises the same errors as `load_arrays`."""
    return load_arrays(path, "digests")[0].reshape(-1, DIGEST_BYTES)


def _renumbered(name: str, row_base: int) -> str:
    file, _, row = name.rpartition(":")
    return f"{file}:{int(row) + row_base}"


def _read(path: Path, read: Callable[[Any], Content]) -> Content:
    try:
        with np.load(path) as file:
            return read(file)
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise InputError(f"{path}: damaged ({error}); delete the folder {path.parent} to start again") from error
