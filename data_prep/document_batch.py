"""Batches of documents as token ids. Token stores are written from these batches, whatever the source."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.permutation import Ints

DIGEST_BYTES = 32
COUNTS = ("read", "duplicates", "empty", "bad")

Progress = Callable[[str, float], None]  # called with the stage and the fraction of it that is done (0 to 1)


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


class BatchReader(ABC):
    """Reads a source as batches of documents."""

    vocabulary: int
    end_of_text: int
    # Counts of documents read and dropped, keyed as in COUNTS, up to the last document that `skip` or `batches`
    # yielded. Once the source has ended, they also include the documents that were dropped after it.
    counts: dict[str, int]
    stage: str  # name of the stage for the progress display
    more_documents: str  # how a user can provide more documents

    @property
    @abstractmethod
    def kept(self) -> int:
        """Number of distinct documents read so far, including documents that were read ahead."""

    @abstractmethod
    def skip(self, documents: int) -> Iterator[bytes]:
        """Read the next documents, and yield their digests. Yields fewer if the source ends."""

    @abstractmethod
    def batches(self, tokens: int) -> Iterator[DocumentBatch]:
        """Yield the next documents until they contain at least `tokens` tokens. The last document can exceed this number.

        Raises InputError if the source cannot be read, and CannotResume if its content cannot be used.
        """

    def journal_entries(self) -> dict[str, Any]:
        """State that a resumed build restores, in addition to the position in the source."""
        return {}

    def restore(self, journal: dict[str, Any]) -> None:
        """Restore the state that `journal_entries` returned, if there is any."""
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
