"""That text to be tested on is no text to be trained on: no document of one store's test split in another's training split."""

import hashlib
from contextlib import suppress

import numpy as np

from data_prep.errors import InputError
from data_prep.files import read_record, write_json
from data_prep.token_store import TOKENIZER, TokenStore

CHECKED = "apart"  # files of this name beside a store's: which other stores it was compared with


def require_apart(tested: TokenStore, trained: TokenStore, what: str) -> None:
    """Raises InputError, beginning with `what`, where a test document of `tested` is a training document of `trained`, or
    where they have not the same tokenizer. What was found to be apart is remembered beside `tested`."""
    if tested.manifest["sha256"][TOKENIZER] != trained.manifest["sha256"][TOKENIZER]:
        raise InputError(
            f"{what}: {tested.folder} and {trained.folder} were made with different tokenizers; delete the former and prepare again"
        )
    record = tested.folder / f"{CHECKED}-{trained.fingerprint}.json"
    if record.is_file() and read_record(record, "tested")["tested"] == tested.fingerprint:
        return
    if name := shared_document(tested, trained):
        raise InputError(
            f"{what}: its document {name} is in the training text too ({trained.folder}); accepted is text that shares no"
            " document with it"
        )
    with suppress(InputError):  # a store that may only be read is compared again every time
        write_json(record, {"tested": tested.fingerprint, "trained": trained.fingerprint})


def shared_document(tested: TokenStore, trained: TokenStore) -> str | None:
    """Name of the first test document of one store that the training split of the other holds too, token by token."""
    wanted = tested.offsets("test")
    digests: dict[bytes, int] = {}
    for number, (start, end) in enumerate(zip(wanted[:-1].tolist(), wanted[1:].tolist(), strict=True)):
        digests.setdefault(_digest(tested.test[start:end]), number)
    there = trained.offsets("train")
    for number in np.flatnonzero(np.isin(np.diff(there), np.diff(wanted))).tolist():
        found = digests.get(_digest(trained.train[there[number] : there[number + 1]]))
        if found is not None:
            return tested.document_names("test")[found]
    return None


def _digest(tokens: np.ndarray) -> bytes:
    return hashlib.sha256(tokens.astype(np.uint32).tobytes()).digest()
