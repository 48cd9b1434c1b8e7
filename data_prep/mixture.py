"""RepeatMixture: which sequence a run sees at position i, in closed form. A repeat is a number, not a file."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data_prep.errors import InputError
from data_prep.permutation import Ints, permute, permute_back, stream_key

FRACTION_TOLERANCE = 0.05  # relative change of the repeated fraction accepted to make the pool whole sequences
MOST_POSITIONS = 3_000_000_000  # its square still fits in a signed 64-bit integer


class Stream(IntEnum):
    """Where a sequence of the mixture comes from."""

    UNIQUE = 0
    POOL = 1


class Spacing(StrEnum):
    """How the copies of a pool sequence are spread over the run."""

    PASSES = "passes"  # the whole pool once, in a new order, before any sequence repeats [H22]
    UNIFORM = "uniform"  # all copies of all sequences shuffled over the whole run [C26]
    BURSTS = "bursts"  # the copies of a sequence close together, a given distance apart


class Provenance(NamedTuple):
    """Which sequence is at each position: three int64 arrays of the positions' shape."""

    stream: Ints  # Stream
    place: Ints  # slot in the pool, or place in the unique stream
    copy: Ints  # which of the R copies of the slot, 0..R-1; -1 in the unique stream


@dataclass(frozen=True)
class RepeatMixture:
    """A run of `positions` sequences: `pool` sequences `repeats` times each, and sequences of the unique stream once each.

    Position i shows a pool sequence iff floor((i+1)·f') > floor(i·f') with f' = repeats·pool / positions. So the first
    n positions contain f'·n pool sequences, rounded down, and the whole run contains exactly repeats·pool. `spacing`
    decides which slot of the pool the j-th of them shows; each slot is shown exactly `repeats` times under every
    spacing. The other positions read the unique stream in order, so arms that differ in R or spacing share it.

    Raises ValueError if the copies do not fit in the run, InputError for a burst_distance that does not fit.
    """

    positions: int
    pool: int
    repeats: int
    seed: int
    spacing: Spacing = Spacing.PASSES
    # Bursts only: pool positions from one copy of a sequence to the next. If it does not divide the pool, the remaining
    # `pool % burst_distance` sequences form a smaller group, whose copies are that far apart.
    burst_distance: int = 0

    def __post_init__(self) -> None:
        if self.positions < 1 or self.repeats < 1 or not 0 <= self.repeats * self.pool <= self.positions:
            raise ValueError(f"impossible mixture: {self}")
        if (self.burst_distance > 0) != (self.spacing is Spacing.BURSTS):
            raise InputError(
                f"burst_distance: {self.burst_distance} with spacing {self.spacing}; expected 1 or more with bursts, else 0"
            )
        if self.pool and self.burst_distance > self.pool:
            raise InputError(
                f"burst_distance: {self.burst_distance} with a pool of {self.pool} sequences; expected at most the pool"
            )
        if self.positions > MOST_POSITIONS:
            raise InputError(f"tokens: {self.positions} sequences in one run; expected at most {MOST_POSITIONS}")

    @property
    def repeated_positions(self) -> int:
        """Number of positions that show a pool sequence: repeats · pool."""
        return self.repeats * self.pool

    @property
    def unique_positions(self) -> int:
        """Number of positions that show a sequence of the unique stream."""
        return self.positions - self.repeated_positions

    @property
    def exact_fraction(self) -> Fraction:
        """f', the repeated fraction after rounding the pool to whole sequences."""
        return Fraction(self.repeated_positions, self.positions)

    def at(self, positions: npt.ArrayLike) -> Provenance:
        """The sequence at each position, 0 <= position < self.positions; any shape, O(1) time and memory per position."""
        asked = np.asarray(positions, np.int64)
        i = np.atleast_1d(asked)
        before = i * self.repeated_positions // self.positions  # pool positions before i
        repeated = (i + 1) * self.repeated_positions // self.positions > before
        place, copy = i - before, np.full(i.shape, -1)
        if self.pool:
            place[repeated], copy[repeated] = self._slot_and_copy(before[repeated])
        return Provenance(*(array.reshape(asked.shape) for array in (repeated.astype(np.int64), place, copy)))

    def _slot_and_copy(self, j: Ints) -> tuple[Ints, Ints]:
        """Slot and copy shown at the j-th pool position: a bijection from range(repeats·pool) to slots x copies."""
        if self.spacing is Spacing.PASSES:
            copy, place = np.divmod(j, self.pool)
            return permute(place, self.pool, stream_key("pass", self.seed), copy), copy
        if self.spacing is Spacing.UNIFORM:
            copy, slot = np.divmod(permute(j, self.repeated_positions, stream_key("uniform", self.seed)), self.pool)
            return slot, copy
        # Each group of burst_distance slots is shown `repeats` times before the next group. The last may be smaller.
        group = np.minimum(j // (self.burst_distance * self.repeats), self.pool // self.burst_distance)
        first = group * self.burst_distance
        size = np.minimum(self.burst_distance, self.pool - first)
        copy, place = np.divmod(j - first * self.repeats, size)
        # Shuffled, so that the first slots, on which pool loss is evaluated, are not all at the start of the run.
        return permute(first + place, self.pool, stream_key("bursts", self.seed)), copy

    def unique_position(self, place: int) -> int:
        """Position at which a place of the unique stream is shown."""
        # The smallest i for which i + 1 - floor((i+1)·f') exceeds the place.
        return place * self.positions // self.unique_positions

    def occurrences(self, slot: int) -> Ints:
        """Positions at which a slot of the pool is shown, ascending, shape [repeats]. The inverse of `at`."""
        if not 0 <= slot < self.pool:
            raise ValueError(f"slot {slot} is outside the pool of {self.pool}")
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
    """Sequences in the pool: f·positions/R rounded to a whole number, 0 for the clean run (R = 1).

    R stays exact and the repeated fraction is rounded. Raises InputError if it changes by more than FRACTION_TOLERANCE,
    or if the pool would be smaller than one sequence.
    """
    if repeats == 1:
        return 0
    wanted = Fraction(str(repeated_fraction)) * positions / repeats
    pool = min(round(wanted), positions // repeats)
    if pool < 1:
        raise InputError(
            f"repeats: at R = {repeats} and repeated_fraction {repeated_fraction} the pool has {float(wanted):.2f}"
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
