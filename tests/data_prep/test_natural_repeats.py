from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.natural_repeats import duplicate_census, natural_repeats

SHARES = ("repeated_window_share", "test_overlap_share", "test_window_overlap_share")


def windows_of(tokens: npt.NDArray[np.uint16], size: int) -> list[tuple[int, ...]]:
    return [tuple(tokens[i : i + size].tolist()) for i in range(len(tokens) - size + 1)]


def brute_force(train: npt.NDArray[np.uint16], test: npt.NDArray[np.uint16], window: int, ngram: int) -> dict[str, int]:
    in_train = Counter(windows_of(train, window))
    train_windows = {size: set(windows_of(train, size)) for size in (window, ngram)}
    return {
        "repeated_windows": sum(count for count in in_train.values() if count > 1),
        "train_windows": sum(in_train.values()),
        "test_ngrams_in_train": sum(content in train_windows[ngram] for content in windows_of(test, ngram)),
        "test_ngrams": len(windows_of(test, ngram)),
        "test_windows_in_train": sum(content in train_windows[window] for content in windows_of(test, window)),
        "test_windows": len(windows_of(test, window)),
    }


@st.composite
def texts(draw: st.DrawFn) -> npt.NDArray[np.uint16]:
    """Up to 120 tokens from a small alphabet, so short windows repeat. The alphabet may include the largest uint16."""
    alphabet = draw(st.sampled_from([[0], [0, 1], [0, 7, 65535]]))
    return np.array(draw(st.lists(st.sampled_from(alphabet), max_size=120)), np.uint16)


sizes = st.integers(1, 12)


@given(texts(), texts(), sizes, sizes, st.integers(1, 130))
def test_counts_equal_brute_force_counts_for_every_chunk_size(
    train: npt.NDArray[np.uint16], test: npt.NDArray[np.uint16], window: int, ngram: int, chunk_tokens: int
) -> None:
    statistics = natural_repeats(train, test, window, ngram, chunk_tokens=chunk_tokens)
    expected = brute_force(train, test, window, ngram)
    assert {key: statistics[key] for key in expected} == expected
    counts = (
        ("repeated_windows", "train_windows"),
        ("test_ngrams_in_train", "test_ngrams"),
        ("test_windows_in_train", "test_windows"),
    )
    for share, (count, total) in zip(SHARES, counts, strict=True):
        assert statistics[share] == expected[count] / max(1, expected[total])
    assert statistics["sampled_share"] == statistics["test_sampled_share"] == 1
    assert (statistics["window"], statistics["ngram"]) == (window, ngram)


@given(texts(), texts(), sizes, sizes, st.integers(1, 100))
def test_uint16_and_uint32_tokens_give_the_same_result_sampled_or_not(
    train: npt.NDArray[np.uint16], test: npt.NDArray[np.uint16], window: int, ngram: int, most: int
) -> None:
    statistics = natural_repeats(train, test, window, ngram, most)
    assert statistics == natural_repeats(train.astype(np.uint32), test.astype(np.uint32), window, ngram, most)
    assert all(0 <= statistics[share] <= 1 for share in SHARES)


@given(texts(), st.integers(1, 130), st.integers(1, 130), st.integers(1, 100))
def test_a_sample_does_not_depend_on_the_chunks(
    train: npt.NDArray[np.uint16], chunk: int, other_chunk: int, most: int
) -> None:
    first, second = (natural_repeats(train, train[20:], 3, 2, most, size) for size in (chunk, other_chunk))
    assert first == second


def test_tokens_that_differ_only_above_16_bits_are_different() -> None:
    train = np.arange(2**18, 2**18 + 5000, dtype=np.uint32)
    statistics = natural_repeats(train, (train % 2**16).astype(np.uint32))
    assert [statistics[share] for share in SHARES] == [0, 0, 0]


@pytest.mark.parametrize("size", [0, 1, 12, 13, 49, 50, 51])
def test_texts_slightly_shorter_and_longer_than_a_window(size: int) -> None:
    text = np.arange(size, dtype=np.uint16)
    statistics = natural_repeats(text, text)
    assert (statistics["train_windows"], statistics["test_windows"]) == (max(0, size - 49), max(0, size - 49))
    assert statistics["test_ngrams"] == max(0, size - 12)
    assert [statistics[share] for share in SHARES] == [0, float(size >= 13), float(size >= 50)]


def planted() -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16], int]:
    """Training text, test text, and the number of repeated windows.

    The training text is 300,000 random tokens, and its last 60,000 repeat its first. A quarter of the test text occurs in it."""
    tokens = np.random.default_rng(1).integers(0, 60_000, 440_000, dtype=np.uint16)
    train = np.concatenate([tokens[:240_000], tokens[:60_000]])
    return train, np.concatenate([tokens[100_000:140_000], tokens[240_000:360_000]]), 2 * (60_000 - 49)


def test_planted_repeats_are_counted_exactly_and_estimated_closely_from_a_sample() -> None:
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


def test_the_sampled_share_is_unbiased_even_if_four_windows_fill_half_of_the_text() -> None:
    rng = np.random.default_rng(2)
    text = np.concatenate([rng.integers(0, 60_000, 20_000), np.repeat(rng.integers(0, 60_000, 4), 5_000)])
    truth = natural_repeats(text.astype(np.uint16), text[:0].astype(np.uint16))["repeated_window_share"]
    most, estimates = 2_000, []
    for _ in range(60):  # renaming the tokens leads to another sample of the same text
        renamed = rng.permutation(2**16)[text].astype(np.uint16)
        estimates.append(natural_repeats(renamed, renamed[:0], most_windows=most)["repeated_window_share"])
    assert np.std(estimates) < 1 / most**0.5
    assert abs(np.mean(estimates) - truth) < 4 * np.std(estimates) / 60**0.5


def test_text_of_one_repeated_window_is_fully_repeated_in_any_sample() -> None:
    for token in range(64):  # a tenth of the windows is sampled, so the window is in the sample for some tokens
        text = np.full(2_000, token, np.uint16)
        statistics = natural_repeats(text, text, most_windows=195, chunk_tokens=100)
        assert statistics["repeated_window_share"] == 1


@pytest.mark.parametrize("most_windows", [10_000, 20_000_000])
def test_test_text_equal_to_training_text_overlaps_completely(most_windows: int) -> None:
    train = planted()[0]
    statistics = natural_repeats(train, train.copy(), most_windows=most_windows)
    assert statistics["test_overlap_share"] == statistics["test_window_overlap_share"] == 1.0


def test_shuffled_pieces_of_text_overlap_only_in_windows_that_fit_in_a_piece() -> None:
    pieces = np.arange(6_000, dtype=np.uint16).reshape(-1, 30)
    train = pieces[np.random.default_rng(0).permutation(len(pieces))].ravel()
    statistics = natural_repeats(train, pieces.ravel(), window=31, ngram=13)
    joined = sum(int(left) + 1 == int(right) for left, right in zip(train[29:-1:30], train[30::30], strict=True))
    assert statistics["test_window_overlap_share"] == 30 * joined / (6_000 - 30)
    assert statistics["test_ngrams_in_train"] == 200 * 18 + 12 * joined


def test_wrong_shapes_types_and_sizes_are_refused() -> None:
    tokens = np.zeros(9, np.uint16)
    with pytest.raises(ValueError, match=r"test: expected unsigned tokens.*int64\[9\]"):
        natural_repeats(tokens, tokens.astype(np.int64))
    with pytest.raises(ValueError, match=r"train: .*uint16\[3, 3\]"):
        natural_repeats(tokens.reshape(3, 3), tokens)
    with pytest.raises(ValueError, match="1 or more"):
        natural_repeats(tokens, tokens, window=0)


@given(texts(), sizes, st.integers(1, 130))
def test_a_census_counts_every_window_by_its_copies(
    tokens: npt.NDArray[np.uint16], window: int, chunk_tokens: int
) -> None:
    copies = Counter(Counter(windows_of(tokens, window)).values())
    assert duplicate_census(tokens, window, chunk_tokens=chunk_tokens) == dict(sorted(copies.items()))
