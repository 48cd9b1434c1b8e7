"""Batches of documents as token ids. Token stores are written from these batches, whatever the source."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.permutation import Ints

DIGEST_BYTES = 32
COUNTS = ("read", "duplicates", "empty", "bad")

# Called with the stage and the fraction of it that is done (0 to 1). The stage can be followed by DETAILS and a line of details.
Progress = Callable[[str, float], None]
DETAILS = " | "


@dataclass(frozen=True)
class DocumentBatch:
    """Consecutive documents of a corpus, without duplicates and empty documents. `tokens` is valid until the next batch is read."""

    tokens: npt.NDArray[np.integer[Any]]  # contains the documents, each followed by the end-of-text token, in order
    starts: Ints  # position of each document in `tokens`, shape [documents]
    lengths: Ints  # tokens in each document, including the end-of-text token, shape [documents]
    is_test: npt.NDArray[np.bool_]  # whether each document is test text, shape [documents]
    digests: bytes  # SHA-256 of each document, concatenated
    names: list[str]
    text_bytes: Ints | None  # UTF-8 bytes of each document's text, shape [documents]; None if the text is unknown


@dataclass(frozen=True)
class CountedBatch(DocumentBatch):
    """counts: the values of `BatchReader.counts` after each document was read, shape [documents, 4].

    losses: how much of each document's text was lost in encoding; see `TokenizerAudit.check`. None if it is unknown.
    """

    counts: Ints
    losses: Ints | None = None

    def select(self, first: int, last: int | None = None) -> "CountedBatch":
        """The documents from `first` to `last` (exclusive)."""
        chosen = slice(first, last)
        start, stop, _ = chosen.indices(len(self.names))
        return CountedBatch(
            tokens=self.tokens,
            starts=self.starts[chosen],
            lengths=self.lengths[chosen],
            is_test=self.is_test[chosen],
            digests=self.digests[DIGEST_BYTES * start : DIGEST_BYTES * stop],
            names=self.names[chosen],
            text_bytes=None if self.text_bytes is None else self.text_bytes[chosen],
            counts=self.counts[chosen],
            losses=None if self.losses is None else self.losses[chosen],
        )

    def counts_at_end(self) -> dict[str, int]:
        """The value of `BatchReader.counts` after the last document was read."""
        return dict(zip(COUNTS, self.counts[-1].tolist(), strict=True))


class BatchReader(ABC):
    """Reads a source as batches of documents."""

    vocabulary: int
    end_of_text: int
    stage: str  # name of the stage for the progress display
    more_documents: str  # how a user can provide more documents

    def __init__(self) -> None:
        # Counts of documents read and dropped, keyed as in COUNTS, up to the last document that `skip` or `batches`
        # yielded. Once the source has ended, they also include the documents that were dropped after it.
        self.counts = dict.fromkeys(COUNTS, 0)
        # Like `counts`, but up to the end of the last batch that was read.
        self._totals = dict.fromkeys(COUNTS, 0)
        self._unread: Iterator[CountedBatch] = self._all_batches()

    @property
    @abstractmethod
    def kept(self) -> int:
        """Number of distinct documents read so far, including documents that were read ahead."""

    @abstractmethod
    def _all_batches(self) -> Iterator[CountedBatch]:
        """Yield all documents in order, and update `_totals`. Every batch has at least one document.

        Raises InputError if the source cannot be read, and CannotResume if its content cannot be used.
        """

    def skip(self, documents: int) -> Iterator[bytes]:
        """Read the next documents, and yield their digests. Yields fewer if the source ends."""
        while documents and (batch := next(self._unread, None)):
            selected = batch.select(0, documents)
            self.counts = selected.counts_at_end()
            self._passed(selected)
            if len(selected.names) < len(batch.names):
                self._unread = chain([batch.select(documents)], self._unread)
            documents -= len(selected.names)
            yield selected.digests

    def batches(self, tokens: int) -> Iterator[DocumentBatch]:
        """Yield the next documents until they contain at least `tokens` tokens. The last document can exceed this number.

        Raises the same errors as `_all_batches`.
        """
        for batch in self._unread:
            selected = batch.select(0, documents_within(batch.lengths, tokens))
            self.counts = selected.counts_at_end()
            self._passed(selected)
            tokens -= int(selected.lengths.sum())
            yield selected
            if tokens <= 0:
                return
        self.counts = dict(self._totals)

    def _passed(self, batch: CountedBatch) -> None:
        """Called with the documents that `skip` or `batches` is about to yield."""
        return

    def finish(self) -> dict[str, Any]:
        """Check the corpus after the last batch, and return entries for the manifest. Raises CannotResume if the corpus cannot be used."""
        return {}

    def corpus_entries(self) -> dict[str, Any]:
        """Entries that describe the corpus in the manifest, in addition to the counts."""
        return {}

    def notes(self) -> list[str]:
        """Lines to print when the build has finished."""
        return []


def documents_within(lengths: Ints, tokens: int) -> int:
    """Number of documents, from the first on, needed for at least `tokens` tokens; all of them if they contain fewer."""
    return min(int(np.searchsorted(np.cumsum(lengths), tokens)) + 1, len(lengths))
