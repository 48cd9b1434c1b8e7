"""Draw a run's sequences from several token stores: a unique stream that mixes sources, and a pool with its own store."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from data_prep.draw import Draw, Unit, locate_sequences
from data_prep.errors import InputError
from data_prep.mixture import Provenance, Stream
from data_prep.permutation import Ints
from data_prep.shares import ShareOrder
from data_prep.token_store import TokenStore


@dataclass(frozen=True)
class CombinedDraw:
    """Chooses the tokens of every sequence in a run that reads more than one store.

    The stores are treated as one long list of sequences, so `locate` still returns one integer per position. `order`
    assigns each place in the unique stream to a source, and each source is read in the order of its own `Draw`.

    sources: one draw per source of the unique stream, in the order of the shares. names: their names, for error messages.
    named: the pool's draw; None if the pool mixes the sources in the same shares as the unique stream. If the pool's store is also a
        source, this is the source's own draw, so the pool and the unique stream share no sequence.
    """

    sources: tuple[Draw, ...]
    names: tuple[str, ...]
    order: ShareOrder
    named: Draw | None

    @property
    def context(self) -> int:
        """Number of inputs in a sequence."""
        return self.sources[0].context

    @property
    def unit(self) -> Unit:
        """Whether the pool consists of sequences or of documents."""
        return (self.named or self.sources[0]).unit

    @cached_property
    def stores(self) -> tuple[TokenStore, ...]:
        """The stores that `gather` reads from, in the order of their sequences in `locate`."""
        stores = [draw.store for draw in self.sources]
        if self.named and self.named not in self.sources:
            stores.append(self.named.store)
        return tuple(stores)

    @cached_property
    def _starts(self) -> Ints:
        """Index of each store's first sequence, followed by the number of sequences in all stores."""
        return np.cumsum([0, *(store.sequences_in("train", self.context) for store in self.stores)])

    @cached_property
    def pool_capacity(self) -> int:
        """Number of sequences in the largest pool."""
        if self.named:
            return self.named.pool_capacity
        return min(self.order.position(number, draw.pool_capacity) for number, draw in enumerate(self.sources))

    def require(self, pool: int, unique: int) -> None:
        """Raise InputError if a store is too small for a run with `pool` sequences in its pool and `unique` unique sequences."""
        in_pool = [0] * len(self.sources) if self.named else self.order.counts(pool).tolist()
        for number, (draw, name, count) in enumerate(
            zip(self.sources, self.names, self.order.counts(unique), strict=True)
        ):
            available = draw.store.sequences_in("train", self.context)
            shared = in_pool[number] or draw is self.named
            needed = draw.positions if shared else int(count)
            if needed > available or in_pool[number] > draw.pool_capacity:
                reserved = f" and {in_pool[number]} for the pool" if in_pool[number] else ""
                raise InputError(
                    f"tokens: the run needs {needed} unique sequences{reserved} from the source {name!r}, but the source has"
                    f" {available}; use fewer tokens, a smaller share or more text (increase max_tokens)"
                )
        if self.named and pool > self.named.pool_capacity:
            raise InputError(
                f"tokens: the pool of {pool} sequences ({pool * self.context:,} tokens) is larger than its source, which has"
                f" {self.named.pool_capacity} sequences; use a smaller pool or more text (increase pool.max_tokens)"
            )

    def tokens(self, provenance: Provenance) -> Ints:
        """Tokens of the sequence at each position, as int64 of shape [*provenance.place.shape, context + 1]."""
        return self.gather(self.locate(provenance))

    def locate(self, provenance: Provenance) -> Ints:
        """Find which text belongs to each position, as input for `gather`: int64, with the shape of `provenance.place`.

        Each value is the index of a sequence in the list of all stores' sequences or, in a pool of documents, -1 - slot.
        """
        return locate_sequences(provenance, self.unit, self._unique_rows, self._pool_rows)

    def gather(self, located: Ints) -> Ints:
        """Tokens of the sequences that `locate` found, as int64 of shape [*located.shape, context + 1]."""
        tokens = np.empty((*located.shape, self.context + 1), np.int64)
        packed = located < 0
        if packed.any():
            tokens[packed] = self.pool_tokens(-1 - located[packed])
        for store, start, end in zip(self.stores, self._starts, self._starts[1:], strict=False):
            in_store = (located >= start) & (located < end)
            tokens[in_store] = store.gather("train", located[in_store] - start, self.context)
        return tokens

    def unique_tokens(self, place: npt.ArrayLike) -> Ints:
        """Tokens of the sequence at each `place` in the unique stream, as int64 of shape [*place.shape, context + 1]."""
        return self.gather(self._unique_rows(np.asarray(place, np.int64)))

    def pool_tokens(self, slot: npt.ArrayLike) -> Ints:
        """Tokens of the sequence in each pool slot (slot < pool_capacity), as int64 of shape [*slot.shape, context + 1]."""
        slots = np.asarray(slot, np.int64)
        if self.unit is Unit.SEQUENCE:
            return self.gather(self._pool_rows(slots))
        if self.named:
            return self.named.pool_tokens(slots)
        tokens = np.empty((*slots.shape, self.context + 1), np.int64)
        source, index = self.order.at(slots)
        for number, draw in enumerate(self.sources):
            tokens[source == number] = draw.pool_tokens(index[source == number])
        return tokens

    def source(self, stream: Stream, place: int) -> tuple[TokenStore, Ints]:
        """The store that one sequence comes from, and the positions of its tokens in the training split, shape [context + 1]."""
        if stream is Stream.POOL and self.named:
            return self.named.source(stream, place)
        number, index = self.order.at(place)
        return self.sources[int(number)].source(stream, int(index))

    def _unique_rows(self, places: Ints) -> Ints:
        return self._mixed(places, lambda draw, index: draw.unique_sequence(index))

    def _pool_rows(self, slots: Ints) -> Ints:
        if self.named:
            number = self.sources.index(self.named) if self.named in self.sources else len(self.sources)
            return self._starts[number] + self.named.pool_sequence(slots)
        return self._mixed(slots, lambda draw, index: draw.pool_sequence(index))

    def _mixed(self, places: Ints, sequence_of: Callable[[Draw, Ints], Ints]) -> Ints:
        """Let each source find its own sequences, and return their indices in the list of all stores' sequences."""
        source, index = self.order.at(places)
        rows = np.empty(places.shape, np.int64)
        for number, draw in enumerate(self.sources):
            from_source = source == number
            rows[from_source] = self._starts[number] + sequence_of(draw, index[from_source])
        return rows
