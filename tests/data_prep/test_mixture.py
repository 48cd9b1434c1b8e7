from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from data_prep.errors import InputError
from data_prep.mixture import FRACTION_TOLERANCE, RepeatMixture, Spacing, Stream, pool_size


@st.composite
def mixtures(draw: st.DrawFn, spacings: tuple[Spacing, ...] = tuple(Spacing)) -> RepeatMixture:
    positions = draw(st.integers(1, 1500))
    pool = draw(st.integers(0, positions))
    repeats = draw(st.integers(1, positions // pool)) if pool else 1
    spacing = draw(st.sampled_from(spacings))
    distance = draw(st.integers(1, max(1, pool))) if spacing is Spacing.BURSTS else 0
    return RepeatMixture(positions, pool, repeats, draw(st.integers(0, 2**31)), spacing, distance)


@given(mixtures())
def test_every_pool_sequence_is_seen_exactly_R_times_and_every_unique_sequence_once(mixture: RepeatMixture) -> None:
    sequences = mixture.at(np.arange(mixture.positions))
    in_pool = sequences.stream == Stream.POOL
    slots = Counter(zip(sequences.place[in_pool].tolist(), sequences.copy[in_pool].tolist(), strict=True))
    assert slots == Counter((slot, copy) for slot in range(mixture.pool) for copy in range(mixture.repeats))
    assert sequences.place[~in_pool].tolist() == list(range(mixture.unique_positions)), (
        "the unique stream is read in order"
    )
    assert (sequences.copy[~in_pool] == -1).all()


@given(mixtures())
def test_the_first_n_positions_contain_floor_of_n_times_f_pool_sequences(
    mixture: RepeatMixture,
) -> None:
    stream = mixture.at(np.arange(mixture.positions)).stream
    share = [int(mixture.exact_fraction * n) for n in range(1, mixture.positions + 1)]
    assert np.cumsum(stream).tolist() == share


@given(mixtures(), st.data())
def test_the_sequence_at_a_position_does_not_depend_on_earlier_reads(
    mixture: RepeatMixture, data: st.DataObject
) -> None:
    sequences = mixture.at(np.arange(mixture.positions))
    start = data.draw(st.integers(0, mixture.positions - 1))
    tail = mixture.at(np.arange(start, mixture.positions))
    assert all((expected[start:] == values).all() for expected, values in zip(sequences, tail, strict=True))


@given(mixtures(), st.data())
def test_occurrences_are_the_positions_of_the_slot(mixture: RepeatMixture, data: st.DataObject) -> None:
    assume(mixture.pool)
    slot = data.draw(st.integers(0, mixture.pool - 1))
    sequences = mixture.at(np.arange(mixture.positions))
    expected = np.flatnonzero((sequences.stream == Stream.POOL) & (sequences.place == slot))
    assert mixture.occurrences(slot).tolist() == expected.tolist()


@given(mixtures())
def test_unique_position_is_the_position_of_the_unique_sequence(mixture: RepeatMixture) -> None:
    expected = np.flatnonzero(mixture.at(np.arange(mixture.positions)).stream == Stream.UNIQUE)
    assert [mixture.unique_position(place) for place in range(mixture.unique_positions)] == expected.tolist()


@given(mixtures(spacings=(Spacing.PASSES,)))
def test_a_pass_goes_through_the_whole_pool_before_any_sequence_repeats(mixture: RepeatMixture) -> None:
    assume(mixture.pool)
    sequences = mixture.at(np.arange(mixture.positions))
    passes = sequences.place[sequences.stream == Stream.POOL].reshape(mixture.repeats, mixture.pool)
    assert (np.sort(passes, axis=1) == np.arange(mixture.pool)).all()


def test_each_pass_has_its_own_order() -> None:
    mixture = RepeatMixture(1000, 100, 9, seed=0)
    sequences = mixture.at(np.arange(1000))
    passes = sequences.place[sequences.stream == Stream.POOL].reshape(9, 100)
    assert len({tuple(order) for order in passes.tolist()}) == 9


@given(mixtures(spacings=(Spacing.BURSTS,)))
def test_copies_in_a_burst_are_the_given_number_of_pool_positions_apart(mixture: RepeatMixture) -> None:
    assume(mixture.pool and mixture.repeats > 1)
    sequences = mixture.at(np.arange(mixture.positions))
    slots = sequences.place[sequences.stream == Stream.POOL]
    last_group = mixture.pool % mixture.burst_distance or mixture.burst_distance
    gaps = Counter(gap for slot in range(mixture.pool) for gap in np.diff(np.flatnonzero(slots == slot)).tolist())
    assert set(gaps) <= {min(mixture.burst_distance, mixture.pool), last_group}
    assert gaps[last_group] >= (mixture.repeats - 1) * min(last_group, mixture.pool)


def test_uniform_spacing_has_the_gaps_of_a_uniform_shuffle() -> None:
    mixture = RepeatMixture(40_000, 200, 100, seed=1, spacing=Spacing.UNIFORM)
    sequences = mixture.at(np.arange(mixture.positions))
    slots = sequences.place[sequences.stream == Stream.POOL]
    gaps = np.concatenate([np.diff(np.flatnonzero(slots == slot)) for slot in range(200)])
    # R copies among R·P positions: gaps are nearly geometric, with mean and standard deviation P. In passes no gap exceeds 2P.
    assert abs(gaps.mean() / 200 - 1) < 0.05 and abs(gaps.std() / 200 - 1) < 0.05
    assert gaps.max() > 5 * 200


def test_arms_with_different_spacings_share_the_unique_stream() -> None:
    arms = [RepeatMixture(1000, 9, 100, 3, spacing, distance) for spacing, distance in
            ((Spacing.PASSES, 0), (Spacing.UNIFORM, 0), (Spacing.BURSTS, 4))]  # fmt: skip
    passes, *others = [arm.at(np.arange(1000)) for arm in arms]
    for other in others:
        assert (other.stream == passes.stream).all()
        assert (other.place[other.stream == 0] == passes.place[passes.stream == 0]).all()
        assert (other.place != passes.place).any()


@pytest.mark.parametrize("context", [128, 8192])
@pytest.mark.parametrize("pool_tokens", [10**5, 10**7, 10**10])
@pytest.mark.parametrize("spacing", [Spacing.PASSES, Spacing.UNIFORM])
def test_a_run_of_a_hundred_billion_tokens_needs_no_index(context: int, pool_tokens: int, spacing: Spacing) -> None:
    positions = 10**11 // context
    pool = pool_tokens // context
    mixture = RepeatMixture(positions, pool, positions * 9 // 10 // pool, seed=0, spacing=spacing)
    sequences = mixture.at([0, positions // 2, positions - 1])
    assert (sequences.place >= 0).all() and (sequences.place[sequences.stream == Stream.POOL] < pool).all()
    slot = pool - 1
    occurrences = mixture.occurrences(slot)
    assert len(occurrences) == mixture.repeats and (mixture.at(occurrences).place == slot).all()


@given(st.integers(10, 10**6), st.floats(0.01, 1.0), st.integers(2, 1000))
def test_rounding_the_pool_keeps_the_repeated_fraction_within_tolerance_or_is_refused(
    positions: int, fraction: float, repeats: int
) -> None:
    try:
        pool = pool_size(positions, fraction, repeats)
    except InputError:
        return
    assert pool >= 1 and pool * repeats <= positions
    assert abs(pool * repeats / positions / fraction - 1) <= FRACTION_TOLERANCE + 1e-9


def test_a_fraction_that_needs_no_rounding_stays_exact() -> None:
    assert pool_size(12_000, 0.9, 30) == 360
    assert RepeatMixture(12_000, 360, 30, seed=0).exact_fraction == Fraction(9, 10)


def test_impossible_mixtures_are_refused() -> None:
    with pytest.raises(InputError, match="less than one"):
        pool_size(1000, 0.1, 500)
    with pytest.raises(InputError, match="off by more than"):
        pool_size(1000, 0.3, 200)
    with pytest.raises(InputError, match="burst_distance: 0 with spacing bursts; expected 1 or more"):
        RepeatMixture(100, 5, 10, seed=0, spacing=Spacing.BURSTS)
    with pytest.raises(InputError, match="burst_distance: 6 is larger than the pool, which contains 5 sequences"):
        RepeatMixture(100, 5, 10, seed=0, spacing=Spacing.BURSTS, burst_distance=6)
    with pytest.raises(InputError, match="burst_distance: 3 with spacing passes"):
        RepeatMixture(100, 5, 10, seed=0, burst_distance=3)
    with pytest.raises(ValueError):
        RepeatMixture(100, 20, 10, seed=0)
