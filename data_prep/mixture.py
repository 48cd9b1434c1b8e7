"""The mixture of unique and repeated sequences in a run, computed in closed form rather than stored."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data_prep.errors import InputError
from data_prep.permutation import Ints, permute, permute_back, stream_key

# Largest accepted relative change in the repeated fraction when the pool is rounded to whole sequences.
FRACTION_TOLERANCE = 0.05
MOST_POSITIONS = 3_000_000_000  # its square still fits in a signed 64-bit integer


class Stream(IntEnum):
    """The source of a sequence in the mixture."""

    UNIQUE = 0
    POOL = 1


class Spacing(StrEnum):
    """How the copies of a pool sequence are spread over the run."""

    PASSES = "passes"  # the run goes through the pool R times, each time in a new order [H22]
    UNIFORM = "uniform"  # the copies of all sequences are shuffled together over the whole run [C26]
    BURSTS = "bursts"  # consecutive copies of a sequence are a fixed, short distance apart


class Provenance(NamedTuple):
    """The sequence at each position: three int64 arrays with the same shape as the positions."""

    stream: Ints  # values of Stream
    place: Ints  # slot in the pool, or index in the unique stream
    copy: Ints  # index of the copy, 0..R-1; -1 in the unique stream


@dataclass(frozen=True)
class RepeatMixture:
    """A run of `positions` sequences, in which `pool` sequences appear `repeats` times each and all others appear once.

    Position i gets a pool sequence iff floor((i+1)·f') > floor(i·f'), where f' = repeats·pool / positions. The first n
    positions therefore contain floor(f'·n) pool sequences, and the whole run contains exactly repeats·pool of them.
    `spacing` determines which pool slot each of these positions gets. With any spacing, each slot appears exactly
    `repeats` times. The other positions read the unique stream in order, so runs that differ only in R or spacing share
    that stream.

    Raises ValueError if the copies do not fit in the run, and InputError if burst_distance is invalid or the run is
    longer than MOST_POSITIONS.
    """

    positions: int
    pool: int
    repeats: int
    seed: int
    spacing: Spacing = Spacing.PASSES
    # For bursts only: the distance between consecutive copies of a sequence, in pool positions. If it does not divide
    # the pool, the last `pool % burst_distance` sequences form a smaller group with a correspondingly smaller distance.
    burst_distance: int = 0

    def __post_init__(self) -> None:
        if self.positions < 1 or self.repeats < 1 or not 0 <= self.repeats * self.pool <= self.positions:
            raise ValueError(f"impossible mixture: {self}")
        if (self.burst_distance > 0) != (self.spacing is Spacing.BURSTS):
            raise InputError(
                f"burst_distance: {self.burst_distance} with spacing {self.spacing}; expected 1 or more for bursts and 0 otherwise"
            )
        if self.pool and self.burst_distance > self.pool:
            raise InputError(
                f"burst_distance: {self.burst_distance} is larger than the pool, which contains {self.pool} sequences"
            )
        if self.positions > MOST_POSITIONS:
            raise InputError(f"tokens: {self.positions} sequences in one run; expected at most {MOST_POSITIONS}")

    @property
    def repeated_positions(self) -> int:
        """Number of positions with a pool sequence: repeats·pool."""
        return self.repeats * self.pool

    @property
    def unique_positions(self) -> int:
        """Number of positions with a sequence from the unique stream."""
        return self.positions - self.repeated_positions

    @property
    def exact_fraction(self) -> Fraction:
        """f', the repeated fraction after the pool is rounded to whole sequences."""
        return Fraction(self.repeated_positions, self.positions)

    def at(self, positions: npt.ArrayLike) -> Provenance:
        """Find the sequence at each position, 0 <= position < self.positions.

        `positions` may have any shape. Each position takes O(1) time and memory.
        """
        requested = np.asarray(positions, np.int64)
        i = np.atleast_1d(requested)
        before = i * self.repeated_positions // self.positions  # pool positions before i
        repeated = (i + 1) * self.repeated_positions // self.positions > before
        place, copy = i - before, np.full(i.shape, -1)
        if self.pool:
            place[repeated], copy[repeated] = self._slot_and_copy(before[repeated])
        return Provenance(*(array.reshape(requested.shape) for array in (repeated.astype(np.int64), place, copy)))

    def _slot_and_copy(self, j: Ints) -> tuple[Ints, Ints]:
        """Pool slot and copy index at the j-th pool position: a bijection from range(repeats·pool) to slots x copies."""
        if self.spacing is Spacing.PASSES:
            copy, place = np.divmod(j, self.pool)
            return permute(place, self.pool, stream_key("pass", self.seed), copy), copy
        if self.spacing is Spacing.UNIFORM:
            copy, slot = np.divmod(permute(j, self.repeated_positions, stream_key("uniform", self.seed)), self.pool)
            return slot, copy
        # Each group of burst_distance slots appears `repeats` times before the next group. The last group may be smaller.
        group = np.minimum(j // (self.burst_distance * self.repeats), self.pool // self.burst_distance)
        first = group * self.burst_distance
        size = np.minimum(self.burst_distance, self.pool - first)
        copy, place = np.divmod(j - first * self.repeats, size)
        # Shuffle the slots: pool loss is evaluated on the first few, which should not all appear at the start of the run.
        return permute(first + place, self.pool, stream_key("bursts", self.seed)), copy

    def unique_position(self, place: int) -> int:
        """Position in the run at which sequence `place` of the unique stream appears."""
        # This is the smallest i with i + 1 - floor((i+1)·f') > place.
        return place * self.positions // self.unique_positions

    def occurrences(self, slot: int) -> Ints:
        """Positions at which a pool slot appears, in ascending order, shape [repeats]. The inverse of `at`."""
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
        # The j-th pool position is the smallest i with floor((i+1)·f') > j.
        return -(-(np.sort(j) + 1) * self.positions // self.repeated_positions) - 1


def pool_size(positions: int, repeated_fraction: float, repeats: int) -> int:
    """Number of sequences in a pool drawn from the corpus: f·positions/R, rounded to a whole number, or 0 for the clean run (R = 1).

    Raises InputError for the same reasons as `named_pool_size`.
    """
    return 0 if repeats == 1 else named_pool_size(positions, repeated_fraction, repeats)


def named_pool_size(positions: int, repeated_fraction: float, repeats: int) -> int:
    """Number of sequences in a pool with text of its own: f·positions/R, rounded to a whole number, for any R >= 1.

    Rounding leaves R exact but changes the repeated fraction. Raises InputError if the fraction changes by more than
    FRACTION_TOLERANCE, or if the pool would be smaller than one sequence.
    """
    wanted = Fraction(str(repeated_fraction)) * positions / repeats
    pool = min(round(wanted), positions // repeats)
    if pool < 1:
        largest = int(Fraction(str(repeated_fraction)) * positions)
        hint = f"the largest R for {positions} sequences is {largest}"
        if largest < 2:
            hint = f"{positions} sequences are too few for any R above 1; increase repeated_fraction or tokens"
        raise InputError(
            f"repeats: with R = {repeats} and repeated_fraction = {repeated_fraction}, the pool would contain"
            f" less than one sequence ({float(wanted):.2f}); {hint}"
        )
    if abs(pool / wanted - 1) > FRACTION_TOLERANCE:
        raise InputError(
            f"repeats: with R = {repeats} and a pool of {pool} sequences, the repeated fraction becomes"
            f" {float(Fraction(pool * repeats, positions)):.4f} instead of {repeated_fraction} (off by more than"
            f" {FRACTION_TOLERANCE:.0%}); choose R or tokens so that repeated_fraction·sequences/R is close to a whole number"
            f" (here {float(wanted):.2f})"
        )
    return pool
