"""Natural repeats: text that occurs twice in a corpus before a study repeats anything, and test text seen in training."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from data_prep.permutation import UInts, mix64

Tokens = npt.NDArray[np.unsignedinteger]
BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
CHUNK_TOKENS = 2**18  # 2 MB per array; measured: 16 times larger chunks are no faster
LARGEST_SIEVE = 2**26  # bytes


def natural_repeats(
    train: Tokens,
    test: Tokens,
    window: int = 50,
    ngram: int = 13,
    most_windows: int = 20_000_000,
    chunk_tokens: int = CHUNK_TOKENS,
) -> dict[str, int | float]:
    """Measure repeats within the training split, and between it and the test split.

    train, test: unsigned token ids, shape [tokens]; read once, in chunks, so memory maps are fine. A window starts at
    every token (stride 1) and may cross the end of a document.

    Returns (shares are 0 if there is no window):
    - repeated_window_share: share of train's windows of `window` tokens that occur more than once in train;
    - test_overlap_share: share of test's windows of `ngram` tokens that occur in train;
    - test_window_overlap_share: the same for windows of `window` tokens;
    - window, ngram, and for each share its numerator and denominator in windows (numerators are estimates if sampled);
    - sampled_share, test_sampled_share: share of all possible window contents that was examined. 1.0 means that the
      shares are exact, up to 64-bit hash collisions.

    A split with more than `most_windows` windows is sampled by content: either all occurrences of a window are kept or
    none. repeated_window_share is then unbiased with a standard error below 1/sqrt(most_windows), however often the
    most frequent window occurs; the shares of test are those of the kept windows. Memory: about 20 bytes per kept
    training window and 80 per kept test window, for any size of train. Time on one core: about 4 s for 20M tokens, and
    2 s for each further 20M.
    Raises ValueError for tokens of another shape or type, and for sizes below 1.
    """
    for name, tokens in (("train", train), ("test", test)):
        if tokens.ndim != 1 or tokens.dtype.kind != "u":
            raise ValueError(
                f"{name}: unsigned tokens of shape [tokens] expected, found {tokens.dtype}{list(tokens.shape)}"
            )
    if min(window, ngram, most_windows, chunk_tokens) < 1:
        raise ValueError("window, ngram, most_windows and chunk_tokens must be 1 or more")

    test_sampled = min(1.0, most_windows / max(1, test.size))
    in_test: dict[int, list[UInts]] = {ngram: [], window: []}
    sizes = tuple(in_test)
    for size, hashes in _window_hashes(test, sizes, chunk_tokens):
        in_test[size].append(_sampled(hashes, test_sampled))
    wanted = {size: _WantedWindows(_joined(in_test.pop(size))) for size in sizes}

    train_windows = max(0, train.size - window + 1)
    train_sampled = min(1.0, most_windows / max(1, train_windows))
    kept = _KeptWindows(most_windows)
    for size, hashes in _window_hashes(train, sizes, chunk_tokens):
        if size == window:
            kept.add(_sampled(hashes, train_sampled))
        wanted[size].mark(_sampled(hashes, test_sampled))

    # Estimated from the windows that occur once: each has weight one, so no frequent window dominates the estimate.
    unique = min(float(train_windows), kept.count_unique() / train_sampled)
    repeated = train_windows - unique
    ngrams, windows = (max(0, test.size - size + 1) for size in (ngram, window))
    ngram_share, window_share = wanted[ngram].share_found(), wanted[window].share_found()
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


class _KeptWindows:
    """Hashes of the sampled training windows. Two of each value suffice to know which occur once."""

    def __init__(self, most: int) -> None:
        self._blocks: list[UInts] = []
        self._size, self._limit = 0, 2 * most

    def add(self, hashes: UInts) -> None:
        """Add hashes, shape [windows]."""
        self._blocks.append(hashes)
        self._size += hashes.size
        if self._size > self._limit:  # happens if the sample includes a window that fills much of the text
            ordered = np.sort(_joined(self._blocks))
            third = np.zeros(ordered.size, bool)
            third[2:] = ordered[2:] == ordered[:-2]
            self._blocks = [ordered[~third]]
            self._size = self._blocks[0].size
            self._limit = max(self._limit, 2 * self._size)

    def count_unique(self) -> int:
        """Number of kept windows whose content occurs once; empties the store of hashes."""
        ordered = _joined(self._blocks)
        self._blocks = []
        ordered.sort()
        differs = np.ones(ordered.size + 1, bool)
        np.not_equal(ordered[1:], ordered[:-1], out=differs[1:-1])
        return int(np.count_nonzero(differs[1:] & differs[:-1]))


class _WantedWindows:
    """The test split's windows, to be looked up in a stream of training windows."""

    def __init__(self, hashes: UInts) -> None:
        self._values, self._counts = np.unique(hashes, return_counts=True)
        self._found = np.zeros(self._values.size, bool)
        # One lookup here rejects nearly all training windows; a binary search takes 5 times as long.
        bits = min(LARGEST_SIEVE, 16 * max(1, self._values.size)).bit_length()
        self._mask = np.uint64(2 ** (bits - 1) - 1)
        self._sieve = np.zeros(2 ** (bits - 1), bool)
        self._sieve[self._slot(self._values)] = True

    def mark(self, hashes: UInts) -> None:
        """Mark the windows that occur among these training windows."""
        hashes = hashes[self._sieve[self._slot(hashes)]]
        if hashes.size:
            place = np.searchsorted(self._values, hashes)
            place[place == self._values.size] = 0
            self._found[place[self._values[place] == hashes]] = True

    def share_found(self) -> float:
        """Share of test windows that were marked; each counts as often as it occurs in test."""
        return int(self._counts[self._found].sum()) / max(1, int(self._counts.sum()))

    def _slot(self, hashes: UInts) -> npt.NDArray[np.int64]:
        return (hashes & self._mask).view(np.int64)


def _window_hashes(tokens: Tokens, sizes: tuple[int, ...], chunk_tokens: int) -> Iterator[tuple[int, UInts]]:
    """Yield (size, hashes of the windows of that size that start in the chunk), chunk by chunk.

    The hash of a window with mixed tokens m_0 ... m_(w-1) is mix64 of the sum of m_k·BASE^k modulo 2^64: a difference
    of prefix sums, divided by BASE^start. So it depends neither on the window's position nor on the chunk.
    """
    span = min(chunk_tokens, max(1, tokens.size)) + max(sizes) - 1
    powers = _powers(BASE, span)
    inverses = _powers(pow(BASE, -1, 2**64), span)
    # Token + 1: mix64 maps 0 to 0, so windows of token 0 alone would be in every sample.
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


def _powers(base: int, count: int) -> UInts:
    factors = np.full(count, base, np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)


def _sampled(hashes: UInts, share: float) -> UInts:
    """Keep the hashes below share·2^64: all occurrences of a content or none."""
    return hashes if share >= 1 else hashes[hashes < np.uint64(int(share * 2**64))]


def _joined(blocks: list[UInts]) -> UInts:
    return np.concatenate(blocks) if blocks else np.empty(0, np.uint64)
