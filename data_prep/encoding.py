"""Encode documents as token ids on all cores, overlapped with reading the next batch and writing the last one."""

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

BATCH_CHARACTERS = 2_000_000  # per call of the encoder: keeps all cores busy with about 100 MB of memory
IN_FLIGHT = 2  # batches: one in the encoder and one queued, so that the encoder is never idle


@dataclass(frozen=True)
class EncodedBatch:
    """Documents and their tokens."""

    documents: list[Document]
    tokens: npt.NDArray[np.uint32]  # ids of all documents, concatenated, without end of text, shape [sum of lengths]
    lengths: npt.NDArray[np.int64]  # tokens of each document, shape [documents]


def encode(tokenizer: Tokenizer, documents: Iterable[Document]) -> Iterator[EncodedBatch]:
    """Encode documents in order, in batches. The encoder releases the interpreter lock while it works.

    Raises InputError if the tokenizer cannot encode a document.
    """
    # If a document quotes the end-of-text token, encode it as ordinary text.
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
