"""Which text a run's pool and unique stream are: a seeded draw from the store's training split."""

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

REMEMBERED_SLOTS = 2**20


class Unit(StrEnum):
    """What the pool is made of."""

    SEQUENCE = "sequence"  # any sequences of the split [H22]
    DOCUMENT = "document"  # whole documents, each closed by the end of text, packed and cut at the context [C26]


@dataclass(frozen=True)
class Draw:
    """Turns places of the unique stream and slots of the pool into tokens.

    It depends on the store, the context, the length of the clean run (`positions`, in sequences) and two seeds, never
    on R, f or spacing. So arms share the unique stream, the pool for a larger R is a prefix of the pool for a smaller
    one, and the clean run, which reads the unique stream to its end, never meets a pool sequence. `seed` shuffles the
    corpus; `pool_seed` draws other pools beside the same unique stream.

    Unit sequence: of all sequences, shuffled, the last `positions` are the unique stream and the others the pool's
    zone. Unit document: the first part of the split, half of it or as much as the clean run needs, is the unique
    stream's, in shuffled sequences; the documents that start after it are the pool's zone. The corpus should then be
    in random order.
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
        """Sequences, from the start of the split, that only the unique stream is drawn from (unit document)."""
        return max(self.positions, self._sequences // 2)

    @cached_property
    def _first_document(self) -> int:
        """First document of the pool's zone (unit document)."""
        start = self._unique_zone * (self.context + 1)
        return int(np.searchsorted(self.store.offsets("train"), start))

    @cached_property
    def pool_capacity(self) -> int:
        """The largest pool, in sequences, that fits beside the clean run's unique stream."""
        if self.unit is Unit.SEQUENCE:
            return max(0, self._sequences - self.positions)
        offsets = self.store.offsets("train")
        first = min(self._first_document, len(offsets) - 1)
        return int(offsets[-1] - offsets[first]) // (self.context + 1)

    def require(self, pool: int) -> None:
        """Raises InputError when the split cannot hold the clean control and a pool of `pool` sequences beside it."""
        if self._sequences < self.positions or pool > self.pool_capacity:
            raise InputError(
                f"tokens: the run needs {self.positions + pool} sequences ({self.positions} for the clean control and a"
                f" pool of {pool} beside them), the corpus has {self._sequences}"
                + (f", {self.pool_capacity} of them in the pool's zone" if self.unit is Unit.DOCUMENT else "")
                + "; ask for fewer tokens or give more text (data.max_tokens)"
            )

    def tokens(self, provenance: Provenance) -> Ints:
        """Tokens of each position, int64, shape [*provenance.place.shape, context + 1]."""
        return self.gather(self.locate(provenance))

    def locate(self, provenance: Provenance) -> Ints:
        """A number for each position's text, to be handed to `gather`: made for many positions at once it costs little.

        A sequence of the split by its number, or, in a pool of documents, slot s as -1 - s.
        """
        pool = provenance.stream == Stream.POOL
        located = np.empty(provenance.place.shape, np.int64)
        located[~pool] = self._unique_sequence(provenance.place[~pool])
        slots = provenance.place[pool]
        located[pool] = self._pool_sequence(slots) if self.unit is Unit.SEQUENCE else -1 - slots
        return located

    def gather(self, located: Ints) -> Ints:
        """Tokens of located positions, int64, shape [*located.shape, context + 1]."""
        if self.unit is Unit.SEQUENCE:
            return self.store.gather("train", located, self.context)
        tokens = np.empty((*located.shape, self.context + 1), np.int64)
        pool = located < 0
        tokens[~pool] = self.store.gather("train", located[~pool], self.context)
        tokens[pool] = self.pool_tokens(-1 - located[pool])
        return tokens

    def unique_tokens(self, place: npt.ArrayLike) -> Ints:
        """Tokens of each place of the unique stream, shape [*place.shape, context + 1]."""
        return self.store.gather("train", self._unique_sequence(place), self.context)

    def pool_tokens(self, slot: npt.ArrayLike) -> Ints:
        """Tokens of each slot of the pool, shape [*slot.shape, context + 1]; slots below `pool_capacity`."""
        if self.unit is Unit.SEQUENCE:
            return self.store.gather("train", self._pool_sequence(slot), self.context)
        return self.store.train[self._packed(int(np.max(slot, initial=0)) + 1).indices(slot)].astype(np.int64)

    def indices(self, stream: Stream, place: int) -> Ints:
        """Index in the training split of every token of one sequence, shape [context + 1]."""
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
        """Sequences of the first slots, 8 MB at the most: what is repeated is looked up instead of computed again."""
        return self._computed_pool_sequence(np.arange(min(self.pool_capacity, REMEMBERED_SLOTS)))

    def _computed_pool_sequence(self, slots: Ints) -> Ints:
        return self._shuffled(permute(slots, self.pool_capacity, stream_key("pool", self.seed, self.pool_seed)))

    def _shuffled(self, index: npt.ArrayLike) -> Ints:
        return permute(index, self._sequences, stream_key("corpus", self.seed))

    def _packed(self, slots: int) -> PackedDocuments:
        """The packing of at least that many slots; grown when asked for more, which moves nothing already packed."""
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
        """The one packing there is so far, if any."""
        return []
