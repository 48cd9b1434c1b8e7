"""RepeatMixture: which sequence stands at position i of a run, in closed form. A repeat is a number, not a file."""

from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data_prep.errors import InputError
from data_prep.permutation import Ints, permute, stream_key

FRACTION_TOLERANCE = 0.05  # relative: a pool of whole sequences may move the repeated fraction by no more


class Stream(IntEnum):
    """Where a sequence of the mixture comes from."""

    UNIQUE = 0
    POOL = 1


class Provenance(NamedTuple):
    """What stands at each position; three arrays of the positions' shape."""

    sequence: Ints  # number of the sequence in the store's train split
    stream: Ints  # Stream
    pass_number: Ints  # which of the R passes over the pool; -1 in the unique stream


@dataclass(frozen=True)
class RepeatMixture:
    """A run of `positions` sequences, of which `pool` sequences are seen `repeats` times each and the rest once.

    Position i belongs to the pool iff floor((i+1)·f') > floor(i·f') with f' = repeats·pool / positions, so that every
    prefix of n positions holds f'·n pool sequences to within one, and the whole run exactly repeats·pool. The j-th of
    them is pass j // pool, and each pass is a fresh permutation of the pool.

    The store's train split is shuffled by `seed`. Its last `positions` places are the unique stream, read from the
    end; all before them are the pool's zone, of which the pool is a prefix. So arms that differ in R share the unique
    stream, the pool for a larger R is a prefix of the pool for a smaller one, and the clean run (pool 0), which reads
    the unique stream to its end, never meets a pool sequence.
    """

    positions: int
    pool: int
    repeats: int
    store_sequences: int
    seed: int

    def __post_init__(self) -> None:
        if self.positions < 1 or self.repeats < 1 or not 0 <= self.repeats * self.pool <= self.positions:
            raise ValueError(f"impossible mixture: {self}")
        if self.positions >= 2**31:
            raise InputError(f"tokens: {self.positions} sequences in one run; at most {2**31 - 1} are exact in 64 bits")
        if self.store_sequences < self.positions + self.pool:
            raise InputError(
                f"tokens: the run needs {self.positions + self.pool} sequences ({self.positions} for the clean control"
                f" and a pool of {self.pool} beside them), the corpus has {self.store_sequences};"
                " ask for fewer tokens or give more text (data.max_tokens)"
            )

    @property
    def repeated_positions(self) -> int:
        """Positions that show a pool sequence: repeats · pool."""
        return self.repeats * self.pool

    @property
    def unique_positions(self) -> int:
        """Positions that show a sequence seen once."""
        return self.positions - self.repeated_positions

    @property
    def exact_fraction(self) -> Fraction:
        """f', the repeated fraction that whole sequences allow."""
        return Fraction(self.repeated_positions, self.positions)

    def at(self, positions: npt.ArrayLike) -> Provenance:
        """What stands at each position, 0 <= position < self.positions; any shape, O(1) each."""
        i = np.asarray(positions, np.int64)
        before = i * self.repeated_positions // self.positions  # pool positions before i
        repeated = (i + 1) * self.repeated_positions // self.positions > before
        pass_number = np.where(repeated, before // max(self.pool, 1), -1)
        sequence = np.empty(i.shape, np.int64)
        sequence[~repeated] = self.unique_sequence((i - before)[~repeated])
        if self.pool:
            passes = pass_number[repeated]
            slot = permute(before[repeated] - passes * self.pool, self.pool, stream_key("pass", self.seed), passes)
            sequence[repeated] = self.pool_sequence(slot)
        return Provenance(sequence, repeated.astype(np.int64), pass_number)

    def pool_sequence(self, slot: npt.ArrayLike) -> Ints:
        """Store sequence of each slot of the pool's zone; slots beyond the pool are never trained on."""
        return self._shuffled(slot)

    def unique_sequence(self, place: npt.ArrayLike) -> Ints:
        """Store sequence of each place of the unique stream."""
        return self._shuffled(self.store_sequences - 1 - np.asarray(place, np.int64))

    def _shuffled(self, index: npt.ArrayLike) -> Ints:
        return permute(index, self.store_sequences, stream_key("corpus", self.seed))


def pool_size(positions: int, repeated_fraction: float, repeats: int) -> int:
    """Sequences in the pool: the whole number nearest f·positions/R, 0 for the clean run.

    R is kept exact and the fraction gives way; raises InputError where it would have to by more than FRACTION_TOLERANCE.
    """
    if repeats == 1:
        return 0
    wanted = Fraction(str(repeated_fraction)) * positions / repeats
    pool = round(wanted)
    while pool * repeats > positions:
        pool -= 1
    if pool < 1:
        raise InputError(
            f"repeats: at R = {repeats} and repeated_fraction {repeated_fraction} the pool would be {float(wanted):.2f}"
            f" sequences, less than one; the largest R for {positions} sequences is"
            f" {int(Fraction(str(repeated_fraction)) * positions)}"
        )
    if abs(pool / wanted - 1) > FRACTION_TOLERANCE:
        raise InputError(
            f"repeats: at R = {repeats} the pool of {pool} sequences makes the repeated fraction"
            f" {float(Fraction(pool * repeats, positions)):.4f} instead of {repeated_fraction} (off by more than"
            f" {FRACTION_TOLERANCE:.0%}); choose R or tokens so that fraction·sequences/R is close to a whole number"
            f" (here {float(wanted):.2f})"
        )
    return pool
