"""RepeatMixture: what stands at position i of a run, in closed form. A repeat is a number, not a file."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data_prep.errors import InputError
from data_prep.permutation import Ints, permute, permute_back, stream_key

FRACTION_TOLERANCE = 0.05  # relative: a pool of whole sequences may move the repeated fraction by no more
MOST_POSITIONS = 3_000_000_000  # the square still fits into a signed 64-bit integer


class Stream(IntEnum):
    """Where a sequence of the mixture comes from."""

    UNIQUE = 0
    POOL = 1


class Spacing(StrEnum):
    """How the copies of a pool sequence lie in the run."""

    PASSES = "passes"  # the whole pool, in a fresh order, before any sequence comes again [H22]
    UNIFORM = "uniform"  # all copies shuffled over the whole run [C26]
    BURSTS = "bursts"  # all copies of a sequence close together, a given distance apart


class Provenance(NamedTuple):
    """What stands at each position; three arrays of the positions' shape."""

    stream: Ints  # Stream
    place: Ints  # slot of the pool, or place in the unique stream
    copy: Ints  # which of the R copies of its slot; -1 in the unique stream


@dataclass(frozen=True)
class RepeatMixture:
    """A run of `positions` sequences: `pool` sequences `repeats` times each, and places of the unique stream once each.

    Position i belongs to the pool iff floor((i+1)·f') > floor(i·f') with f' = repeats·pool / positions, so that every
    prefix of n positions holds f'·n pool sequences to within one, and the whole run exactly repeats·pool. `spacing`
    says which slot the j-th of them shows; every slot is shown exactly `repeats` times under each. The other
    positions walk through the unique stream in its order, so that arms that differ in R or in spacing share it.
    """

    positions: int
    pool: int
    repeats: int
    seed: int
    spacing: Spacing = Spacing.PASSES
    # For bursts: pool positions from one copy of a sequence to its next; where it does not divide the pool, the
    # sequences left over are that many pool positions apart.
    burst_distance: int = 0

    def __post_init__(self) -> None:
        if self.positions < 1 or self.repeats < 1 or not 0 <= self.repeats * self.pool <= self.positions:
            raise ValueError(f"impossible mixture: {self}")
        if (self.burst_distance > 0) != (self.spacing is Spacing.BURSTS):
            raise InputError(
                f"burst_distance: {self.burst_distance} with spacing {self.spacing}; bursts need 1 or more"
            )
        if self.pool and self.burst_distance > self.pool:
            raise InputError(
                f"burst_distance: {self.burst_distance} with a pool of {self.pool} sequences; at most that many"
            )
        if self.positions > MOST_POSITIONS:
            raise InputError(f"tokens: {self.positions} sequences in one run; at most {MOST_POSITIONS} are exact")

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
        """What stands at each position, 0 <= position < self.positions; any shape, O(1) time and memory each."""
        given = np.asarray(positions, np.int64)
        i = np.atleast_1d(given)
        before = i * self.repeated_positions // self.positions  # pool positions before i
        repeated = (i + 1) * self.repeated_positions // self.positions > before
        place, copy = i - before, np.full(i.shape, -1)
        if self.pool:
            place[repeated], copy[repeated] = self._slot_and_copy(before[repeated])
        return Provenance(*(part.reshape(given.shape) for part in (repeated.astype(np.int64), place, copy)))

    def _slot_and_copy(self, j: Ints) -> tuple[Ints, Ints]:
        """Slot and copy that the j-th pool position shows: a bijection of range(repeats·pool) to slots x copies."""
        if self.spacing is Spacing.PASSES:
            copy, turn = np.divmod(j, self.pool)
            return permute(turn, self.pool, stream_key("pass", self.seed), copy), copy
        if self.spacing is Spacing.UNIFORM:
            copy, slot = np.divmod(permute(j, self.repeated_positions, stream_key("uniform", self.seed)), self.pool)
            return slot, copy
        # Groups of burst_distance slots are shown `repeats` times over before the next group; the last may be smaller.
        group = np.minimum(j // (self.burst_distance * self.repeats), self.pool // self.burst_distance)
        first = group * self.burst_distance
        size = np.minimum(self.burst_distance, self.pool - first)
        copy, turn = np.divmod(j - first * self.repeats, size)
        # Shuffled, so that the first slots, which evaluations look at, do not all lie at the start of the run.
        return permute(first + turn, self.pool, stream_key("bursts", self.seed)), copy

    def unique_position(self, place: int) -> int:
        """The position at which a place of the unique stream stands: the first i before which i - floor(i·f') is more."""
        return place * self.positions // self.unique_positions

    def occurrences(self, slot: int) -> Ints:
        """The positions at which a slot of the pool stands, in order, shape [repeats]: the inverse of `at`."""
        if not 0 <= slot < self.pool:
            raise ValueError(f"slot {slot} of a pool of {self.pool}")
        copies = np.arange(self.repeats)
        if self.spacing is Spacing.PASSES:
            j = copies * self.pool + permute_back(slot, self.pool, stream_key("pass", self.seed), copies)
        elif self.spacing is Spacing.UNIFORM:
            j = permute_back(copies * self.pool + slot, self.repeated_positions, stream_key("uniform", self.seed))
        else:
            place = int(permute_back(slot, self.pool, stream_key("bursts", self.seed)))
            first = place // self.burst_distance * self.burst_distance
            size = min(self.burst_distance, self.pool - first)
            j = first * self.repeats + copies * size + place - first
        # The j-th pool position is the first i at which floor((i+1)·f') exceeds j.
        return -(-(np.sort(j) + 1) * self.positions // self.repeated_positions) - 1


def pool_size(positions: int, repeated_fraction: float, repeats: int) -> int:
    """Sequences in the pool: the whole number nearest f·positions/R, 0 for the clean run.

    R is kept exact and the fraction gives way; raises InputError where it would have to by more than FRACTION_TOLERANCE.
    """
    if repeats == 1:
        return 0
    wanted = Fraction(str(repeated_fraction)) * positions / repeats
    pool = min(round(wanted), positions // repeats)
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
