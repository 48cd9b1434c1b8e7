"""Write the files of a token store: append documents to its splits, then write its manifest."""

import hashlib
import os
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import compress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from data_prep.document_batch import DocumentBatch
from data_prep.errors import InputError
from data_prep.files import sha256_file, write_json
from data_prep.permutation import Ints
from data_prep.token_store import FORMAT, MANIFEST, SPLITS, TOKENIZER, Split, fingerprint_of, seal_of

FILES = ("tokens", "offsets", "names")
PIECE_TOKENS = 2**22  # tokens written together. With smaller pieces, switching threads takes longer than writing.
WRITE_BYTES = 2**17  # per system call; with larger calls, some kernels take several times as long
FLUSH_TOKENS = 2**26  # tokens flushed to disk together, so that little is left to flush at the end
MOST_WAITING = 2  # pieces that may wait to be written and hashed


class StoreWriter:
    """Writes both splits of a store, computes their checksums and flushes them to disk, each in its own thread, while the caller
    reads the next batches.

    Use it as a context manager.
    """

    def __init__(self, folder: Path, dtype: np.dtype[Any]) -> None:
        """Open the files in `folder` for appending, or create them."""
        self._splits = {split: SplitWriter(folder, split, dtype) for split in SPLITS}
        self._writer, self._hasher, self._flusher = (
            ThreadPoolExecutor(1, f"store-{name}") for name in ("writer", "hasher", "flusher")
        )
        self._writing: deque[tuple[_Piece, list[Future[None]]]] = deque()
        self._flushing: Future[None] | None = None
        self._unwritten = self._unflushed = 0  # tokens

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for thread in (self._writer, self._hasher, self._flusher):
            thread.shutdown(cancel_futures=True)
        for writer in self._splits.values():
            writer.abandon()

    @property
    def tokens(self) -> int:
        """Number of tokens in all batches so far, including one end-of-text token per document."""
        return sum(writer.tokens for writer in self._splits.values())

    def append(self, batch: DocumentBatch) -> None:
        """Append each document to its split. Documents are written in pieces of at least PIECE_TOKENS tokens."""
        before = self.tokens
        for split, writer in self._splits.items():
            writer.append(batch, batch.is_test if split == "test" else ~batch.is_test)
        self._unwritten += self.tokens - before
        if self._unwritten >= PIECE_TOKENS:
            self._start_writing()

    def _start_writing(self) -> None:
        self._unflushed += self._unwritten
        self._unwritten = 0
        if self._unflushed > FLUSH_TOKENS:
            self._finish_flushing()
            self._flushing = self._flusher.submit(_flush, list(self._splits.values()))
            self._unflushed = 0
        if len(self._writing) >= MOST_WAITING:
            self._finish_piece()
        piece = [(writer, writer.take()) for writer in self._splits.values()]
        self._writing.append((piece, [self._writer.submit(_write, piece), self._hasher.submit(_hash, piece)]))

    def _finish_piece(self) -> None:
        """Wait until the oldest piece is written and hashed."""
        piece, futures = self._writing.popleft()
        for future in futures:
            future.result()
        for writer, buffer in piece:
            writer.reuse(buffer)

    def _finish_writing(self) -> None:
        self._start_writing()
        while self._writing:
            self._finish_piece()
        self._finish_flushing()

    def _finish_flushing(self) -> None:
        if self._flushing is not None:
            self._flushing.result()
            self._flushing = None

    def sync(self) -> dict[str, dict[str, Any]]:
        """Write and flush everything to disk, and return the file sizes to pass to `rewind`."""
        self._finish_writing()
        return {str(split): writer.sync() for split, writer in self._splits.items()}

    def rewind(self, sizes: dict[str, dict[str, Any]]) -> None:
        """Truncate the files to the sizes that `sync` returned. Raises InputError if a file is already shorter than that."""
        for split, writer in self._splits.items():
            writer.rewind(sizes[split])

    def close(self) -> dict[str, dict[str, Any]]:
        """Write everything, close the files and return how much was written to each split."""
        self._finish_writing()
        return {str(split): writer.close() for split, writer in self._splits.items()}

    def sha256(self) -> dict[str, str]:
        """Hexadecimal checksums of the token files, by file name."""
        return {f"{split}.tokens": writer.sha256.hexdigest() for split, writer in self._splits.items()}


class _WriteBuffer:
    """Documents to write to a split: the content of its three files. Buffers are reused, because new memory is slow."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._memory = np.empty(PIECE_TOKENS, dtype)
        self._used = 0
        self.offsets: list[Ints] = []
        self.names: list[str] = []

    @property
    def tokens(self) -> npt.NDArray[Any]:
        return self._memory[: self._used]

    def append(self, pieces: list[npt.NDArray[Any]], offsets: Ints, names: Iterable[str]) -> None:
        end = self._used + sum(map(len, pieces))
        if end > len(self._memory):
            self._memory = np.resize(self.tokens, 2 * end)
        np.concatenate(pieces, out=self._memory[self._used : end], casting="unsafe")
        self._used = end
        self.offsets.append(offsets)
        self.names += names

    def drop_offsets_and_names(self) -> None:
        self.offsets, self.names = [], []

    def clear(self) -> None:
        self.drop_offsets_and_names()
        self._used = 0


class SplitWriter:
    """Writes one split.

    `<split>.tokens` contains the token ids, `<split>.offsets` the start of each document and then the end of the split
    (as int64), and `<split>.names` one document name per line.

    tokens: number of tokens appended, including one end-of-text token per document; sha256: checksum of the tokens hashed so far.
    """

    def __init__(self, folder: Path, split: Split, dtype: np.dtype[Any]) -> None:
        """Open the files in `folder` for appending, or create them."""
        self._dtype = dtype
        self._tokens, self._offsets, self._names = ((folder / f"{split}.{kind}").open("ab") for kind in FILES)
        self._text_bytes: int | None = 0
        self._buffer = _WriteBuffer(dtype)
        self._free: deque[_WriteBuffer] = deque()
        self.tokens = self._tokens.tell() // dtype.itemsize
        self.sha256 = hashlib.sha256()
        if not self._offsets.tell():
            self._offsets.write(np.int64(0).tobytes())

    def append(self, batch: DocumentBatch, chosen: npt.NDArray[np.bool_]) -> None:
        """Append the documents for which `chosen` is true, shape [documents]. They are written later, by `write`."""
        if not chosen.any():
            return
        starts, lengths = batch.starts[chosen], batch.lengths[chosen]
        offsets = self.tokens + np.cumsum(lengths)
        self.tokens = int(offsets[-1])
        pieces = _slices(batch.tokens, starts, starts + lengths)
        self._buffer.append(pieces, offsets, compress(batch.names, chosen.tolist()))
        if batch.text_bytes is None:
            self._text_bytes = None
        elif self._text_bytes is not None:
            self._text_bytes += int(batch.text_bytes[chosen].sum())

    def take(self) -> _WriteBuffer:
        """Return the documents appended since the last call."""
        full, self._buffer = self._buffer, self._free.popleft() if self._free else _WriteBuffer(self._dtype)
        return full

    def write(self, buffer: _WriteBuffer) -> None:
        """Write documents that `take` returned. This method, `hash` and `append` can run in different threads."""
        if not buffer.names:
            return
        content = buffer.tokens.data.cast("B")
        for start in range(0, len(content), WRITE_BYTES):
            self._tokens.write(content[start : start + WRITE_BYTES])
        self._offsets.write(np.concatenate(buffer.offsets).data)
        names = "\n".join(buffer.names)
        if names.count("\n") >= len(buffer.names):  # a name contains a line break
            names = "\n".join(name.replace("\n", " ") for name in buffer.names)
        self._names.write((names + "\n").encode("utf-8", "backslashreplace"))
        buffer.drop_offsets_and_names()  # frees their memory while the tokens are hashed

    def hash(self, buffer: _WriteBuffer) -> None:
        """Add the tokens that `take` returned to the checksum."""
        self.sha256.update(buffer.tokens.data)

    def reuse(self, buffer: _WriteBuffer) -> None:
        """Clear a buffer that was written and hashed, so that `take` can return it again."""
        buffer.clear()
        self._free.append(buffer)

    def flush(self) -> None:
        """Flush the tokens written so far to disk. This method can run in a different thread from `write`."""
        os.fdatasync(self._tokens.fileno())

    def abandon(self) -> None:
        """Close the files without writing what is still buffered, because a later build may already be appending to them."""
        for file in (self._tokens, self._offsets, self._names):
            file.raw.close()

    def sync(self) -> dict[str, Any]:
        """Flush all written data to disk, and return the file sizes to pass to `rewind`."""
        for file in (self._tokens, self._offsets, self._names):
            file.flush()
            os.fsync(file.fileno())
        sizes = {"tokens": self._tokens.tell(), "offsets": self._offsets.tell(), "names": self._names.tell()}
        return sizes | {"text_bytes": self._text_bytes}

    def rewind(self, sizes: dict[str, Any]) -> None:
        """Truncate the files to the sizes that `sync` returned. Raises InputError if a file is already shorter than that."""
        for kind, file in zip(FILES, (self._tokens, self._offsets, self._names), strict=True):
            if os.fstat(file.fileno()).st_size < sizes[kind]:
                raise InputError(f"{file.name}: shorter than recorded in the journal; delete the folder to start again")
            file.truncate(sizes[kind])
            file.seek(0, os.SEEK_END)
        self._text_bytes = sizes["text_bytes"]
        self.tokens = sizes["tokens"] // self._dtype.itemsize
        with Path(self._tokens.name).open("rb") as written:
            self.sha256 = hashlib.file_digest(written, hashlib.sha256)

    def close(self) -> dict[str, Any]:
        """Flush and close the files. Returns how many documents, tokens and bytes of UTF-8 text were written.

        The number of bytes is None if the text is unknown.
        """
        documents = self._offsets.tell() // 8 - 1
        self.sync()
        for file in (self._tokens, self._offsets, self._names):
            file.close()
        return {"documents": documents, "tokens": self.tokens, "text_bytes": self._text_bytes}


_Piece = list[tuple[SplitWriter, _WriteBuffer]]


def _write(piece: _Piece) -> None:
    for writer, buffer in piece:
        writer.write(buffer)


def _flush(writers: list[SplitWriter]) -> None:
    for writer in writers:
        writer.flush()


def _hash(piece: _Piece) -> None:
    for writer, buffer in piece:
        writer.hash(buffer)


def _slices(tokens: npt.NDArray[Any], starts: Ints, ends: Ints) -> list[npt.NDArray[Any]]:
    """Slices of `tokens` for all ranges. Adjacent ranges are merged into one slice."""
    gaps = np.flatnonzero(starts[1:] != ends[:-1])
    first, last = starts[np.append(0, gaps + 1)].tolist(), ends[np.append(gaps, len(ends) - 1)].tolist()
    return [tokens[start:end] for start, end in zip(first, last, strict=True)]


def token_dtype(vocabulary: int) -> np.dtype[Any]:
    """Data type for token ids: uint16 if all of them fit, else uint32."""
    return np.dtype(np.uint16 if vocabulary <= 2**16 else np.uint32)


def write_manifest(folder: Path, record: dict[str, Any], sha256: dict[str, str]) -> None:
    """Complete a store by writing its manifest: `record`, plus the size and checksum of every file.

    sha256: checksums that are already known, in hexadecimal, by file name.
    """
    names = [
        *([TOKENIZER] if (folder / TOKENIZER).is_file() else []),
        *(f"{split}.{kind}" for split in SPLITS for kind in FILES),
    ]
    files = [folder / name for name in sorted(names)]
    checksums = {path.name: sha256.get(path.name) or sha256_file(path) for path in files}
    manifest = {"format": FORMAT, "fingerprint": fingerprint_of(checksums), **record}
    manifest |= {"bytes": {path.name: path.stat().st_size for path in files}, "sha256": checksums}
    write_json(folder / MANIFEST, manifest | {"seal": seal_of(manifest)})
