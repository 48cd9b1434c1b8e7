"""The order in which a mixture of sources is read: in every prefix, each source has its share to within one sequence."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from math import lcm
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data_prep.errors import InputError
from data_prep.permutation import Ints

LONGEST_PERIOD = 1_000_000  # positions; the tables for the longest period take 2 s to compute and use 24 MB


class Tables(NamedTuple):
    """One period of the order: three views of the same assignment."""

    source: Ints  # the source of each position, shape [period]
    earlier: Ints  # number of earlier positions in the period with the same source, shape [period]
    positions: tuple[Ints, ...]  # for each source, its positions in ascending order


@dataclass(frozen=True)
class ShareOrder:
    """Assigns positions 0, 1, 2, ... to sources. Among the first n positions, each source has share·n positions, to within one.

    The order is periodic. The period is the smallest common denominator of the shares, so lookups in both directions take O(1) time.
    """

    shares: tuple[Fraction, ...]

    def __post_init__(self) -> None:
        """Raise InputError unless the shares are positive and add up to 1, and the period is at most LONGEST_PERIOD."""
        if min(self.shares) <= 0 or sum(self.shares) != 1:
            listed = " + ".join(_decimal(share) for share in self.shares)
            raise InputError(
                f"share: the shares add up to {listed} = {_decimal(sum(self.shares, Fraction()))}; expected exactly 1"
            )
        if self.period > LONGEST_PERIOD:
            raise InputError(
                f"share: the common denominator of the shares is {self.period:,}; expected at most {LONGEST_PERIOD:,},"
                " so use shares with at most 6 decimal places"
            )

    @property
    def period(self) -> int:
        """Smallest common denominator of the shares."""
        return lcm(*(share.denominator for share in self.shares))

    @cached_property
    def per_period(self) -> Ints:
        """Number of positions per source in one period, shape [sources]."""
        return np.array([int(share * self.period) for share in self.shares])

    @cached_property
    def _tables(self) -> Tables:
        return _tables(self.shares)

    def at(self, position: npt.ArrayLike) -> tuple[Ints, Ints]:
        """The source of each position, and the number of earlier positions with the same source; any shape, position >= 0."""
        period, offset = np.divmod(np.asarray(position, np.int64), self.period)
        source = self._tables.source[offset]
        return source, period * self.per_period[source] + self._tables.earlier[offset]

    def position(self, source: int, index: int) -> int:
        """The position that `at` maps to this source and index."""
        period, offset = divmod(index, int(self.per_period[source]))
        return period * self.period + int(self._tables.positions[source][offset])

    def counts(self, positions: int) -> Ints:
        """Number of positions of each source among the first `positions` positions, shape [sources]."""
        period, offset = divmod(positions, self.period)
        remainder = [np.searchsorted(positions_of_source, offset) for positions_of_source in self._tables.positions]
        return period * self.per_period + np.array(remainder, np.int64)


def exact_shares(shares: Sequence[float]) -> tuple[Fraction, ...]:
    """Convert shares to exact fractions, reading each as a decimal: 0.1 becomes one tenth."""
    return tuple(Fraction(str(share)) for share in shares)


def _decimal(share: Fraction) -> str:
    return f"{float(share):.15f}".rstrip("0").rstrip(".")


@lru_cache(maxsize=8)
def _tables(shares: tuple[Fraction, ...]) -> Tables:
    """Assign the positions in one period to sources by earliest deadline first [T80].

    Position j (counted from 0) of a source with share a/Q must be at least floor(j·Q/a) and less than ceil((j + 1)·Q/a). Then in every
    prefix, the source's count differs from its share by less than one position. Such an assignment exists. To find it, give each
    position to the allowed source with the earliest deadline.
    """
    period = lcm(*(share.denominator for share in shares))
    per_period = [int(share * period) for share in shares]
    source = np.empty(period, np.int64)
    waiting = [(0, number) for number in range(len(shares))]  # a heap of (first allowed position, source)
    allowed: list[tuple[int, int]] = []  # a heap of (deadline, source)
    assigned = [0] * len(shares)
    for position in range(period):
        while waiting and waiting[0][0] <= position:
            _, number = heapq.heappop(waiting)
            heapq.heappush(allowed, (-(-(assigned[number] + 1) * period // per_period[number]), number))
        deadline, number = heapq.heappop(allowed)
        assert position < deadline, "earliest deadline first meets every deadline"
        source[position] = number
        assigned[number] += 1
        heapq.heappush(waiting, (assigned[number] * period // per_period[number], number))
    index, positions = np.empty(period, np.int64), []
    for number, count in enumerate(per_period):
        positions.append(np.flatnonzero(source == number))
        index[positions[-1]] = np.arange(count)
    return Tables(source, index, tuple(positions))
