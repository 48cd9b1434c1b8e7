"""What repeats in a corpus by nature, before a study repeats anything: windows seen twice, test text seen in training."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from data_prep.permutation import Words, mix64

Tokens = npt.NDArray[np.unsignedinteger]
BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
CHUNK_TOKENS = 2**18  # 2 MB an array; 16 times as many are no faster and take 16 times the memory
LARGEST_SIEVE = 2**26  # bytes


def natural_repeats(
    train: Tokens,
    test: Tokens,
    window: int = 50,
    ngram: int = 13,
    most_windows: int = 20_000_000,
    chunk_tokens: int = CHUNK_TOKENS,
) -> dict[str, int | float]:
    """Shares of a corpus that repeat by nature: within the training split, and between it and the test split.

    train, test: unsigned tokens, shape [tokens], memory maps welcome: both are read once, in chunks. A window starts
    at every token, stride 1, and may cross the end of a document. Returned, all shares 0 where there is no window:
    - repeated_window_share: of train's windows of `window` tokens, those whose content stands at two or more starts;
    - test_overlap_share: of test's windows of `ngram` tokens, those whose content stands anywhere in train;
    - test_window_overlap_share: the same with windows of `window` tokens;
    - window, ngram, and of each share the windows it is of and the windows it counts (estimates where sampled);
    - sampled_share, test_sampled_share: share of all possible contents that was looked at. 1.0 means that the shares
      are exact, up to 64-bit collisions.
    A split of more than `most_windows` windows is sampled by content: all occurrences of a window are kept or none.
    repeated_window_share is then unbiased with a standard error below 1/sqrt(most_windows), however often the most
    frequent window occurs; test's shares are those of the kept windows. Memory is some 20 bytes per kept training
    window and 80 per kept test window, whatever the size of train. 20M tokens take some 4 s on one core, and each
    further 20M, sampled, 2 s.
    Raises ValueError for tokens of another shape or type, and for sizes below 1.
    """
    for name, tokens in (("train", train), ("test", test)):
        if tokens.ndim != 1 or tokens.dtype.kind != "u":
            raise ValueError(
                f"{name}: unsigned tokens of shape [tokens] wanted, got {tokens.dtype}{list(tokens.shape)}"
            )
    if min(window, ngram, most_windows, chunk_tokens) < 1:
        raise ValueError("window, ngram, most_windows and chunk_tokens must be 1 or more")

    test_sampled = min(1.0, most_windows / max(1, test.size))
    in_test: dict[int, list[Words]] = {ngram: [], window: []}
    sizes = tuple(in_test)
    for size, hashes in _window_hashes(test, sizes, chunk_tokens):
        in_test[size].append(_sampled(hashes, test_sampled))
    sought = {size: _Sought(_joined(in_test.pop(size))) for size in sizes}

    train_windows = max(0, train.size - window + 1)
    train_sampled = min(1.0, most_windows / max(1, train_windows))
    kept = _Kept(most_windows)
    for size, hashes in _window_hashes(train, sizes, chunk_tokens):
        if size == window:
            kept.add(_sampled(hashes, train_sampled))
        sought[size].mark(_sampled(hashes, test_sampled))

    # Counted from the windows that stand alone: each weighs one, so no frequent window can swing the estimate.
    alone = min(float(train_windows), kept.count_alone() / train_sampled)
    repeated = train_windows - alone
    ngrams, windows = (max(0, test.size - size + 1) for size in (ngram, window))
    ngram_share, window_share = sought[ngram].share_found(), sought[window].share_found()
    return {
        "window": window,
        "ngram": ngram,
        "repeated_window_share": repeated / max(1, train_windows),
        "repeated_windows": round(repeated),
        "train_windows": train_windows,
        "test_overlap_share": ngram_share,
        "test_ngrams_in_train": round(ngram_share * ngrams),
        "test_ngrams": ngrams,
        "test_window_overlap_share": window_share,
        "test_windows_in_train": round(window_share * windows),
        "test_windows": windows,
        "sampled_share": train_sampled,
        "test_sampled_share": test_sampled,
    }


class _Kept:
    """Hashes of the sampled training windows; of each value at most two need be kept to know which stand alone."""

    def __init__(self, most: int) -> None:
        self._blocks: list[Words] = []
        self._size, self._limit = 0, 2 * most

    def add(self, hashes: Words) -> None:
        self._blocks.append(hashes)
        self._size += hashes.size
        if self._size > self._limit:  # text that repeats one window without end, if that window is in the sample
            ordered = np.sort(_joined(self._blocks))
            third = np.zeros(ordered.size, bool)
            third[2:] = ordered[2:] == ordered[:-2]
            self._blocks = [ordered[~third]]
            self._size = self._blocks[0].size
            self._limit = max(self._limit, 2 * self._size)

    def count_alone(self) -> int:
        """Kept windows whose content occurs once."""
        ordered = _joined(self._blocks)
        self._blocks = []
        ordered.sort()
        differs = np.ones(ordered.size + 1, bool)
        np.not_equal(ordered[1:], ordered[:-1], out=differs[1:-1])
        return int(np.count_nonzero(differs[1:] & differs[:-1]))


class _Sought:
    """The test split's windows, to be found in a stream of training windows."""

    def __init__(self, hashes: Words) -> None:
        self._values, self._counts = np.unique(hashes, return_counts=True)
        self._found = np.zeros(self._values.size, bool)
        # Nearly all training windows are sent away by one look-up here; a binary search takes 5 times as long.
        bits = min(LARGEST_SIEVE, 16 * max(1, self._values.size)).bit_length()
        self._mask = np.uint64(2 ** (bits - 1) - 1)
        self._sieve = np.zeros(2 ** (bits - 1), bool)
        self._sieve[self._slot(self._values)] = True

    def mark(self, hashes: Words) -> None:
        hashes = hashes[self._sieve[self._slot(hashes)]]
        if hashes.size:
            place = np.searchsorted(self._values, hashes)
            place[place == self._values.size] = 0
            self._found[place[self._values[place] == hashes]] = True

    def share_found(self) -> float:
        """Share of the windows, each counted as often as it occurs in test, that were found."""
        return int(self._counts[self._found].sum()) / max(1, int(self._counts.sum()))

    def _slot(self, hashes: Words) -> npt.NDArray[np.int64]:
        return (hashes & self._mask).view(np.int64)


def _window_hashes(tokens: Tokens, sizes: tuple[int, ...], chunk_tokens: int) -> Iterator[tuple[int, Words]]:
    """(size, hashes) of the windows of each size that start in a chunk, chunk by chunk.

    The hash of m_0 ... m_(w-1) is the finalised sum of m_k·BASE^k modulo 2^64, m the mixed tokens: a difference of
    prefix sums brought to its own origin, so it depends neither on where the window stands nor on the chunk.
    """
    span = min(chunk_tokens, max(1, tokens.size)) + max(sizes) - 1
    powers = _powers(BASE, span)
    inverses = _powers(pow(BASE, -1, 2**64), span)
    # From 1: the mixer keeps 0, and windows of token 0 alone would be in every sample.
    mixed_16_bit = mix64(np.arange(1, 2**16 + 1, dtype=np.uint64))
    for start in range(0, tokens.size, chunk_tokens):
        chunk = np.asarray(tokens[start : start + chunk_tokens + max(sizes) - 1])
        small = chunk.dtype.itemsize <= 2
        mixed = mixed_16_bit[chunk] if small else mix64(chunk.astype(np.uint64) + np.uint64(1))
        prefix = np.zeros(chunk.size + 1, np.uint64)
        np.cumsum(mixed * powers[: chunk.size], out=prefix[1:])
        for size in sizes:
            starts = max(0, min(chunk_tokens, chunk.size - size + 1))
            yield size, mix64((prefix[size : size + starts] - prefix[:starts]) * inverses[:starts])


def _powers(base: int, count: int) -> Words:
    factors = np.full(count, base, np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)


def _sampled(hashes: Words, share: float) -> Words:
    """The hashes below share·2^64: of each content all occurrences or none."""
    return hashes if share >= 1 else hashes[hashes < np.uint64(int(share * 2**64))]


def _joined(blocks: list[Words]) -> Words:
    return np.concatenate(blocks) if blocks else np.empty(0, np.uint64)
