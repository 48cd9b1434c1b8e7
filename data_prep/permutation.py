"""A seeded permutation of range(n), computed on demand rather than stored."""

import hashlib
from collections.abc import Callable
from math import isqrt

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
UInts = npt.NDArray[np.uint64]
_Bijection = Callable[[UInts, np.uint64, np.uint64, UInts], UInts]
ROUNDS = 4  # two additions each, so eight Feistel rounds; four already give a pseudorandom permutation [LR88]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def stream_key(*parts: int | str) -> int:
    """64-bit key of a named random stream, e.g. stream_key("pool", seed)."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little")


def mix64(x: UInts) -> UInts:
    """SplitMix64's finalizer, a bijection on 64-bit words in which every input bit affects every output bit [SLF14]."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def permute(index: npt.ArrayLike, n: int, key: int, stream: npt.ArrayLike = 0) -> Ints:
    """Map each `index` to its place in the permutation of range(n) that `key` and `stream` determine.

    index, stream: integers that are broadcast against each other, with 0 <= index < n < 2^62. Each stream, e.g. each
    pass over a pool, has its own permutation. The time and memory per index do not depend on n. Raises ValueError if an
    index is outside range(n).

    The method is a Feistel network on a grid of a x b >= n cells. Each round adds modulo a or b, so the network is a
    bijection for any round function. A result outside range(n) is mapped again until it falls inside (cycle walking). The
    grid has fewer than a = ceil(sqrt(n)) extra cells, so this is rarely necessary.
    """
    return _walk(_grid_bijection, index, n, key, stream)


def permute_back(place: npt.ArrayLike, n: int, key: int, stream: npt.ArrayLike = 0) -> Ints:
    """Inverse of `permute`: find the index that it maps to each `place`, at the same cost."""
    return _walk(_grid_bijection_back, place, n, key, stream)


def _walk(bijection: _Bijection, index: npt.ArrayLike, n: int, key: int, stream: npt.ArrayLike) -> Ints:
    place, stream = np.asarray(index, np.int64), np.asarray(stream, np.int64)
    if stream.size > 1:  # a single stream needs only one key
        place, stream = np.broadcast_arrays(place, stream)
    if place.size and (place.min() < 0 or place.max() >= n):
        raise ValueError(f"permute: index outside range({n})")
    a = np.uint64(isqrt(n - 1) + 1 if n > 1 else 1)
    b = np.uint64(-(-n // int(a)))
    with np.errstate(over="ignore"):
        keys = mix64(np.uint64(key) + (stream.ravel().astype(np.uint64) + np.uint64(1)) * _GOLDEN)
        x = bijection(place.ravel().astype(np.uint64), a, b, keys)
        outside = np.flatnonzero(x >= np.uint64(n))
        while outside.size:
            x[outside] = bijection(x[outside], a, b, keys[outside] if keys.size > 1 else keys)
            outside = outside[x[outside] >= np.uint64(n)]
    return x.astype(np.int64).reshape(place.shape)


def _grid_bijection(x: UInts, a: np.uint64, b: np.uint64, keys: UInts) -> UInts:
    high, low = np.divmod(x, a)
    for number in range(ROUNDS):
        salt = keys + np.uint64(number + 1) * _GOLDEN
        low = _add_below(low, mix64(salt + high), a)
        high = _add_below(high, mix64(~salt + low), b)
    return high * a + low


def _grid_bijection_back(x: UInts, a: np.uint64, b: np.uint64, keys: UInts) -> UInts:
    high, low = np.divmod(x, a)
    for number in reversed(range(ROUNDS)):
        salt = keys + np.uint64(number + 1) * _GOLDEN
        high = _subtract_below(high, mix64(~salt + low), b)
        low = _subtract_below(low, mix64(salt + high), a)
    return high * a + low


def _add_below(x: UInts, word: UInts, bound: np.uint64) -> UInts:
    """Scale a random word to a number below `bound` < 2^32 and add it to `x` modulo `bound`, without a slow division."""
    total = x + ((word >> np.uint64(32)) * bound >> np.uint64(32))
    return total - bound * (total >= bound)


def _subtract_below(x: UInts, word: UInts, bound: np.uint64) -> UInts:
    """Inverse of `_add_below`."""
    number = (word >> np.uint64(32)) * bound >> np.uint64(32)
    return x - number + bound * (x < number)
