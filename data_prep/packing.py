"""Whole documents in a seeded order, packed one after the other and cut once into sequences."""

import numpy as np
import numpy.typing as npt

from data_prep.errors import InputError
from data_prep.permutation import Ints, permute

BLOCK = 4096  # documents looked up at a time


class PackedDocuments:
    """The shortest prefix of a shuffle of documents `first`, `first` + 1, ... that fills `sequences` sequences [C26].

    Cut once: a repeated document is repeated in the same windows, whatever stands around it. Memory: 16 bytes per
    document of the prefix.
    """

    def __init__(self, offsets: npt.NDArray[np.int64], first: int, key: int, sequences: int, width: int) -> None:
        """offsets: start of each document in the split and the split's end; width: tokens per sequence.

        Raises InputError when the documents from `first` on hold fewer tokens.
        """
        self.width, self.sequences = width, sequences
        documents = len(offsets) - 1 - first
        found: list[Ints] = []
        tokens = place = 0
        while tokens < sequences * width:
            if place >= documents:
                raise InputError(
                    f"tokens: the pool needs {sequences * width} tokens of whole documents, the part of the corpus kept"
                    f" for it has {tokens}; ask for fewer tokens or give more text (data.max_tokens)"
                )
            block = first + permute(np.arange(place, min(place + BLOCK, documents)), documents, key)
            found.append(block)
            tokens += int((offsets[block + 1] - offsets[block]).sum())
            place += len(block)
        order = np.concatenate(found) if found else np.empty(0, np.int64)
        lengths = offsets[order + 1] - offsets[order]
        needed = int(np.searchsorted(np.cumsum(lengths), sequences * width)) + 1
        self.documents = order[:needed]
        self._end = np.cumsum(lengths[:needed])
        # Token p of the packed stream, in document d of it, is token p + shift[d] of the split.
        self._shift = offsets[self.documents] - (self._end - lengths[:needed])

    def indices(self, sequence: npt.ArrayLike) -> Ints:
        """Index in the split of every token of each sequence, shape [*sequence.shape, width]."""
        packed = np.asarray(sequence, np.int64)[..., None] * self.width + np.arange(self.width)
        return packed + self._shift[np.searchsorted(self._end, packed, side="right")]
