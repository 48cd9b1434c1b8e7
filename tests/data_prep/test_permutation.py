import time
from collections import Counter
from math import factorial

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from data_prep.permutation import permute, stream_key


@given(n=st.integers(1, 3000), key=st.integers(0, 2**64 - 1), stream=st.integers(0, 2**40))
def test_every_place_is_used_exactly_once(n: int, key: int, stream: int) -> None:
    assert sorted(permute(np.arange(n), n, key, stream)) == list(range(n))


@given(n=st.integers(1, 500), key=st.integers(0, 2**64 - 1), passes=st.integers(1, 5))
def test_permuting_several_streams_in_one_call_equals_separate_calls(n: int, key: int, passes: int) -> None:
    in_one_call = permute(np.arange(n)[None], n, key, np.arange(passes)[:, None])
    separately = np.stack([permute(np.arange(n), n, key, number) for number in range(passes)])
    assert (in_one_call == separately).all()


def test_all_orders_of_four_are_equally_likely() -> None:
    samples = 24_000
    orders = permute(np.arange(4)[None], 4, stream_key("test"), np.arange(samples)[:, None])
    counts = Counter(map(tuple, orders.tolist()))
    assert len(counts) == factorial(4)
    assert chisquare(list(counts.values())).pvalue > 1e-4


def test_neighboring_indices_are_mapped_to_unrelated_places() -> None:
    n = 10_007
    steps = np.diff(permute(np.arange(n), n, stream_key("test", 1)))
    # Under a uniform permutation |step| has mean n/3 and is 1 about twice.
    assert abs(np.abs(steps).mean() / (n / 3) - 1) < 0.03
    assert (np.abs(steps) == 1).sum() < 12


def test_permuting_ten_thousand_of_ten_billion_indices_takes_seconds() -> None:
    n = 10**10
    index = np.arange(n - 10_000, n)
    start = time.perf_counter()
    places = permute(index, n, 7)
    assert time.perf_counter() - start < 60  # an array of n entries would need minutes and 80 GB
    assert len(set(places.tolist())) == 10_000
    assert places.min() >= 0 and places.max() < n


def test_keys_depend_on_every_part() -> None:
    keys = {stream_key("pool", 0), stream_key("pool", 1), stream_key("pass", 0), stream_key("pool", 0, 0)}
    assert len(keys) == 4
