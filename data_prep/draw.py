"""The data draw: a seeded choice of the text of a run's pool and unique stream from the training split."""

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
    """What the pool is made of: `unit` of a run."""

    SEQUENCE = "sequence"  # arbitrary sequences of the split [H22]
    DOCUMENT = "document"  # whole documents, each with its end of text, concatenated and cut into sequences [C26]


@dataclass(frozen=True)
class Draw:
    """Maps places of the unique stream and slots of the pool to tokens.

    The draw depends on the store, the context, the length of the clean run (`positions`, in sequences) and two seeds,
    never on R, f or spacing. So arms share the unique stream, and the pool for a larger R is a prefix of the pool for a
    smaller one. The clean run reads the whole unique stream and never sees a pool sequence. `seed` shuffles the corpus;
    `pool_seed` chooses another pool for the same unique stream.

    Unit sequence: all sequences are shuffled; the last `positions` are the unique stream, the others are reserved for
    pools. Unit document: the unique stream is the first half of the split (or more, if the clean run needs it), in
    shuffled sequences; documents that start after it are reserved for pools. The corpus should be in random order.
    """

    store: TokenStore
    context: int
    positions: int
    unit: Unit
    seed: int
    pool_seed: int = 0

    @cached_property
    def _sequences(self) -> int:
        return self.store.sequences_in("train", self.context)

    @cached_property
    def _unique_zone(self) -> int:
        """Sequences at the start of the split that are reserved for the unique stream (unit document)."""
        return max(self.positions, self._sequences // 2)

    @cached_property
    def _first_document(self) -> int:
        """First document reserved for pools (unit document)."""
        start = self._unique_zone * (self.context + 1)
        return int(np.searchsorted(self.store.offsets("train"), start))

    @cached_property
    def pool_capacity(self) -> int:
        """Size in sequences of the largest pool that leaves room for the clean run."""
        if self.unit is Unit.SEQUENCE:
            return max(0, self._sequences - self.positions)
        offsets = self.store.offsets("train")
        first = min(self._first_document, len(offsets) - 1)
        return int(offsets[-1] - offsets[first]) // (self.context + 1)

    def require(self, pool: int) -> None:
        """Raises InputError if the split is too small for the clean run and, separately, `pool` sequences."""
        if self._sequences < self.positions or pool > self.pool_capacity:
            raise InputError(
                f"tokens: the run needs {self.positions + pool} sequences ({self.positions} for the clean run and {pool}"
                f" for the pool), the corpus has {self._sequences}"
                + (f", {self.pool_capacity} of them reserved for pools" if self.unit is Unit.DOCUMENT else "")
                + "; set fewer tokens or give more text (data.max_tokens)"
            )

    def tokens(self, provenance: Provenance) -> Ints:
        """Tokens of the sequence at each position, int64, shape [*provenance.place.shape, context + 1]."""
        return self.gather(self.locate(provenance))

    def locate(self, provenance: Provenance) -> Ints:
        """Locate the text of each position for `gather`: int64, shape of `provenance.place`. Cheap for many positions at once.

        The number of a sequence of the split, or -1 - slot in a pool of documents.
        """
        pool = provenance.stream == Stream.POOL
        located = np.empty(provenance.place.shape, np.int64)
        located[~pool] = self._unique_sequence(provenance.place[~pool])
        slots = provenance.place[pool]
        located[pool] = self._pool_sequence(slots) if self.unit is Unit.SEQUENCE else -1 - slots
        return located

    def gather(self, located: Ints) -> Ints:
        """Tokens of located positions (see `locate`), int64, shape [*located.shape, context + 1]."""
        if self.unit is Unit.SEQUENCE:
            return self.store.gather("train", located, self.context)
        tokens = np.empty((*located.shape, self.context + 1), np.int64)
        pool = located < 0
        tokens[~pool] = self.store.gather("train", located[~pool], self.context)
        tokens[pool] = self.pool_tokens(-1 - located[pool])
        return tokens

    def unique_tokens(self, place: npt.ArrayLike) -> Ints:
        """Tokens at each place of the unique stream, int64, shape [*place.shape, context + 1]."""
        return self.store.gather("train", self._unique_sequence(place), self.context)

    def pool_tokens(self, slot: npt.ArrayLike) -> Ints:
        """Tokens of each slot of the pool, slot < pool_capacity, int64, shape [*slot.shape, context + 1]."""
        if self.unit is Unit.SEQUENCE:
            return self.store.gather("train", self._pool_sequence(slot), self.context)
        return self.store.train[self._packed(int(np.max(slot, initial=0)) + 1).indices(slot)].astype(np.int64)

    def indices(self, stream: Stream, place: int) -> Ints:
        """Position in the training split of every token of one sequence, shape [context + 1]."""
        if stream is Stream.POOL and self.unit is Unit.DOCUMENT:
            return self._packed(place + 1).indices(place)
        sequence = self._pool_sequence(place) if stream is Stream.POOL else self._unique_sequence(place)
        return sequence * (self.context + 1) + np.arange(self.context + 1)

    def _unique_sequence(self, place: npt.ArrayLike) -> Ints:
        if self.unit is Unit.SEQUENCE:
            return self._shuffled(self._sequences - 1 - np.asarray(place, np.int64))
        return permute(place, self._unique_zone, stream_key("unique", self.seed))

    def _pool_sequence(self, slot: npt.ArrayLike) -> Ints:
        slots = np.asarray(slot, np.int64)
        if np.max(slots, initial=0) < len(self._first_slots):
            return self._first_slots[slots]
        return self._computed_pool_sequence(slots)

    @cached_property
    def _first_slots(self) -> Ints:
        """Sequence numbers of the first slots: pool sequences repeat, so a lookup saves computing them each time."""
        return self._computed_pool_sequence(np.arange(min(self.pool_capacity, CACHED_SLOTS)))

    def _computed_pool_sequence(self, slots: Ints) -> Ints:
        return self._shuffled(permute(slots, self.pool_capacity, stream_key("pool", self.seed, self.pool_seed)))

    def _shuffled(self, index: npt.ArrayLike) -> Ints:
        return permute(index, self._sequences, stream_key("corpus", self.seed))

    def _packed(self, slots: int) -> PackedDocuments:
        """Packed documents for at least `slots` slots. If it must grow, slots packed before keep their text."""
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
        """A list of at most one: the packing made so far."""
        return []
