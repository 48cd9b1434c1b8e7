"""Encode documents as token ids: on all cores, while the caller reads and writes other documents, or on one core."""

from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from data_prep.errors import InputError
from data_prep.sources import Document

BATCH_CHARACTERS = 2_000_000  # encoding this much text in one call keeps all cores busy and needs about 100 MB
ONE_CORE_CHARACTERS = 500_000  # per batch if one core encodes it; larger batches are no faster
IN_FLIGHT = 2  # one batch is encoded while one is queued, so the encoder is never idle


@dataclass(frozen=True)
class EncodedBatch:
    """A batch of documents and their tokens."""

    documents: list[Document]
    # Token ids of all documents, concatenated without end-of-text tokens, shape [sum of lengths].
    tokens: npt.NDArray[np.uint32]
    lengths: npt.NDArray[np.int64]  # number of tokens in each document, shape [documents]


def encode(tokenizer: Tokenizer, documents: Iterable[Document], all_cores: bool = True) -> Iterator[EncodedBatch]:
    """Encode documents in batches and yield the batches in order.

    With `all_cores`, encoding runs in a thread that releases the GIL, so documents are read ahead. Otherwise, set
    TOKENIZERS_PARALLELISM=false so that the tokenizer uses one core too. Raises InputError if the tokenizer cannot encode a document.
    """
    # If a document contains the end-of-text token as a string, encode it as ordinary text.
    tokenizer.encode_special_tokens = True
    if not all_cores:
        for batch in _batches(documents, ONE_CORE_CHARACTERS):
            yield _finish(batch, _encode_batch(tokenizer, batch))
        return
    waiting: deque[tuple[list[Document], Future[list[Encoding]]]] = deque()
    with ThreadPoolExecutor(1, "encoder") as encoder:
        for batch in _batches(documents, BATCH_CHARACTERS):
            waiting.append((batch, encoder.submit(_encode_batch, tokenizer, batch)))
            if len(waiting) > IN_FLIGHT:
                batch, future = waiting.popleft()
                yield _finish(batch, future.result())
        while waiting:
            batch, future = waiting.popleft()
            yield _finish(batch, future.result())


def _encode_batch(tokenizer: Tokenizer, batch: list[Document]) -> list[Encoding]:
    try:
        return tokenizer.encode_batch_fast([document.text for document in batch], add_special_tokens=False)
    except Exception as error:  # the library raises plain Exception
        raise InputError(
            f"data.tokenizer: cannot encode a document ({batch[0].name} or a later one): {error}"
        ) from error


def _finish(documents: list[Document], encodings: list[Encoding]) -> EncodedBatch:
    ids, lengths = array("I"), np.empty(len(encodings), np.int64)
    for number, encoding in enumerate(encodings):
        ids.fromlist(encoding.ids)  # half as long as numpy.fromiter
        lengths[number] = len(encoding)
    return EncodedBatch(documents, np.frombuffer(ids, np.uint32) if ids else np.empty(0, np.uint32), lengths)


def _batches(documents: Iterable[Document], most_characters: int) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if characters >= most_characters:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
