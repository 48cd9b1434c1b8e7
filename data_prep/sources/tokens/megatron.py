"""Megatron-LM's indexed datasets: NAME.bin with token ids and NAME.idx (megatron/core/datasets/indexed_dataset.py)."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_prep.errors import CannotResume
from data_prep.permutation import Ints
from data_prep.sources.tokens.runs import (
    TokenFile,
    TokenFormat,
    TokenRun,
    read_documents,
    require_dtype,
    require_ends,
)

if TYPE_CHECKING:
    from data_prep.sources.tokens.source import Tokens

MAGIC = b"MMIDIDX\0\0"
VERSION = 1
HEADER = struct.Struct("<9sQBQQ")  # magic, version, code of the data type, sequences, documents + 1
DTYPES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float64", 7: "float32", 8: "uint16"}


class Megatron(TokenFormat):
    """The index lists documents, which consist of one or more sequences."""

    suffixes = (".bin", ".idx")

    def files_of(self, path: Path) -> list[Path]:
        """The tokens and their index."""
        return [path.with_suffix(".bin"), path.with_suffix(".idx")]

    def read(self, file: TokenFile, source: "Tokens") -> Iterator[TokenRun]:
        """Yield the documents of a file. A path can name the .bin file or the .idx file."""
        tokens, index = self.files_of(file.path)
        for path, other in ((tokens, index), (index, tokens)):
            if not path.is_file():
                raise CannotResume(f"{path}: missing; it belongs to {other.name}")
        dtype, ends = _read_index(index, source)
        count, rest = divmod(tokens.stat().st_size, dtype.itemsize)
        if rest or count != ends[-1]:
            raise CannotResume(
                f"{tokens}: {tokens.stat().st_size} bytes, but {index.name} lists {ends[-1]} tokens of"
                f" {dtype.itemsize} bytes ({dtype})"
            )
        yield from read_documents(TokenFile(file.name, tokens), dtype, ends)


def _read_index(path: Path, source: "Tokens") -> tuple[np.dtype[np.integer], Ints]:
    """The data type, and the end of each document in tokens."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        header = stream.read(HEADER.size)
        if header[: len(MAGIC)] != MAGIC or len(header) < HEADER.size:
            raise CannotResume(f"{path}: not a Megatron-LM index (it does not begin with {MAGIC!r})")
        _, version, code, sequences, boundaries = HEADER.unpack(header)
        if version != VERSION or code not in DTYPES:
            raise CannotResume(
                f"{path}: version {version}, data type {code}; expected version {VERSION} and a type from 1 to 8"
            )
        dtype = require_dtype(path, np.dtype(DTYPES[code]), source)
        least = HEADER.size + 12 * sequences + 8 * boundaries
        if size not in (least, least + sequences):  # plus one byte per sequence if it records modes
            raise CannotResume(f"{path}: {size} bytes, but {sequences} sequences need {least} bytes; is it truncated?")
        lengths = np.fromfile(stream, np.int32, sequences)
        pointers = np.fromfile(stream, np.int64, sequences)
        documents = np.fromfile(stream, np.int64, boundaries)
    starts = np.zeros(sequences + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    if not np.array_equal(pointers, starts[:-1] * dtype.itemsize):
        raise CannotResume(f"{path}: its sequences are not stored one after another in the order of the index")
    if not len(documents) or documents[0] != 0 or documents[-1] != sequences or bool((np.diff(documents) < 0).any()):
        raise CannotResume(f"{path}: its documents do not cover its {sequences} sequences")
    ends = starts[documents[1:]]
    require_ends(path, ends, int(starts[-1]))
    return dtype, ends
