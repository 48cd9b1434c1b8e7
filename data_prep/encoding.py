"""Encode documents as token ids on all cores, while the caller reads and writes other documents."""

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

BATCH_CHARACTERS = 2_000_000  # encoding this much text in one call keeps all cores busy and needs about 100 MB
IN_FLIGHT = 2  # one batch is encoded while one is queued, so the encoder is never idle


@dataclass(frozen=True)
class EncodedBatch:
    """A batch of documents and their tokens."""

    documents: list[Document]
    # Token ids of all documents, concatenated without end-of-text tokens, shape [sum of lengths].
    tokens: npt.NDArray[np.uint32]
    lengths: npt.NDArray[np.int64]  # number of tokens in each document, shape [documents]

    def first(self, count: int) -> "EncodedBatch":
        """The first `count` documents."""
        lengths = self.lengths[:count]
        return EncodedBatch(self.documents[:count], self.tokens[: lengths.sum()], lengths)


def encode(tokenizer: Tokenizer, documents: Iterable[Document]) -> Iterator[EncodedBatch]:
    """Encode documents in batches and yield the batches in order. Encoding runs in a thread that releases the GIL.

    Raises InputError if the tokenizer cannot encode a document.
    """
    # If a document contains the end-of-text token as a string, encode it as ordinary text.
    tokenizer.encode_special_tokens = True
    waiting: deque[tuple[list[Document], Future[list[Encoding]]]] = deque()
    with ThreadPoolExecutor(1, "encoder") as encoder:
        for batch in _batches(documents):
            waiting.append((batch, encoder.submit(_encode_batch, tokenizer, batch)))
            if len(waiting) > IN_FLIGHT:
                yield _finish(*waiting.popleft())
        while waiting:
            yield _finish(*waiting.popleft())


def _encode_batch(tokenizer: Tokenizer, batch: list[Document]) -> list[Encoding]:
    try:
        return tokenizer.encode_batch_fast([document.text for document in batch], add_special_tokens=False)
    except Exception as error:  # the library raises plain Exception
        raise InputError(
            f"data.tokenizer: cannot encode a document ({batch[0].name} or a later one): {error}"
        ) from error


def _finish(documents: list[Document], future: "Future[list[Encoding]]") -> EncodedBatch:
    ids = [encoding.ids for encoding in future.result()]
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    return EncodedBatch(documents, np.fromiter(chain.from_iterable(ids), np.uint32, int(lengths.sum())), lengths)


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
