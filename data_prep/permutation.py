"""A seeded permutation of range(n) that is computed, not stored."""

import hashlib
from math import isqrt

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
ROUNDS = 8
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def stream_key(*parts: int | str) -> int:
    """A 64-bit key for a named stream of randomness, e.g. stream_key("pool", seed)."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little")


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014): a bijection of 64-bit words in which every bit moves every bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def permute(index: npt.ArrayLike, n: int, key: int, stream: npt.ArrayLike = 0) -> Ints:
    """The place of each `index` under the permutation of range(n) that (key, stream) names.

    index, stream: integers, broadcast together, 0 <= index < n; each stream (say, a pass) is a permutation of its own.
    O(1) memory in n and O(1) time per index: a Feistel network over a grid a x b >= n with additions modulo a and b,
    a bijection for any round function, walked along its cycle until it lands below n (the grid exceeds n by less
    than a = ceil(sqrt(n)), so a second step is rare).
    """
    place, stream = np.broadcast_arrays(np.asarray(index, np.int64), np.asarray(stream, np.int64))
    if place.size and (place.min() < 0 or place.max() >= n):
        raise ValueError(f"permute: index outside range({n})")
    a = np.uint64(isqrt(n - 1) + 1 if n > 1 else 1)
    b = np.uint64(-(-n // int(a)))
    with np.errstate(over="ignore"):
        keys = _mix(np.uint64(key) + (stream.ravel().astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    out = np.empty(place.size, np.int64)
    todo = np.arange(place.size)
    x = place.ravel().astype(np.uint64)
    while todo.size:
        x = _grid_bijection(x, a, b, keys[todo])
        inside = x < np.uint64(n)
        out[todo[inside]] = x[inside]
        todo, x = todo[~inside], x[~inside]
    return out.reshape(place.shape)


def _grid_bijection(
    x: npt.NDArray[np.uint64], a: np.uint64, b: np.uint64, keys: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint64]:
    high, low = x // a, x % a
    with np.errstate(over="ignore"):
        for turn in range(ROUNDS):
            salt = keys + np.uint64(turn + 1) * _GOLDEN
            low = (low + _mix(salt ^ _mix(high + np.uint64(1))) % a) % a
            high = (high + _mix(~salt ^ _mix(low + np.uint64(1))) % b) % b
    return high * a + low
