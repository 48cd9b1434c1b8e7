"""A token store: memory-mapped tokens of two splits, document offsets, the tokenizer, and a manifest written last."""

import hashlib
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from data_prep.errors import InputError
from data_prep.files import canonical_json, read_record, sha256_file, write_json
from data_prep.natural_repeats import natural_repeats
from data_prep.permutation import Ints
from data_prep.tokenizer import load_tokenizer

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
FORMAT = 1
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
NATURAL_REPEATS = "natural_repeats.json"  # made later than the store, and no part of it


class SplitWriter:
    """Appends documents to one split: `<split>.tokens`, `<split>.offsets` (int64 start of each document, then the end)
    and `<split>.names` (one line per document)."""

    def __init__(self, folder: Path, split: Split, dtype: npt.DTypeLike, end_of_text: int) -> None:
        """Continue the files in `folder`, or start them."""
        self._dtype = np.dtype(dtype)
        self._end_of_text = end_of_text
        self._tokens, self._offsets, self._names = (
            (folder / f"{split}.{kind}").open("ab") for kind in ("tokens", "offsets", "names")
        )
        self.text_bytes = 0
        if not self._offsets.tell():
            self._offsets.write(np.int64(0).tobytes())

    @property
    def documents(self) -> int:
        """Documents written."""
        return self._offsets.tell() // 8 - 1

    @property
    def tokens(self) -> int:
        """Tokens written, each document's end of text included."""
        return self._tokens.tell() // self._dtype.itemsize

    def append(self, names: list[str], tokens: npt.NDArray[np.uint32], lengths: Ints, text_bytes: int) -> None:
        """Add documents, each closed by the end-of-text token; `tokens` holds them in turn, `lengths` each one's."""
        ends = np.cumsum(lengths)
        offsets = self.tokens + ends + np.arange(1, len(ends) + 1)
        self._tokens.write(np.insert(tokens.astype(self._dtype), ends, self._end_of_text).tobytes())
        self._offsets.write(offsets.astype(np.int64).tobytes())
        self._names.write("".join(name.replace("\n", " ") + "\n" for name in names).encode("utf-8", "backslashreplace"))
        self.text_bytes += text_bytes

    def sync(self) -> dict[str, int]:
        """Push everything to the disk; returns the sizes that `rewind` takes back to this moment."""
        for file in (self._tokens, self._offsets, self._names):
            file.flush()
            os.fsync(file.fileno())
        sizes = {"tokens": self._tokens.tell(), "offsets": self._offsets.tell(), "names": self._names.tell()}
        return sizes | {"text_bytes": self.text_bytes}

    def rewind(self, sizes: dict[str, int]) -> None:
        """Forget what was written after `sync` returned `sizes`."""
        for kind, file in (("tokens", self._tokens), ("offsets", self._offsets), ("names", self._names)):
            if os.fstat(file.fileno()).st_size < sizes[kind]:
                raise InputError(
                    f"{file.name}: shorter than the journal beside it says; delete the folder to start anew"
                )
            file.truncate(sizes[kind])
            file.seek(0, os.SEEK_END)
        self.text_bytes = sizes["text_bytes"]

    def close(self) -> dict[str, int]:
        """Push everything to the disk and release it; returns counts: documents, tokens, text_bytes (UTF-8)."""
        counts = {"documents": self.documents, "tokens": self.tokens, "text_bytes": self.text_bytes}
        self.sync()
        for file in (self._tokens, self._offsets, self._names):
            file.close()
        return counts


def token_dtype(vocabulary: int) -> np.dtype[Any]:
    """uint16 where the vocabulary fits, uint32 otherwise."""
    return np.dtype(np.uint16 if vocabulary <= 2**16 else np.uint32)


def fingerprint_of(sha256: dict[str, str]) -> str:
    """What the store's tokens and tokenizer are, whatever their documents were called: 16 hex digits."""
    science = {name: digest for name, digest in sha256.items() if not name.endswith(".names")}
    return hashlib.sha256(canonical_json(science)).hexdigest()[:16]


def write_manifest(folder: Path, record: dict[str, Any]) -> None:
    """Seal a store with `record`, its files' sizes and their checksums. A folder without this file is no store."""
    names = [TOKENIZER, *(f"{split}.{kind}" for split in SPLITS for kind in ("tokens", "offsets", "names"))]
    files = [folder / name for name in sorted(names)]
    sha256 = {path.name: sha256_file(path) for path in files}
    manifest = {"format": FORMAT, "fingerprint": fingerprint_of(sha256), **record}
    manifest |= {"bytes": {path.name: path.stat().st_size for path in files}, "sha256": sha256}
    write_json(folder / MANIFEST, manifest | {"seal": _seal(manifest)})


def _seal(manifest: dict[str, Any]) -> str:
    """Checksum of a manifest's own content."""
    return hashlib.sha256(canonical_json({key: value for key, value in manifest.items() if key != "seal"})).hexdigest()


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
        self.manifest = read_record(path)
        mend = "delete the folder and prepare it again"
        if self.manifest.get("format") != FORMAT:
            raise InputError(f"{path}: not the manifest of a token store of format {FORMAT}; {mend}")
        try:
            self._check_files(verify, mend)
            dtype = np.dtype(self.manifest["dtype"])
            for split in SPLITS:
                counted = int(self.manifest["splits"][split]["tokens"]) * dtype.itemsize
                if counted != self.manifest["bytes"][f"{split}.tokens"]:
                    raise InputError(f"{path}: its token counts and file sizes disagree; {mend}")
            if self.manifest["seal"] != _seal(self.manifest):
                raise InputError(f"{path}: altered since it was written; {mend}")
            self.fingerprint: str = self.manifest["fingerprint"]
            self.vocabulary: int = self.manifest["vocabulary"]
            self.end_of_text: int = self.manifest["end_of_text"]
        except InputError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise InputError(f"{path}: malformed ({type(error).__name__}: {error}); {mend}") from error
        # Plain arrays over the maps: the memmap class itself makes every slice some microseconds slower.
        self.train, self.test = (
            np.asarray(np.memmap(path, dtype, "r")) if path.stat().st_size else np.empty(0, dtype)
            for path in (folder / f"{split}.tokens" for split in SPLITS)
        )
        self._rows: dict[tuple[Split, int], npt.NDArray[np.unsignedinteger]] = {}

    def _check_files(self, verify: bool, mend: str) -> None:
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

    def gather(self, split: Split, sequence: Ints, context: int) -> Ints:
        """Tokens of whole sequences, shape [*sequence.shape, context + 1]: sequence k is tokens k·(context+1) onwards.

        Sequences are cut once and share no token, so what is repeated is repeated whole and nothing else is.
        """
        rows = self._rows.get((split, context))
        if rows is None:
            tokens = self.train if split == "train" else self.test
            rows = tokens[: self.sequences_in(split, context) * (context + 1)].reshape(-1, context + 1)
            self._rows[split, context] = rows
        return rows[sequence].astype(np.int64)

    def natural_repeats(self) -> dict[str, int | float]:
        """What repeats in the store by nature; found at the first call, which takes a while, and kept in its folder."""
        path = self.folder / NATURAL_REPEATS
        if path.is_file():
            record = read_record(path, "fingerprint")
            if record.pop("fingerprint") == self.fingerprint:
                return record
        found = natural_repeats(self.train, self.test)
        write_json(path, {"fingerprint": self.fingerprint, **found})
        return found

    def offsets(self, split: Split) -> npt.NDArray[np.int64]:
        """Start of every document in the split's tokens, then the split's end; a memory map."""
        return np.memmap(self.folder / f"{split}.offsets", np.int64, "r")

    def document_names(self, split: Split) -> list[str]:
        """Name of each document of the split, in order."""
        return (self.folder / f"{split}.names").read_bytes().decode().split("\n")[:-1]

    def tokenizer(self) -> Tokenizer:
        """The tokenizer the tokens were made with."""
        return load_tokenizer(self.folder / TOKENIZER)


def find_store(data_dir: Path, fingerprint: str) -> TokenStore:
    """The store of that fingerprint below `data_dir`; InputError where there is none."""
    stores = {path.parent: read_record(path).get("fingerprint") for path in sorted(data_dir.glob(f"*/{MANIFEST}"))}
    for folder, found in stores.items():
        if found == fingerprint:
            return TokenStore(folder)
    known = ", ".join(f"{folder.name} ({found})" for folder, found in stores.items()) or "none"
    raise InputError(f"{data_dir}: no token store {fingerprint}, which the run needs; there are: {known}")
