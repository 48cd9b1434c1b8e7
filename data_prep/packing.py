"""Pack whole documents in a seeded order and cut the result into sequences."""

import numpy as np
import numpy.typing as npt

from data_prep.errors import InputError
from data_prep.permutation import Ints, permute

BLOCK = 4096  # documents permuted at a time


class PackedDocuments:
    """A pool of whole documents [C26]: documents `first`, `first` + 1, ... are shuffled, joined and cut into sequences.

    The pool uses just enough documents to fill `sequences` sequences. It is cut only once, so all copies of a document
    are cut in the same places. It needs 24 bytes of memory per document used.
    """

    def __init__(self, offsets: npt.NDArray[np.int64], first: int, key: int, sequences: int, width: int) -> None:
        """offsets: start of each document in the split, then the end of the split; width: tokens per sequence.

        Raises InputError if the text from document `first` to the end of the split is too short.
        """
        self.width, self.sequences = width, sequences
        documents = len(offsets) - 1 - first
        blocks: list[Ints] = []
        tokens = place = 0
        while tokens < sequences * width:
            if place >= documents:
                raise InputError(
                    f"tokens: the pool needs {sequences * width} tokens from whole documents, but only {tokens} are"
                    " reserved for it; use fewer tokens or provide more text (increase data.max_tokens)"
                )
            block = first + permute(np.arange(place, min(place + BLOCK, documents)), documents, key)
            blocks.append(block)
            tokens += int((offsets[block + 1] - offsets[block]).sum())
            place += len(block)
        order = np.concatenate(blocks) if blocks else np.empty(0, np.int64)
        lengths = offsets[order + 1] - offsets[order]
        needed = int(np.searchsorted(np.cumsum(lengths), sequences * width)) + 1
        self.documents = order[:needed]
        self._end = np.cumsum(lengths[:needed])
        # If token p of the packed text belongs to the d-th document used, it is token p + shift[d] in the split.
        self._shift = offsets[self.documents] - (self._end - lengths[:needed])

    def indices(self, sequence: npt.ArrayLike) -> Ints:
        """Positions of each sequence's tokens in the split, shape [*sequence.shape, width]."""
        packed = np.asarray(sequence, np.int64)[..., None] * self.width + np.arange(self.width)
        return packed + self._shift[np.searchsorted(self._end, packed, side="right")]
