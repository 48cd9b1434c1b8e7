"""The common representation of tokenized data: every format is read as runs of consecutive tokens."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from data_prep.errors import CannotResume, InputError
from data_prep.permutation import Ints

if TYPE_CHECKING:
    from data_prep.sources.tokens.source import Tokens

Ids = npt.NDArray[np.integer[Any]]
End = Literal["after", "before"]

BLOCK_BYTES = 2**21  # tokens are read in blocks of about this size, which fits into a core's cache
MOST_TOKENS = 10_000_000  # per document. A longer document means that the end-of-text token is wrong.


@dataclass(frozen=True)
class TokenRun:
    """Consecutive tokens from one file. `tokens` is valid until the next run is read, which can overwrite it.

    ends: the end of each document as a position in `tokens`, ascending; the last one is len(tokens). If it is None, the
        file does not record documents: they end at end-of-text tokens, and can continue in the next run.
    """

    name: str  # of the file
    start: int  # position of the first token in the file
    tokens: Ids
    ends: Ints | None


@dataclass(frozen=True)
class TokenFile:
    """A file with tokens, or an index of such files."""

    name: str  # relative to the path that the user gave
    path: Path


class TokenFormat(ABC):
    """Reader for one format of tokenized data.

    suffixes: how the names of its files end.
    options: format-specific keys of `data.source` that this format accepts.
    end: whether the end-of-text token comes after or before each document, unless the user gives another value.
    rows: whether the data consists of rows that can be packed, i.e. cut from a stream of documents at a fixed length.
    """

    suffixes: ClassVar[tuple[str, ...]]
    options: ClassVar[frozenset[str]] = frozenset()
    end: ClassVar[End] = "after"
    rows: ClassVar[bool] = False

    @abstractmethod
    def read(self, file: TokenFile, source: "Tokens") -> Iterator[TokenRun]:
        """Yield the tokens of one file in order. Raises InputError if the file is damaged or contradicts the source's keys."""

    def files_of(self, path: Path) -> list[Path]:
        """All files that are read for the file at `path`, including itself. They need not exist."""
        return [path]

    def end_of_text(self, path: Path) -> int | None:
        """The end-of-text token that the format prescribes; None if the user has to specify it."""
        return None


def require_dtype(path: Path, dtype: np.dtype[Any], source: "Tokens") -> np.dtype[Any]:
    """Check that the file's own data type is an integer type and does not contradict `data.source.dtype`."""
    if dtype.kind not in "iu":
        raise CannotResume(f"{path}: its data type is {dtype}; token ids must be integers")
    if source.dtype is not None and dtype != np.dtype(source.dtype):
        raise CannotResume(f"{path}: its data type is {dtype}, but data.source.dtype is {source.dtype}; omit this key")
    return dtype


def read_blocks(file: TokenFile, dtype: np.dtype[Any], offset: int = 0, count: int | None = None) -> Iterator[TokenRun]:
    """Yield the file's tokens from byte `offset` in blocks, without document ends. count: the recorded number of tokens, if any.

    Raises CannotResume if the file is empty or its size does not agree with the number or size of its tokens.
    """
    size = file.path.stat().st_size - offset
    tokens, rest = divmod(size, dtype.itemsize)
    if rest:
        raise CannotResume(
            f"{file.path}: {size} bytes of tokens, which is not a multiple of {dtype.itemsize} ({dtype})"
        )
    if count is not None and tokens != count:
        raise CannotResume(
            f"{file.path}: contains {tokens} tokens, but {count} according to its header; is it truncated?"
        )
    if not tokens:
        raise CannotResume(f"{file.path}: contains no tokens")
    # Reusing the same memory for every block takes half as long as allocating new memory.
    buffer: Ids = np.empty(min(tokens, BLOCK_BYTES // dtype.itemsize), dtype)
    with file.path.open("rb") as stream:
        stream.seek(offset)
        for start in range(0, tokens, len(buffer)):
            block = buffer[: tokens - start]
            if stream.readinto(block.data.cast("B")) < block.nbytes:
                raise InputError(f"{file.path}: became shorter while it was being read")
            yield TokenRun(file.name, start, block, None)


def read_documents(file: TokenFile, dtype: np.dtype[Any], ends: Ints) -> Iterator[TokenRun]:
    """Yield the file's tokens in blocks of whole documents. ends: end of every document, counted in tokens, ascending."""
    first = start = 0
    with file.path.open("rb") as stream:
        while first < len(ends):
            last = int(np.searchsorted(ends, start + BLOCK_BYTES // dtype.itemsize, side="right"))
            last = max(last, first + 1)
            count = int(ends[last - 1]) - start
            require_length(file.path, count if last == first + 1 else 0)
            tokens: Ids = np.fromfile(stream, dtype, count)
            if len(tokens) < count:
                raise InputError(f"{file.path}: became shorter while it was being read")
            yield TokenRun(file.name, start, tokens, np.asarray(ends[first:last], np.int64) - start)
            first, start = last, start + count


def require_length(path: Path | str, tokens: int) -> None:
    """Raise CannotResume if a document is longer than MOST_TOKENS."""
    if tokens > MOST_TOKENS:
        raise CannotResume(
            f"{path}: a document of more than {MOST_TOKENS:,} tokens; is data.source.end_of_text the token that separates"
            " documents?"
        )


def require_ends(path: Path, ends: Ints, tokens: int) -> None:
    """Raise CannotResume if document ends are not ascending or do not add up to the number of tokens."""
    if not len(ends) or not tokens:
        raise CannotResume(f"{path}: contains no {'tokens' if len(ends) else 'documents'}")
    if int(ends[0]) < 0 or (len(ends) > 1 and bool((ends[1:] < ends[:-1]).any())):
        raise CannotResume(f"{path}: its document ends are not in ascending order; is it an index of documents?")
    if int(ends[-1]) != tokens:
        raise CannotResume(f"{path}: lists {int(ends[-1])} tokens, but the token file contains {tokens}")
