from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from data_prep.errors import InputError
from data_prep.mixture import FRACTION_TOLERANCE, RepeatMixture, Stream, pool_size


@st.composite
def mixtures(draw: st.DrawFn) -> RepeatMixture:
    positions = draw(st.integers(1, 1500))
    pool = draw(st.integers(0, positions))
    repeats = draw(st.integers(1, positions // pool)) if pool else 1
    spare = draw(st.integers(0, 500))
    return RepeatMixture(positions, pool, repeats, positions + pool + spare, draw(st.integers(0, 2**31)))


@given(mixtures())
def test_every_pool_sequence_is_seen_exactly_R_times_and_every_unique_one_once(mixture: RepeatMixture) -> None:
    found = mixture.at(np.arange(mixture.positions))
    pool = Counter(found.sequence[found.stream == Stream.POOL].tolist())
    unique = Counter(found.sequence[found.stream == Stream.UNIQUE].tolist())
    assert set(pool.values()) <= {mixture.repeats} and len(pool) == mixture.pool
    assert set(unique.values()) <= {1} and len(unique) == mixture.unique_positions
    assert not pool.keys() & unique.keys()


@given(mixtures())
def test_every_pass_shows_the_whole_pool_before_the_next_begins(mixture: RepeatMixture) -> None:
    assume(mixture.pool)
    found = mixture.at(np.arange(mixture.positions))
    passes = found.sequence[found.stream == Stream.POOL].reshape(mixture.repeats, mixture.pool)
    expected = sorted(mixture.pool_sequence(np.arange(mixture.pool)))
    assert all(sorted(one) == expected for one in passes)
    numbers = found.pass_number[found.stream == Stream.POOL]
    assert (numbers == np.repeat(np.arange(mixture.repeats), mixture.pool)).all()
    assert (found.pass_number[found.stream == Stream.UNIQUE] == -1).all()


@given(mixtures())
def test_every_prefix_holds_its_share_of_the_pool_to_within_one_sequence(mixture: RepeatMixture) -> None:
    stream = mixture.at(np.arange(mixture.positions)).stream
    share = [int(mixture.exact_fraction * n) for n in range(1, mixture.positions + 1)]
    assert (np.abs(np.cumsum(stream) - share) <= 1).all()


@given(mixtures(), st.data())
def test_any_position_alone_equals_the_whole_order(mixture: RepeatMixture, data: st.DataObject) -> None:
    whole = mixture.at(np.arange(mixture.positions))
    start = data.draw(st.integers(0, mixture.positions - 1))
    tail = mixture.at(np.arange(start, mixture.positions))
    assert all((part[start:] == other).all() for part, other in zip(whole, tail, strict=True))


def test_arms_share_the_unique_stream_and_their_pools_are_nested() -> None:
    arms = {repeats: RepeatMixture(1000, 900 // repeats, repeats, 3000, seed=3) for repeats in (2, 10, 50, 300)}
    clean = RepeatMixture(1000, 0, 1, 3000, seed=3)
    clean_order = clean.at(np.arange(1000)).sequence
    previous: list[int] | None = None
    for mixture in arms.values():
        found = mixture.at(np.arange(1000))
        unique = found.sequence[found.stream == Stream.UNIQUE]
        assert (unique == clean_order[: len(unique)]).all()
        pool = mixture.pool_sequence(np.arange(mixture.pool)).tolist()
        assert previous is None or previous[: len(pool)] == pool
        assert not set(pool) & set(clean_order.tolist()), "the clean control must never meet the pool"
        previous = pool


def test_passes_come_in_different_orders() -> None:
    mixture = RepeatMixture(1000, 100, 9, 2000, seed=0)
    found = mixture.at(np.arange(1000))
    passes = found.sequence[found.stream == Stream.POOL].reshape(9, 100)
    assert len({tuple(one) for one in passes.tolist()}) == 9


def test_seeds_give_other_pools_and_other_streams() -> None:
    one, other = (RepeatMixture(1000, 50, 10, 5000, seed) for seed in (0, 1))
    assert set(one.pool_sequence(np.arange(50)).tolist()) != set(other.pool_sequence(np.arange(50)).tolist())
    assert (one.unique_sequence(np.arange(500)) != other.unique_sequence(np.arange(500))).any()


def test_a_run_of_a_hundred_billion_tokens_needs_no_index() -> None:
    positions = 10**11 // 128
    repeats = 1000
    mixture = RepeatMixture(positions, pool_size(positions, 0.9, repeats), repeats, 3 * positions, seed=0)
    last = mixture.at([0, positions // 2, positions - 1])
    assert last.pass_number[-1] == repeats - 1
    assert abs(mixture.exact_fraction - Fraction(9, 10)) < 1e-5


@given(st.integers(10, 10**6), st.floats(0.01, 1.0), st.integers(2, 1000))
def test_the_pool_keeps_the_fraction_or_is_refused(positions: int, fraction: float, repeats: int) -> None:
    try:
        pool = pool_size(positions, fraction, repeats)
    except InputError:
        return
    assert pool >= 1 and pool * repeats <= positions
    assert abs(pool * repeats / positions / fraction - 1) <= FRACTION_TOLERANCE + 1e-9


def test_impossible_mixtures_are_refused() -> None:
    with pytest.raises(InputError, match="less than one"):
        pool_size(1000, 0.1, 500)
    with pytest.raises(InputError, match="off by more than"):
        pool_size(1000, 0.3, 200)
    with pytest.raises(InputError, match="the corpus has 1000"):
        RepeatMixture(1000, 10, 10, 1000, seed=0)
    with pytest.raises(ValueError):
        RepeatMixture(100, 20, 10, 1000, seed=0)


def test_a_shorter_corpus_for_the_same_run_is_named() -> None:
    with pytest.raises(InputError, match=r"needs 1010 sequences.*the corpus has 1009"):
        RepeatMixture(1000, 10, 10, 1009, seed=0)
    RepeatMixture(1000, 10, 10, 1010, seed=0)
