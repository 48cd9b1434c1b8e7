"""Write the files of a token store: append documents to its splits, then write its manifest."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.errors import InputError
from data_prep.files import sha256_file, write_json
from data_prep.permutation import Ints
from data_prep.sources import Document
from data_prep.token_store import FORMAT, MANIFEST, SPLITS, TOKENIZER, Split, fingerprint_of, seal_of

FILES = ("tokens", "offsets", "names")


class SplitWriter:
    """Appends documents to one split.

    `<split>.tokens` contains the token ids, `<split>.offsets` the start of each document and then the end of the split
    (as int64), and `<split>.names` one document name per line.
    """

    def __init__(self, folder: Path, split: Split, dtype: np.dtype[Any], end_of_text: int) -> None:
        """Open the files in `folder` for appending, or create them."""
        self._dtype = dtype
        self._end_of_text = end_of_text
        self._tokens, self._offsets, self._names = ((folder / f"{split}.{kind}").open("ab") for kind in FILES)
        self.text_bytes = 0
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

    def append(self, documents: list[Document], tokens: npt.NDArray[np.uint32], lengths: Ints) -> None:
        """Append documents, each followed by the end-of-text token.

        tokens: token ids of all documents, concatenated without end-of-text tokens, shape [sum of lengths]; lengths: number of
        tokens in each document, shape [documents].
        """
        ends = np.cumsum(lengths)
        offsets = self.tokens + ends + np.arange(1, len(ends) + 1)
        self._tokens.write(np.insert(tokens.astype(self._dtype), ends, self._end_of_text).tobytes())
        self._offsets.write(offsets.astype(np.int64).tobytes())
        names = "".join(document.name.replace("\n", " ") + "\n" for document in documents)
        self._names.write(names.encode("utf-8", "backslashreplace"))
        self.text_bytes += sum(len(document.text.encode()) for document in documents)

    def sync(self) -> dict[str, int]:
        """Flush everything to disk and return the file sizes to pass to `rewind`."""
        for file in (self._tokens, self._offsets, self._names):
            file.flush()
            os.fsync(file.fileno())
        sizes = {"tokens": self._tokens.tell(), "offsets": self._offsets.tell(), "names": self._names.tell()}
        return sizes | {"text_bytes": self.text_bytes}

    def rewind(self, sizes: dict[str, int]) -> None:
        """Truncate the files to the sizes that `sync` returned. Raises InputError if a file is already shorter than that."""
        for kind, file in zip(FILES, (self._tokens, self._offsets, self._names), strict=True):
            if os.fstat(file.fileno()).st_size < sizes[kind]:
                raise InputError(f"{file.name}: shorter than recorded in the journal; delete the folder to start again")
            file.truncate(sizes[kind])
            file.seek(0, os.SEEK_END)
        self.text_bytes = sizes["text_bytes"]

    def close(self) -> dict[str, int]:
        """Flush and close the files. Returns how many documents, tokens and bytes of UTF-8 text were written."""
        counts = {"documents": self.documents, "tokens": self.tokens, "text_bytes": self.text_bytes}
        self.sync()
        for file in (self._tokens, self._offsets, self._names):
            file.close()
        return counts


def token_dtype(vocabulary: int) -> np.dtype[Any]:
    """Data type for token ids: uint16 if all of them fit, else uint32."""
    return np.dtype(np.uint16 if vocabulary <= 2**16 else np.uint32)


def write_manifest(folder: Path, record: dict[str, Any]) -> None:
    """Complete a store by writing its manifest: `record`, plus the size and checksum of every file."""
    names = [TOKENIZER, *(f"{split}.{kind}" for split in SPLITS for kind in FILES)]
    files = [folder / name for name in sorted(names)]
    sha256 = {path.name: sha256_file(path) for path in files}
    manifest = {"format": FORMAT, "fingerprint": fingerprint_of(sha256), **record}
    manifest |= {"bytes": {path.name: path.stat().st_size for path in files}, "sha256": sha256}
    write_json(folder / MANIFEST, manifest | {"seal": seal_of(manifest)})
