"""A token store: memory-mapped tokens of two splits, document offsets, the tokenizer, and a manifest written last."""

import hashlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from data_prep.errors import InputError
from data_prep.files import canonical_json, read_json, sha256_file, write_json
from data_prep.permutation import Ints
from data_prep.tokenizer import load_tokenizer

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
FORMAT = 1
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class SplitManifest:
    """Size of one split: documents, tokens (end-of-text tokens included), UTF-8 bytes of text."""

    documents: int
    tokens: int
    text_bytes: int


class SplitWriter:
    """Appends documents to one split: `<split>.tokens`, `<split>.offsets` (int64 start of each document, then the end)
    and `<split>.names` (one line per document)."""

    def __init__(self, folder: Path, split: Split, dtype: npt.DTypeLike, end_of_text: int) -> None:
        self._dtype = np.dtype(dtype)
        self._end_of_text = end_of_text
        self._tokens = (folder / f"{split}.tokens").open("wb")
        self._offsets = (folder / f"{split}.offsets").open("wb")
        self._names = (folder / f"{split}.names").open("w", encoding="utf-8")
        self.documents, self.tokens, self.text_bytes = 0, 0, 0
        self._offsets.write(np.int64(0).tobytes())

    def append(self, name: str, ids: list[int], text_bytes: int) -> None:
        """Add one document, closed by the end-of-text token."""
        self._tokens.write(np.asarray([*ids, self._end_of_text], self._dtype).tobytes())
        self.documents += 1
        self.tokens += len(ids) + 1
        self.text_bytes += text_bytes
        self._offsets.write(np.int64(self.tokens).tobytes())
        self._names.write(name.replace("\n", " ") + "\n")

    def close(self) -> SplitManifest:
        """Push everything to the disk."""
        for file in (self._tokens, self._offsets, self._names):
            file.flush()
            os.fsync(file.fileno())
            file.close()
        return SplitManifest(self.documents, self.tokens, self.text_bytes)


def token_dtype(vocabulary: int) -> np.dtype[Any]:
    """uint16 where the vocabulary fits, uint32 otherwise."""
    return np.dtype(np.uint16 if vocabulary <= 2**16 else np.uint32)


def fingerprint_of(sha256: dict[str, str]) -> str:
    """What the store's tokens and tokenizer are, whatever their documents were called: 16 hex digits."""
    science = {name: digest for name, digest in sha256.items() if not name.endswith(".names")}
    return hashlib.sha256(canonical_json(science)).hexdigest()[:16]


def write_manifest(folder: Path, built_from: dict[str, Any], splits: dict[str, SplitManifest], vocabulary: int,
                   end_of_text: int, corpus: dict[str, Any]) -> None:  # fmt: skip
    """Seal a store: sizes and checksums of every file. A folder without this file is not a store."""
    files = sorted(path for path in folder.iterdir() if path.name != MANIFEST)
    sha256 = {path.name: sha256_file(path) for path in files}
    manifest = {
        "format": FORMAT,
        "fingerprint": fingerprint_of(sha256),
        "built_from": built_from,
        "vocabulary": vocabulary,
        "end_of_text": end_of_text,
        "dtype": token_dtype(vocabulary).name,
        "splits": {name: asdict(split) for name, split in splits.items()},
        "corpus": corpus,
        "bytes": {path.name: path.stat().st_size for path in files},
        "sha256": sha256,
    }
    write_json(folder / MANIFEST, manifest)


class TokenStore:
    """An open store. `train` and `test` are read-only memory maps of shape [tokens]."""

    def __init__(self, folder: Path, verify: bool = False) -> None:
        """Open `folder`; `verify` also reads every byte against the checksums.

        Raises InputError when the folder holds no manifest, or a file is missing, truncated or altered.
        """
        self.folder = folder
        path = folder / MANIFEST
        if not path.is_file():
            raise InputError(f"{folder}: no token store here (no {MANIFEST}); run `repeat-study prepare` first")
        self.manifest: dict[str, Any] = read_json(path)
        if not isinstance(self.manifest, dict) or self.manifest.get("format") != FORMAT:
            raise InputError(
                f"{path}: not the manifest of a token store of format {FORMAT}; delete the folder, prepare again"
            )
        self._check_files(verify)
        self.fingerprint: str = self.manifest["fingerprint"]
        self.vocabulary: int = self.manifest["vocabulary"]
        self.end_of_text: int = self.manifest["end_of_text"]
        dtype = np.dtype(self.manifest["dtype"])
        self.train = np.memmap(folder / "train.tokens", dtype, "r")
        self.test = np.memmap(folder / "test.tokens", dtype, "r")

    def _check_files(self, verify: bool) -> None:
        mend = "delete the folder and prepare it again"
        for name, size in self.manifest["bytes"].items():
            path = self.folder / name
            if not path.is_file():
                raise InputError(f"{path}: missing, though the manifest lists it; {mend}")
            if path.stat().st_size != size:
                raise InputError(f"{path}: {path.stat().st_size} bytes found, {size} in the manifest; {mend}")
            if verify and sha256_file(path) != self.manifest["sha256"][name]:
                raise InputError(f"{path}: its content is not what the manifest's checksum says; {mend}")

    def sequences_in(self, split: Split, context: int) -> int:
        """How many disjoint sequences of context + 1 tokens the split holds: context inputs and their targets."""
        tokens: int = self.manifest["splits"][split]["tokens"]
        return tokens // (context + 1)

    def gather(self, split: Split, sequence: npt.ArrayLike, context: int) -> Ints:
        """Tokens of whole sequences, shape [*sequence.shape, context + 1]: sequence k is tokens k·(context+1) onwards.

        Sequences are cut once and share no token, so what is repeated is repeated whole and nothing else is.
        """
        tokens = self.train if split == "train" else self.test
        width = context + 1
        rows = tokens[: tokens.size // width * width].reshape(-1, width)
        return rows[np.asarray(sequence)].astype(np.int64)

    def document_of(self, split: Split, sequence: npt.ArrayLike, context: int) -> Ints:
        """Number of the document in which each sequence starts."""
        offsets = np.fromfile(self.folder / f"{split}.offsets", np.int64)
        return np.searchsorted(offsets, np.asarray(sequence, np.int64) * (context + 1), side="right") - 1

    def document_names(self, split: Split) -> list[str]:
        """Name of each document of the split, in order."""
        return (self.folder / f"{split}.names").read_text(encoding="utf-8").splitlines()

    def tokenizer(self) -> Tokenizer:
        """The tokenizer the tokens were made with."""
        return load_tokenizer(self.folder / TOKENIZER)
