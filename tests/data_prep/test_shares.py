"""The order of a mixture of sources: shares in every prefix, and lookups in both directions."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.errors import InputError
from data_prep.shares import ShareOrder, exact_shares

orders = st.lists(st.integers(1, 40), min_size=1, max_size=6).map(
    lambda weights: ShareOrder(tuple(Fraction(weight, sum(weights)) for weight in weights))
)


@given(orders)
def test_every_prefix_is_within_one_sequence_of_the_shares(order: ShareOrder) -> None:
    source, _ = order.at(np.arange(2 * order.period + 3))
    for number, share in enumerate(order.shares):
        counts = np.cumsum(source == number)
        lengths = np.arange(1, len(source) + 1)
        assert (np.abs(counts * order.period - lengths * int(share * order.period)) < order.period).all()


@given(orders, st.integers(0, 10**9))
def test_lookups_in_both_directions_agree(order: ShareOrder, start: int) -> None:
    positions = start + np.arange(50)
    source, index = order.at(positions)
    assert [order.position(*pair) for pair in zip(source.tolist(), index.tolist(), strict=True)] == positions.tolist()
    counts = order.counts(start + 50) - order.counts(start)
    assert (counts == np.bincount(source, minlength=len(order.shares))).all()
    assert (index == order.counts(start)[source] + [np.sum(source[:n] == source[n]) for n in range(50)]).all()


def test_shares_are_read_as_exact_decimals() -> None:
    order = ShareOrder(exact_shares([0.1, 0.2, 0.7]))
    assert order.period == 10 and order.counts(10**12).tolist() == [10**11, 2 * 10**11, 7 * 10**11]


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ([0.7, 0.2], r"the shares add up to 0.7 \+ 0.2 = 0.9; expected exactly 1"),
        ([0.333333, 0.333333, 0.333333], "= 0.999999; expected exactly 1"),
        ([0.1234567, 0.8765433], "common denominator of the shares is 10,000,000; expected at most 1,000,000"),
    ],
)
def test_shares_that_cannot_be_exact_are_refused(shares: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ShareOrder(exact_shares(shares))
