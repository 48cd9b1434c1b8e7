"""Open a token store: a folder with a manifest, usually a tokenizer, and the tokens, document offsets and document names of each split."""

import hashlib
from contextlib import suppress
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
NATURAL_REPEATS = "natural_repeats.json"  # cached statistics, not listed in the manifest
REBUILD = "delete the folder and run prepare again"
NO_TOKENIZER = (
    "tokenizer: none, so tokens are shown as ids, and the copying probe copies test sequences instead of a text; set"
    " data.tokenizer to change this"
)


class TokenStore:
    """An open token store. `train` and `test` are read-only memory maps of uint16 or uint32 token ids, shape [tokens]."""

    def __init__(self, folder: Path, verify: bool = False) -> None:
        """Open the store in `folder`. With `verify`, also check every file against its checksum.

        Raises InputError if the folder has no manifest, if the manifest was altered, or if a file is missing or truncated.
        With `verify`, it is also raised if a file does not match its checksum.
        """
        self.folder = folder
        path = folder / MANIFEST
        if not path.is_file():
            raise InputError(f"{folder}: no token store here (no {MANIFEST}); run `repeat-study prepare` first")
        self.manifest = read_record(path)
        if self.manifest.get("format") != FORMAT:
            raise InputError(f"{path}: not the manifest of a token store in format {FORMAT}; {REBUILD}")
        try:
            self._check_files(verify)
            dtype = np.dtype(self.manifest["dtype"])
            for split in SPLITS:
                size = int(self.manifest["splits"][split]["tokens"]) * dtype.itemsize
                if size != self.manifest["bytes"][f"{split}.tokens"]:
                    raise InputError(f"{path}: token counts and file sizes disagree; {REBUILD}")
            if self.manifest["seal"] != seal_of(self.manifest):
                raise InputError(f"{path}: altered after it was written; {REBUILD}")
            self.fingerprint: str = self.manifest["fingerprint"]
            self.vocabulary: int = self.manifest["vocabulary"]
            self.end_of_text: int = self.manifest["end_of_text"]
        except InputError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise InputError(f"{path}: malformed ({type(error).__name__}: {error}); {REBUILD}") from error
        # Wrap the memory maps in plain arrays, because slicing an np.memmap takes a few microseconds longer.
        self.train, self.test = (
            np.asarray(np.memmap(path, dtype, "r")) if path.stat().st_size else np.empty(0, dtype)
            for path in (folder / f"{split}.tokens" for split in SPLITS)
        )
        self._sequences: dict[tuple[Split, int], npt.NDArray[np.unsignedinteger]] = {}

    def _check_files(self, verify: bool) -> None:
        for name, size in self.manifest["bytes"].items():
            path = self.folder / name
            if not path.is_file():
                raise InputError(f"{path}: missing, but the manifest lists it; {REBUILD}")
            if path.stat().st_size != size:
                raise InputError(f"{path}: {path.stat().st_size} bytes long, but the manifest says {size}; {REBUILD}")
            if verify and sha256_file(path) != self.manifest["sha256"][name]:
                raise InputError(f"{path}: does not match its checksum in the manifest; {REBUILD}")

    def sequences_in(self, split: Split, context: int) -> int:
        """Number of non-overlapping sequences of context + 1 tokens (inputs and targets) in the split."""
        tokens: int = self.manifest["splits"][split]["tokens"]
        return tokens // (context + 1)

    def gather(self, split: Split, sequence: Ints, context: int) -> Ints:
        """Tokens of the sequences with these indices, as int64 of shape [*sequence.shape, context + 1].

        Sequence k starts at token k·(context + 1) and ends before token (k + 1)·(context + 1). Sequences do not
        overlap, so repeating a sequence repeats only its own tokens.
        """
        rows = self._sequences.get((split, context))
        if rows is None:
            tokens = self.train if split == "train" else self.test
            rows = tokens[: self.sequences_in(split, context) * (context + 1)].reshape(-1, context + 1)
            self._sequences[split, context] = rows
        return rows[sequence].astype(np.int64)

    def natural_repeats(self) -> dict[str, int | float]:
        """Statistics on text that repeats within the corpus; see `data_prep.natural_repeats`.

        They are computed on the first call (2 to 4 s per 20M tokens) and cached in the folder if it is writable.
        """
        path = self.folder / NATURAL_REPEATS
        names = natural_repeats(self.train[:0], self.test[:0])
        with suppress(InputError):  # if the cache is missing or damaged, the statistics are computed again
            record = read_record(path, "fingerprint", *names)
            numbers = {name: record[name] for name in names}
            if record["fingerprint"] == self.fingerprint and all(_is_count_or_share(n) for n in numbers.values()):
                return numbers
        statistics = natural_repeats(self.train, self.test)
        with suppress(InputError):  # if the store is read-only, the statistics are recomputed every time
            write_json(path, {"fingerprint": self.fingerprint, **statistics})
        return statistics

    def offsets(self, split: Split) -> npt.NDArray[np.int64]:
        """Start of each document in tokens, followed by the end of the split: a memory map of shape [documents + 1]."""
        return np.memmap(self.folder / f"{split}.offsets", np.int64, "r")

    def document_names(self, split: Split) -> list[str]:
        """Names of the documents in the split, in order."""
        return (self.folder / f"{split}.names").read_bytes().decode().split("\n")[:-1]

    @property
    def has_tokenizer(self) -> bool:
        """Whether the store has a tokenizer. A store that was built from tokens may have none."""
        return TOKENIZER in self.manifest["bytes"]

    def tokenizer(self) -> Tokenizer:
        """Load the tokenizer that the store was built with. Raises InputError if it has none."""
        if not self.has_tokenizer:
            raise InputError(
                f"{self.folder}: the store has no tokenizer, because it was built from tokens; set data.tokenizer"
            )
        return load_tokenizer(self.folder / TOKENIZER)


def _is_count_or_share(value: object) -> bool:
    return isinstance(value, int | float) and value >= 0


def find_store(data_dir: Path, fingerprint: str) -> TokenStore:
    """Open the store in `data_dir` that has this fingerprint. Raises InputError if there is no such store."""
    stores = {path.parent: read_record(path).get("fingerprint") for path in sorted(data_dir.glob(f"*/{MANIFEST}"))}
    for folder, candidate in stores.items():
        if candidate == fingerprint:
            return TokenStore(folder)
    listed = ", ".join(f"{folder.name} ({candidate})" for folder, candidate in stores.items()) or "none"
    raise InputError(f"{data_dir}: no token store {fingerprint}, which the run needs; stores in this folder: {listed}")


def fingerprint_of(sha256: dict[str, str]) -> str:
    """Compute a store's fingerprint: 16 hex digits that depend on its tokens, offsets and tokenizer, but not on document names."""
    content = {name: digest for name, digest in sha256.items() if not name.endswith(".names")}
    return hashlib.sha256(canonical_json(content)).hexdigest()[:16]


def seal_of(manifest: dict[str, Any]) -> str:
    """Checksum of all entries in the manifest except `seal` itself."""
    return hashlib.sha256(canonical_json({key: value for key, value in manifest.items() if key != "seal"})).hexdigest()
