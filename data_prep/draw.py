"""The data draw: a seeded choice of the training text for a run's pool and its unique stream."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
import numpy.typing as npt

from data_prep.errors import InputError
from data_prep.mixture import Provenance, Stream
from data_prep.packing import PackedDocuments
from data_prep.permutation import Ints, permute, stream_key
from data_prep.token_store import TokenStore

CACHED_SLOTS = 2**20  # 8 MB


class Unit(StrEnum):
    """What a pool consists of: arbitrary sequences or whole documents."""

    SEQUENCE = "sequence"  # sequences from the split, regardless of document boundaries [H22]
    DOCUMENT = "document"  # whole documents with their end-of-text tokens, concatenated and cut into sequences [C26]


@dataclass(frozen=True)
class Draw:
    """Chooses the tokens of every sequence in the pool and in the unique stream.

    The draw depends on the store, the context, the length of the clean run (`positions`, in sequences) and two seeds,
    but not on R, f or the spacing. Runs that differ only in R, f or spacing therefore share the unique stream, and the
    pool for a larger R is a prefix of the pool for a smaller R. The clean run reads the whole unique stream and never
    sees a pool sequence. `seed` shuffles the corpus. Changing only `pool_seed` changes the pool but not the unique stream.

    If the unit is a sequence, all sequences in the split are shuffled. The last `positions` of them form the unique
    stream, and the others are reserved for pools. If the unit is a document, the unique stream consists of shuffled
    sequences from the first half of the split, or from a larger part if the clean run needs more. Documents that start
    after this part are reserved for pools, so the corpus should be in random order.
    """

    store: TokenStore
    context: int
    positions: int
    unit: Unit
    seed: int
    pool_seed: int = 0

    @property
    def stores(self) -> tuple[TokenStore, ...]:
        """The stores that `gather` reads from."""
        return (self.store,)

    @cached_property
    def _sequences(self) -> int:
        return self.store.sequences_in("train", self.context)

    @cached_property
    def _unique_zone(self) -> int:
        """If the unit is a document: number of sequences reserved for the unique stream at the start of the split."""
        return max(self.positions, self._sequences // 2) if self.positions else 0

    @cached_property
    def _first_document(self) -> int:
        """If the unit is a document: index of the first document reserved for pools."""
        start = self._unique_zone * (self.context + 1)
        return int(np.searchsorted(self.store.offsets("train"), start))

    @cached_property
    def pool_capacity(self) -> int:
        """Number of sequences in the largest pool that leaves enough text for the clean run."""
        if self.unit is Unit.SEQUENCE:
            return max(0, self._sequences - self.positions)
        offsets = self.store.offsets("train")
        first = min(self._first_document, len(offsets) - 1)
        return int(offsets[-1] - offsets[first]) // (self.context + 1)

    def require(self, pool: int) -> None:
        """Raise InputError if the split is too small for the clean run and `pool` additional sequences."""
        if self._sequences < self.positions or pool > self.pool_capacity:
            raise InputError(
                f"tokens: the run needs {self.positions + pool} sequences ({self.positions} for the clean run and {pool}"
                f" for the pool), but the corpus has {self._sequences}"
                + (f", of which {self.pool_capacity} are reserved for pools" if self.unit is Unit.DOCUMENT else "")
                + "; use fewer tokens or provide more text (increase data.max_tokens)"
            )

    def tokens(self, provenance: Provenance) -> Ints:
        """Tokens of the sequence at each position, as int64 of shape [*provenance.place.shape, context + 1]."""
        return self.gather(self.locate(provenance))

    def locate(self, provenance: Provenance) -> Ints:
        """Find which text belongs to each position, as input for `gather`: int64, with the shape of `provenance.place`.

        Each value is the index of a sequence in the split or, in a pool of documents, -1 - slot. This reads no tokens,
        so it is fast even for many positions.
        """
        return locate_sequences(provenance, self.unit, self.unique_sequence, self.pool_sequence)

    def gather(self, located: Ints) -> Ints:
        """Tokens of the sequences that `locate` found, as int64 of shape [*located.shape, context + 1]."""
        if self.unit is Unit.SEQUENCE:
            return self.store.gather("train", located, self.context)
        tokens = np.empty((*located.shape, self.context + 1), np.int64)
        pool = located < 0
        tokens[~pool] = self.store.gather("train", located[~pool], self.context)
        tokens[pool] = self.pool_tokens(-1 - located[pool])
        return tokens

    def unique_tokens(self, place: npt.ArrayLike) -> Ints:
        """Tokens of the sequence at each `place` in the unique stream, as int64 of shape [*place.shape, context + 1]."""
        return self.store.gather("train", self.unique_sequence(place), self.context)

    def pool_tokens(self, slot: npt.ArrayLike) -> Ints:
        """Tokens of the sequence in each pool slot (slot < pool_capacity), as int64 of shape [*slot.shape, context + 1]."""
        if self.unit is Unit.SEQUENCE:
            return self.store.gather("train", self.pool_sequence(slot), self.context)
        return self.store.train[self._packed(int(np.max(slot, initial=0)) + 1).indices(slot)].astype(np.int64)

    def source(self, stream: Stream, place: int) -> tuple[TokenStore, Ints]:
        """The store that one sequence comes from, and the positions of its tokens in the training split, shape [context + 1]."""
        return self.store, self.indices(stream, place)

    def indices(self, stream: Stream, place: int) -> Ints:
        """Positions of one sequence's tokens in the training split, shape [context + 1]."""
        if stream is Stream.POOL and self.unit is Unit.DOCUMENT:
            return self._packed(place + 1).indices(place)
        sequence = self.pool_sequence(place) if stream is Stream.POOL else self.unique_sequence(place)
        return sequence * (self.context + 1) + np.arange(self.context + 1)

    def unique_sequence(self, place: npt.ArrayLike) -> Ints:
        """Split index of the sequence at each place in the unique stream."""
        if self.unit is Unit.SEQUENCE:
            return self._shuffled(self._sequences - 1 - np.asarray(place, np.int64))
        return permute(place, self._unique_zone, stream_key("unique", self.seed))

    def pool_sequence(self, slot: npt.ArrayLike) -> Ints:
        """If the unit is a sequence: split index of the sequence in each pool slot."""
        slots = np.asarray(slot, np.int64)
        if np.max(slots, initial=0) < len(self._first_slots):
            return self._first_slots[slots]
        return self._computed_pool_sequence(slots)

    @cached_property
    def _first_slots(self) -> Ints:
        """Index of the sequence in each of the first CACHED_SLOTS slots. Pool sequences repeat, so this lookup table saves time."""
        return self._computed_pool_sequence(np.arange(min(self.pool_capacity, CACHED_SLOTS)))

    def _computed_pool_sequence(self, slots: Ints) -> Ints:
        return self._shuffled(permute(slots, self.pool_capacity, stream_key("pool", self.seed, self.pool_seed)))

    def _shuffled(self, index: npt.ArrayLike) -> Ints:
        return permute(index, self._sequences, stream_key("corpus", self.seed))

    def _packed(self, slots: int) -> PackedDocuments:
        """Pack enough documents to fill at least `slots` slots. Packing more slots later does not change their text."""
        if not self._packings or self._packings[-1].sequences < slots:
            grown = 2 * self._packings[-1].sequences if self._packings else 0
            key = stream_key("pool documents", self.seed, self.pool_seed)
            self._packings[:] = [
                PackedDocuments(
                    self.store.offsets("train"),
                    self._first_document,
                    key,
                    min(max(slots, grown), self.pool_capacity),
                    self.context + 1,
                )
            ]
        return self._packings[-1]

    @cached_property
    def _packings(self) -> list[PackedDocuments]:
        """The current packing, in a list that is empty before the first call. The dataclass is frozen, but the list can change."""
        return []


def locate_sequences(
    provenance: Provenance, unit: Unit, unique_sequence: Callable[[Ints], Ints], pool_sequence: Callable[[Ints], Ints]
) -> Ints:
    """Find the sequence at each position, as int64 with the shape of `provenance.place`. In a pool of documents, it is -1 - slot.

    unique_sequence, pool_sequence: return the index of the sequence at each place in the unique stream, or in each pool slot.
    """
    pool = provenance.stream == Stream.POOL
    located = np.empty(provenance.place.shape, np.int64)
    located[~pool] = unique_sequence(provenance.place[~pool])
    slots = provenance.place[pool]
    located[pool] = pool_sequence(slots) if unit is Unit.SEQUENCE else -1 - slots
    return located
