"""Find documents that two stores share: test text that is trained on, or training text in both stores."""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from data_prep.errors import InputError
from data_prep.files import read_record, write_json
from data_prep.token_store import TOKENIZER, Split, TokenStore

CHECKED = "apart"  # file-name prefix for records of passed checks
COUNTED = "shared"  # file-name prefix for counts of shared training documents


class SharedText(NamedTuple):
    """Training documents that occur in two stores."""

    documents: int
    tokens: int
    first: str  # name of the first of these documents; empty if there are none


def require_disjoint(tested: TokenStore, trained: TokenStore, where: str) -> None:
    """Check that no test document of `tested` is a training document of `trained`.

    Passed checks are recorded in the folder of `tested` and are not repeated. Raises InputError if a document is in both
    texts or if the tokenizers differ. The message begins with `where`.
    """
    if tested.manifest["sha256"].get(TOKENIZER) != trained.manifest["sha256"].get(TOKENIZER):
        raise InputError(
            f"{where}: {tested.folder} and {trained.folder} have different tokenizers; delete the first folder and run prepare again"
        )
    record = tested.folder / f"{CHECKED}-{trained.fingerprint}.json"
    if record.is_file() and read_record(record, "tested")["tested"] == tested.fingerprint:
        return
    if name := find_shared_document(tested, trained):
        raise InputError(
            f"{where}: document {name} also appears in the training text ({trained.folder}); test and training text"
            " must not share documents"
        )
    with suppress(InputError):  # if the store is read-only, the check is repeated every time
        write_json(record, {"tested": tested.fingerprint, "trained": trained.fingerprint})


def find_shared_document(tested: TokenStore, trained: TokenStore) -> str | None:
    """Find a test document of `tested` with the same tokens as a training document of `trained`, and return its name or None."""
    shared = next(_shared_documents(tested, "test", trained), None)
    return None if shared is None else tested.document_names("test")[shared]


def count_shared_training_text(store: TokenStore, other: TokenStore) -> SharedText:
    """Count the training documents of `store` that have the same tokens as a training document of `other`.

    The result is cached in the folder of `store` if it is writable.
    """
    record = store.folder / f"{COUNTED}-{other.fingerprint}.json"
    if (
        record.is_file()
        and (counted := read_record(record, "store", *SharedText._fields))["store"] == store.fingerprint
    ):
        return SharedText(*(counted[key] for key in SharedText._fields))
    shared = sorted(set(_shared_documents(store, "train", other)))
    lengths = np.diff(store.offsets("train"))
    names = store.document_names("train") if shared else []
    text = SharedText(len(shared), int(lengths[shared].sum()), names[shared[0]] if shared else "")
    with suppress(InputError):  # if the store is read-only, the documents are counted every time
        write_json(record, {"store": store.fingerprint, "other": other.fingerprint, **text._asdict()})
    return text


def _shared_documents(store: TokenStore, split: Split, other: TokenStore) -> Iterator[int]:
    """Compare each training document of `other` with this split of `store`, and yield the index in the split of each match."""
    offsets, tokens = store.offsets(split), store.train if split == "train" else store.test
    other_offsets = other.offsets("train")
    lengths, other_lengths = np.diff(offsets), np.diff(other_offsets)
    documents: dict[bytes, int] = {}
    for number in np.flatnonzero(np.isin(lengths, other_lengths)).tolist():
        documents.setdefault(_digest(tokens[offsets[number] : offsets[number + 1]]), number)
    for number in np.flatnonzero(np.isin(other_lengths, lengths)).tolist():
        shared = documents.get(_digest(other.train[other_offsets[number] : other_offsets[number + 1]]))
        if shared is not None:
            yield shared


def _digest(tokens: np.ndarray) -> bytes:
    return hashlib.sha256(tokens.astype(np.uint32).tobytes()).digest()
