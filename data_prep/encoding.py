"""Documents to token ids, all cores busy: one batch is encoded while the last is handed on and the next is read."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from data_prep.errors import InputError
from data_prep.sources import Document

BATCH_CHARACTERS = 2_000_000  # per call of the encoder: keeps all cores busy at some 100 MB of memory
MOST_CHARACTERS = 10_000_000  # of a document: encoding takes some 170 bytes for each
IN_FLIGHT = 2  # batches: one in the encoder, one waiting, so that it never waits itself


@dataclass(frozen=True)
class EncodedBatch:
    """Documents and their tokens; `tokens` holds each document's ids in turn, `lengths` how many each has."""

    documents: list[Document]
    tokens: npt.NDArray[np.uint32]
    lengths: npt.NDArray[np.int64]


def encode(tokenizer: Tokenizer, documents: Iterable[Document]) -> Iterator[EncodedBatch]:
    """Encode documents in order, a batch at a time; the encoder leaves the interpreter free meanwhile."""
    # The corpus may quote the end-of-text token; there it is text like any other.
    tokenizer.encode_special_tokens = True
    waiting: deque[tuple[list[Document], Future[list[Encoding]]]] = deque()
    with ThreadPoolExecutor(1, "encoder") as encoder:
        for batch in _batches(documents):
            waiting.append((batch, encoder.submit(_encode_batch, tokenizer, batch)))
            if len(waiting) > IN_FLIGHT:
                yield _gathered(*waiting.popleft())
        while waiting:
            yield _gathered(*waiting.popleft())


def _encode_batch(tokenizer: Tokenizer, batch: list[Document]) -> list[Encoding]:
    try:
        return tokenizer.encode_batch_fast([document.text for document in batch], add_special_tokens=False)
    except Exception as error:  # the library raises plain Exception
        raise InputError(f"data.tokenizer: cannot encode the documents from {batch[0].name} on: {error}") from error


def _gathered(documents: list[Document], future: "Future[list[Encoding]]") -> EncodedBatch:
    ids = [encoding.ids for encoding in future.result()]
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    return EncodedBatch(documents, np.fromiter(chain.from_iterable(ids), np.uint32, int(lengths.sum())), lengths)


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        if len(document.text) > MOST_CHARACTERS:
            raise InputError(
                f"{document.name}: {len(document.text)} characters in one document, at most {MOST_CHARACTERS} are encoded;"
                " split it"
            )
        batch.append(document)
        characters += len(document.text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
