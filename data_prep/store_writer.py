"""Write the files of a token store: append documents to its splits, then write its manifest."""

import hashlib
import os
from collections import deque
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
WAITING = 2  # batches that may wait to be written


class StoreWriter:
    """Writes both splits of a store in a thread, while the caller reads the next batch. Use it as a context manager.

    tokens: number of tokens in all batches so far, including one end-of-text token per document.
    """

    def __init__(self, folder: Path, dtype: np.dtype[Any]) -> None:
        """Open the files in `folder` for appending, or create them."""
        self._splits = {split: SplitWriter(folder, split, dtype) for split in SPLITS}
        self._thread = ThreadPoolExecutor(1, "store-writer")
        self._waiting: deque[Future[None]] = deque()
        self.tokens = sum(writer.tokens for writer in self._splits.values())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)

    def append(self, batch: DocumentBatch) -> None:
        """Write each document to its split."""
        if len(self._waiting) >= WAITING:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._append, batch))
        self.tokens += int(batch.lengths.sum())

    def _append(self, batch: DocumentBatch) -> None:
        for split, writer in self._splits.items():
            writer.append(batch, batch.is_test if split == "test" else ~batch.is_test)

    def _wait(self) -> None:
        while self._waiting:
            self._waiting.popleft().result()

    def sync(self) -> dict[str, dict[str, int]]:
        """Flush everything to disk and return what to pass to `rewind`."""
        self._wait()
        return {str(split): writer.sync() for split, writer in self._splits.items()}

    def rewind(self, sizes: dict[str, dict[str, int]]) -> None:
        """Truncate the files to the sizes that `sync` returned. Raises InputError if a file is already shorter than that."""
        for split, writer in self._splits.items():
            writer.rewind(sizes[split])
        self.tokens = sum(writer.tokens for writer in self._splits.values())

    def close(self) -> dict[str, dict[str, int]]:
        """Flush and close the files, and return how much was written to each split."""
        self._wait()
        return {str(split): writer.close() for split, writer in self._splits.items()}

    def sha256(self) -> dict[str, str]:
        """Checksums of the files with tokens, in hexadecimal, by file name."""
        return {f"{split}.tokens": writer.sha256.hexdigest() for split, writer in self._splits.items()}


class SplitWriter:
    """Appends documents to one split.

    `<split>.tokens` contains the token ids, `<split>.offsets` the start of each document and then the end of the split
    (as int64), and `<split>.names` one document name per line. `sha256` is updated with the token ids.
    """

    def __init__(self, folder: Path, split: Split, dtype: np.dtype[Any]) -> None:
        """Open the files in `folder` for appending, or create them."""
        self._dtype = dtype
        self._tokens, self._offsets, self._names = ((folder / f"{split}.{kind}").open("ab") for kind in FILES)
        self._text_bytes: int | None = 0
        self.sha256 = hashlib.sha256()
        if not self._offsets.tell():
            self._offsets.write(np.int64(0).tobytes())

    @property
    def documents(self) -> int:
        """Number of documents written."""
        return self._offsets.tell() // 8 - 1

    @property
    def tokens(self) -> int:
        """Number of tokens written, including one end-of-text token per document."""
        return self._tokens.tell() // self._dtype.itemsize

    def append(self, batch: DocumentBatch, chosen: npt.NDArray[np.bool_]) -> None:
        """Append the chosen documents, a boolean per document in the batch."""
        if not chosen.any():
            return
        starts, lengths = batch.starts[chosen], batch.lengths[chosen]
        content = np.ascontiguousarray(_joined(batch.tokens, starts, starts + lengths), self._dtype)
        offsets = self.tokens + np.cumsum(lengths)
        self._tokens.write(content.data)
        self.sha256.update(content.data)
        self._offsets.write(offsets.astype(np.int64).tobytes())
        names = "\n".join(compress(batch.names, chosen.tolist()))
        if names.count("\n") >= len(offsets):  # a name contains a line break
            names = "\n".join(name.replace("\n", " ") for name in compress(batch.names, chosen.tolist()))
        self._names.write((names + "\n").encode("utf-8", "backslashreplace"))
        if batch.text_bytes is None:
            self._text_bytes = None
        elif self._text_bytes is not None:
            self._text_bytes += int(batch.text_bytes[chosen].sum())

    def sync(self) -> dict[str, Any]:
        """Flush everything to disk and return the file sizes to pass to `rewind`."""
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
        with Path(self._tokens.name).open("rb") as written:
            self.sha256 = hashlib.file_digest(written, hashlib.sha256)

    def close(self) -> dict[str, Any]:
        """Flush and close the files. Returns how many documents, tokens and bytes of UTF-8 text were written.

        The bytes are None if the text is unknown.
        """
        counts = {"documents": self.documents, "tokens": self.tokens, "text_bytes": self._text_bytes}
        self.sync()
        for file in (self._tokens, self._offsets, self._names):
            file.close()
        return counts


def _joined(tokens: npt.NDArray[Any], starts: Ints, ends: Ints) -> npt.NDArray[Any]:
    """The tokens in all ranges. Adjacent ranges are copied together."""
    gaps = np.flatnonzero(starts[1:] != ends[:-1])
    first, last = starts[np.append(0, gaps + 1)].tolist(), ends[np.append(gaps, len(ends) - 1)].tolist()
    pieces = [tokens[start:end] for start, end in zip(first, last, strict=True)]
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


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
