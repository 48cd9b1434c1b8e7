from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.natural_repeats import natural_repeats

SHARES = ("repeated_window_share", "test_overlap_share", "test_window_overlap_share")


def windows_of(tokens: npt.NDArray[np.uint16], size: int) -> list[tuple[int, ...]]:
    return [tuple(tokens[i : i + size].tolist()) for i in range(len(tokens) - size + 1)]


def brute_force(train: npt.NDArray[np.uint16], test: npt.NDArray[np.uint16], window: int, ngram: int) -> dict[str, int]:
    in_train = Counter(windows_of(train, window))
    known = {size: set(windows_of(train, size)) for size in (window, ngram)}
    return {
        "repeated_windows": sum(count for count in in_train.values() if count > 1),
        "train_windows": sum(in_train.values()),
        "test_ngrams_in_train": sum(one in known[ngram] for one in windows_of(test, ngram)),
        "test_ngrams": len(windows_of(test, ngram)),
        "test_windows_in_train": sum(one in known[window] for one in windows_of(test, window)),
        "test_windows": len(windows_of(test, window)),
    }


@st.composite
def texts(draw: st.DrawFn) -> npt.NDArray[np.uint16]:
    """Up to 120 tokens of a small alphabet, so that short windows repeat; the largest token is among them."""
    alphabet = draw(st.sampled_from([[0], [0, 1], [0, 7, 65535]]))
    return np.array(draw(st.lists(st.sampled_from(alphabet), max_size=120)), np.uint16)


sizes = st.integers(1, 12)


@given(texts(), texts(), sizes, sizes, st.integers(1, 130))
def test_counts_equal_a_brute_force_count_wherever_the_chunks_are_cut(
    train: npt.NDArray[np.uint16], test: npt.NDArray[np.uint16], window: int, ngram: int, chunk_tokens: int
) -> None:
    found = natural_repeats(train, test, window, ngram, chunk_tokens=chunk_tokens)
    expected = brute_force(train, test, window, ngram)
    assert {key: found[key] for key in expected} == expected
    counts = (
        ("repeated_windows", "train_windows"),
        ("test_ngrams_in_train", "test_ngrams"),
        ("test_windows_in_train", "test_windows"),
    )
    for share, (some, all_of_them) in zip(SHARES, counts, strict=True):
        assert found[share] == expected[some] / max(1, expected[all_of_them])
    assert found["sampled_share"] == found["test_sampled_share"] == 1
    assert (found["window"], found["ngram"]) == (window, ngram)


@given(texts(), texts(), sizes, sizes, st.integers(1, 100))
def test_uint16_and_uint32_tokens_agree_sampled_or_not(
    train: npt.NDArray[np.uint16], test: npt.NDArray[np.uint16], window: int, ngram: int, most: int
) -> None:
    short = natural_repeats(train, test, window, ngram, most)
    assert short == natural_repeats(train.astype(np.uint32), test.astype(np.uint32), window, ngram, most)
    assert all(0 <= short[share] <= 1 for share in SHARES)


@given(texts(), st.integers(1, 130), st.integers(1, 130), st.integers(1, 100))
def test_a_sample_does_not_depend_on_the_chunks(
    train: npt.NDArray[np.uint16], chunk: int, other: int, most: int
) -> None:
    one, two = (natural_repeats(train, train[20:], 3, 2, most, chunk_tokens) for chunk_tokens in (chunk, other))
    assert one == two


def test_tokens_beyond_16_bits_are_told_apart() -> None:
    train = np.arange(2**18, 2**18 + 5000, dtype=np.uint32)
    found = natural_repeats(train, (train % 2**16).astype(np.uint32))
    assert [found[share] for share in SHARES] == [0, 0, 0]


@pytest.mark.parametrize("size", [0, 1, 12, 13, 49, 50, 51])
def test_a_text_around_the_window_sizes(size: int) -> None:
    text = np.arange(size, dtype=np.uint16)
    found = natural_repeats(text, text)
    assert (found["train_windows"], found["test_windows"]) == (max(0, size - 49), max(0, size - 49))
    assert found["test_ngrams"] == max(0, size - 12)
    assert [found[share] for share in SHARES] == [0, float(size >= 13), float(size >= 50)]


def planted() -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16], int]:
    """Random train of 300,000 tokens that holds 60,000 of them twice; a test set, a quarter of it from train."""
    draw = np.random.default_rng(1).integers(0, 60_000, 440_000, dtype=np.uint16)
    train = np.concatenate([draw[:240_000], draw[:60_000]])
    return train, np.concatenate([draw[100_000:140_000], draw[240_000:360_000]]), 2 * (60_000 - 49)


def test_planted_repeats_are_found_exactly_and_a_sample_is_near() -> None:
    train, test, repeated = planted()
    exact = natural_repeats(train, test)
    assert exact["repeated_windows"] == repeated
    assert exact["test_ngrams_in_train"] == 40_000 - 12
    assert exact["test_windows_in_train"] == 40_000 - 49
    most = 20_000
    sampled = natural_repeats(train, test, most_windows=most)
    assert sampled["sampled_share"] == most / exact["train_windows"]
    assert sampled["test_sampled_share"] == most / len(test)
    for share in SHARES:
        assert sampled[share] != exact[share]
        assert abs(sampled[share] - exact[share]) < 4 / most**0.5, share


def test_the_sampled_share_is_unbiased_though_a_few_windows_make_half_of_the_text() -> None:
    rng = np.random.default_rng(2)
    text = np.concatenate([rng.integers(0, 60_000, 20_000), np.repeat(rng.integers(0, 60_000, 4), 5_000)])
    truth = natural_repeats(text.astype(np.uint16), text[:0].astype(np.uint16))["repeated_window_share"]
    most, estimates = 2_000, []
    for _ in range(60):  # other names for the tokens draw another sample of the same text
        renamed = rng.permutation(2**16)[text].astype(np.uint16)
        estimates.append(natural_repeats(renamed, renamed[:0], most_windows=most)["repeated_window_share"])
    assert np.std(estimates) < 1 / most**0.5
    assert abs(np.mean(estimates) - truth) < 4 * np.std(estimates) / 60**0.5


def test_one_window_without_end_is_counted_however_small_the_sample() -> None:
    for token in range(64):  # with most_windows a tenth, the one window is in the sample of some of them
        text = np.full(2_000, token, np.uint16)
        found = natural_repeats(text, text, most_windows=195, chunk_tokens=100)
        assert found["repeated_window_share"] == 1


@pytest.mark.parametrize("most_windows", [10_000, 20_000_000])
def test_a_train_text_copied_wholly_into_test_overlaps_wholly(most_windows: int) -> None:
    train = planted()[0]
    found = natural_repeats(train, train.copy(), most_windows=most_windows)
    assert found["test_overlap_share"] == found["test_window_overlap_share"] == 1.0


def test_a_text_that_train_holds_in_pieces_shares_only_what_fits_into_a_piece() -> None:
    pieces = np.arange(6_000, dtype=np.uint16).reshape(-1, 30)
    train = pieces[np.random.default_rng(0).permutation(len(pieces))].ravel()
    found = natural_repeats(train, pieces.ravel(), window=31, ngram=13)
    joined = sum(int(left) + 1 == int(right) for left, right in zip(train[29:-1:30], train[30::30], strict=True))
    assert found["test_window_overlap_share"] == 30 * joined / (6_000 - 30)
    assert found["test_ngrams_in_train"] == 200 * 18 + 12 * joined


def test_other_shapes_types_and_sizes_are_refused() -> None:
    good = np.zeros(9, np.uint16)
    with pytest.raises(ValueError, match=r"test: unsigned tokens.*int64\[9\]"):
        natural_repeats(good, good.astype(np.int64))
    with pytest.raises(ValueError, match=r"train: .*uint16\[3, 3\]"):
        natural_repeats(good.reshape(3, 3), good)
    with pytest.raises(ValueError, match="1 or more"):
        natural_repeats(good, good, window=0)
