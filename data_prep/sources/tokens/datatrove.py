"""Tokenized files of datatrove and nanotron: NAME.ds with token ids and NAME.ds.index (pipeline/tokens/tokenizer.py)."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_prep.errors import CannotResume
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

ITEM_BYTES = {2: "uint16", 4: "uint32"}


class Datatrove(TokenFormat):
    """The index contains the end of each document, counted in tokens. The optional metadata file contains the number of bytes per token."""

    suffixes = (".ds",)

    def files_of(self, path: Path) -> list[Path]:
        """The tokens, their index and their metadata."""
        return [path, path.with_name(f"{path.name}.index"), path.with_name(f"{path.name}.metadata")]

    def read(self, file: TokenFile, source: "Tokens") -> Iterator[TokenRun]:
        """Yield the documents of a file."""
        _, index, metadata = self.files_of(file.path)
        if not index.is_file():
            raise CannotResume(f"{index}: missing; it lists the documents in {file.path.name}")
        if index.stat().st_size % 8:
            raise CannotResume(f"{index}: {index.stat().st_size} bytes, which is not a multiple of 8; is it truncated?")
        ends = np.fromfile(index, np.uint64).astype(np.int64)
        size = file.path.stat().st_size
        token_bytes = size // int(ends[-1]) if len(ends) and ends[-1] > 0 else 0
        if (len(ends) and token_bytes * int(ends[-1]) != size) or token_bytes not in (0, *ITEM_BYTES):
            raise CannotResume(
                f"{file.path}: {size} bytes, but {index.name} lists {ends[-1]} tokens of 2 or 4 bytes each"
            )
        require_ends(index, ends, size // max(1, token_bytes) if token_bytes else 0)
        if (recorded := _token_size(metadata)) not in (None, token_bytes):
            raise CannotResume(f"{metadata}: {recorded} bytes per token, but {file.path.name} has {token_bytes}")
        yield from read_documents(file, require_dtype(file.path, np.dtype(ITEM_BYTES[token_bytes]), source), ends)


def _token_size(metadata: Path) -> int | None:
    """The size of a token in bytes according to the metadata, whose first line is `tokenizer|size`; None if it is unknown."""
    with suppress(OSError, ValueError, IndexError):
        return int(metadata.read_text(encoding="utf-8").splitlines()[0].rsplit("|", 1)[1])
    return None
