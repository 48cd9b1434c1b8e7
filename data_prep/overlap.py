"""Check that no test document of one store is a training document of another."""

import hashlib
from contextlib import suppress

import numpy as np

from data_prep.errors import InputError
from data_prep.files import read_record, write_json
from data_prep.token_store import TOKENIZER, TokenStore

CHECKED = "apart"  # file-name prefix for records of passed checks


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
    test_offsets = tested.offsets("test")
    test_documents: dict[bytes, int] = {}
    for number, (start, end) in enumerate(zip(test_offsets[:-1].tolist(), test_offsets[1:].tolist(), strict=True)):
        test_documents.setdefault(_digest(tested.test[start:end]), number)
    train_offsets = trained.offsets("train")
    same_length = np.isin(np.diff(train_offsets), np.diff(test_offsets))
    for number in np.flatnonzero(same_length).tolist():
        shared = test_documents.get(_digest(trained.train[train_offsets[number] : train_offsets[number + 1]]))
        if shared is not None:
            return tested.document_names("test")[shared]
    return None


def _digest(tokens: np.ndarray) -> bytes:
    return hashlib.sha256(tokens.astype(np.uint32).tobytes()).digest()
