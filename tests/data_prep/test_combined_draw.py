"""Draws from several stores, in which every training token has its own id, so tokens can be counted."""

from collections import Counter
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.combined_draw import CombinedDraw
from data_prep.draw import Draw, Unit
from data_prep.errors import InputError
from data_prep.mixture import RepeatMixture, Spacing, Stream
from data_prep.shares import ShareOrder
from data_prep.token_store import TokenStore
from repeat_study.training.dataset import MixtureDataset
from tests.data_prep.test_draw import CONTEXT, count, write_store

NAMES = ("web", "code", "books")
PER_STEP = 12


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[TokenStore]:
    """Three sources and the source of a pool, which share no tokens."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("stores")
    return [
        write_store(folder / name, rng.integers(1, 60, documents).tolist(), 1 + 1_000_000 * number)
        for number, (name, documents) in enumerate(zip((*NAMES, "pool"), (400, 300, 250, 60), strict=True))
    ]


scenarios = st.fixed_dictionaries(
    {
        "weights": st.lists(st.integers(1, 5), min_size=1, max_size=3),
        "pool_from": st.sampled_from(["own store", "a source", "all sources"]),
        "unit": st.sampled_from(Unit),
        "spacing": st.sampled_from(Spacing),
        "repeats": st.integers(1, 20),
        "pool": st.integers(1, 30),
        "steps": st.integers(1, 40),
        "seed": st.integers(0, 2**31),
        "pool_seed": st.integers(0, 5),
    }
)


def draw_of(stores: list[TokenStore], scenario: dict[str, Any]) -> CombinedDraw:
    weights, seeds = scenario["weights"], (scenario["seed"], scenario["pool_seed"])
    order = ShareOrder(tuple(Fraction(weight, sum(weights)) for weight in weights))
    own = scenario["pool_from"] == "own store"
    unit = Unit.SEQUENCE if own else scenario["unit"]
    positions = order.counts(scenario["steps"] * PER_STEP).tolist()
    draws = tuple(Draw(store, CONTEXT, n, unit, *seeds) for store, n in zip(stores, positions, strict=False))
    named = Draw(stores[-1], CONTEXT, 0, scenario["unit"], *seeds) if own else None
    if scenario["pool_from"] == "a source":
        named = draws[-1]
    return CombinedDraw(draws, NAMES[: len(draws)], order, named)


def arm_of(stores: list[TokenStore], scenario: dict[str, Any]) -> tuple[RepeatMixture, CombinedDraw]:
    positions = scenario["steps"] * PER_STEP
    pool = min(scenario["pool"], positions // scenario["repeats"])
    spacing, distance = scenario["spacing"], 0
    if spacing is Spacing.BURSTS:
        spacing, distance = (spacing, min(3, pool)) if pool else (Spacing.PASSES, 0)
    mixture = RepeatMixture(positions, pool, scenario["repeats"], scenario["seed"], spacing, distance)
    draw = draw_of(stores, scenario)
    draw.require(mixture.pool, mixture.unique_positions)
    return mixture, draw


@settings(max_examples=70)
@given(scenarios, st.sampled_from([1, 2, 3, 6]), st.data())
def test_every_pool_token_is_seen_R_times_and_every_unique_token_once_on_any_ranks_from_any_step(
    stores: list[TokenStore], scenario: dict[str, Any], world: int, data: st.DataObject
) -> None:
    mixture, draw = arm_of(stores, scenario)
    ranks = [MixtureDataset([(mixture, draw)], PER_STEP, rank, world) for rank in range(world)]
    steps = [np.concatenate([rank[step][0].numpy() for rank in ranks]) for step in range(scenario["steps"])]
    pool = count(draw.pool_tokens(np.arange(mixture.pool)))
    unique = count(draw.unique_tokens(np.arange(mixture.unique_positions)))
    assert set(pool.values()) <= {1} and set(unique.values()) <= {1} and not pool.keys() & unique.keys()
    assert count(np.stack(steps)) == Counter({token: mixture.repeats for token in pool}) + unique
    if scenario["pool_from"] == "own store":
        assert not pool or min(pool) > 3_000_000, "the pool consists of text from its own store"
    resumed = MixtureDataset([(mixture, draw)], PER_STEP)
    first = data.draw(st.integers(0, scenario["steps"] - 1))
    in_order = np.concatenate([resumed[step][0].numpy() for step in range(first, scenario["steps"])])
    assert count(in_order) == count(np.stack(steps[first:]))
    order = draw.order.at(np.arange(mixture.unique_positions))[0]
    words = draw.unique_tokens(np.arange(mixture.unique_positions))
    sources = np.where(words[:, 0] > 0, words[:, 0], words[:, 1]) // 1_000_000
    assert (sources == order).all(), "the text at every place comes from the source that the order assigns to it"


@given(scenarios, st.integers(1, 20), st.integers(1, 30))
def test_arms_share_the_unique_stream_and_their_pools_are_nested(
    stores: list[TokenStore], scenario: dict[str, Any], repeats: int, pool: int
) -> None:
    mixture, draw = arm_of(stores, scenario)
    other_mixture, other_draw = arm_of(stores, scenario | {"repeats": repeats, "pool": pool})
    places = np.arange(min(mixture.unique_positions, other_mixture.unique_positions))
    assert (draw.unique_tokens(places) == other_draw.unique_tokens(places)).all()
    slots = np.arange(min(mixture.pool, other_mixture.pool))
    assert (draw.pool_tokens(slots) == other_draw.pool_tokens(slots)).all()
    if scenario["pool_from"] == "own store":
        longer = draw_of(stores, scenario | {"steps": scenario["steps"] + 3, "unit": Unit.DOCUMENT})
        assert (longer.unique_tokens(places) == draw.unique_tokens(places)).all(), "also in a run of a different length"


@given(scenarios)
def test_a_single_source_without_a_named_pool_is_drawn_as_before(stores: list[TokenStore], scenario: dict) -> None:
    scenario = scenario | {"weights": [1], "pool_from": "a source"}
    mixture, draw = arm_of(stores, scenario)
    before = Draw(stores[0], CONTEXT, mixture.positions, scenario["unit"], scenario["seed"], scenario["pool_seed"])
    for positions in (np.arange(mixture.positions), np.arange(mixture.positions).reshape(-1, PER_STEP)):
        assert (draw.tokens(mixture.at(positions)) == before.tokens(mixture.at(positions))).all()
    named = replace(draw, named=Draw(stores[-1], CONTEXT, 0, Unit.SEQUENCE, scenario["seed"]))
    places = np.arange(mixture.unique_positions)
    if scenario["unit"] is Unit.SEQUENCE:
        assert (named.unique_tokens(places) == before.unique_tokens(places)).all(), "the unique stream does not change"


@given(scenarios)
def test_the_source_of_a_sequence_contains_its_tokens(stores: list[TokenStore], scenario: dict[str, Any]) -> None:
    mixture, draw = arm_of(stores, scenario)
    for stream, places in ((Stream.UNIQUE, mixture.unique_positions), (Stream.POOL, mixture.pool)):
        for place in range(min(places, 5)):
            store, indices = draw.source(stream, place)
            tokens = draw.pool_tokens(place) if stream is Stream.POOL else draw.unique_tokens(place)
            assert (store.train[indices] == tokens).all()


def test_a_pool_of_documents_from_its_own_store_can_use_all_documents(stores: list[TokenStore]) -> None:
    scenario = {"weights": [1], "pool_from": "own store", "unit": Unit.DOCUMENT, "seed": 0, "pool_seed": 0, "steps": 1}
    draw = draw_of(stores, scenario)
    tokens = count(draw.pool_tokens(np.arange(draw.pool_capacity)))
    assert draw.pool_capacity == stores[-1].sequences_in("train", CONTEXT)
    assert len(tokens) > np.count_nonzero(stores[-1].train) - CONTEXT - 1 and set(tokens.values()) == {1}


def test_sources_that_are_too_small_are_refused(stores: list[TokenStore]) -> None:
    scenario = {
        "weights": [1, 1, 2],
        "pool_from": "own store",
        "unit": Unit.SEQUENCE,
        "seed": 0,
        "pool_seed": 0,
        "steps": 1,
    }
    draw, sizes = draw_of(stores, scenario), [store.sequences_in("train", CONTEXT) for store in stores]
    draw.require(sizes[3], 2 * sizes[2])
    with pytest.raises(
        InputError, match=rf"the run needs {sizes[2] + 1} .* from the source 'books', but .* has {sizes[2]};"
    ):
        draw.require(1, 2 * sizes[2] + 2)
    with pytest.raises(
        InputError, match=rf"pool of {sizes[3] + 1} sequences .* is larger than its source, which has {sizes[3]} "
    ):
        draw.require(sizes[3] + 1, 1)
    mixed = draw_of(stores, scenario | {"pool_from": "all sources", "steps": 20})
    mixed.require(mixed.pool_capacity, 240)
    mixed.pool_tokens(np.arange(mixed.pool_capacity))
    with pytest.raises(InputError, match=r"the run needs \d+ unique sequences and \d+ for the pool from the source"):
        mixed.require(mixed.pool_capacity + 1, 240)
