"""The draw over stores in which every token of the training split is another number, so that text can be counted."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from data_prep.draw import Draw, Unit
from data_prep.errors import InputError
from data_prep.mixture import RepeatMixture, Spacing, Stream
from data_prep.token_store import SplitWriter, TokenStore, write_manifest
from data_prep.tokenizer import word_tokenizer
from repeat_study.training.dataset import MixtureDataset, RemainingSteps

CONTEXT = 7


def write_store(folder: Path, lengths: list[int]) -> TokenStore:
    """A store whose training documents have these lengths (before their end of text) and no token in common."""
    folder.mkdir(parents=True, exist_ok=True)
    word_tokenizer(["a"]).save(str(folder / "tokenizer.json"))
    counts = {}
    for split, first in (("train", 1), ("test", 10_000_000)):
        writer = SplitWriter(folder, split, np.uint32, end_of_text=0)  # type: ignore[arg-type]
        tokens = np.arange(first, first + sum(lengths), dtype=np.uint32)
        writer.append([f"document {n}" for n in range(len(lengths))], tokens, np.array(lengths), 0)
        counts[split] = writer.close()
    assert counts["train"]["documents"] == len(lengths)
    write_manifest(folder, {"splits": counts, "vocabulary": 2**31, "end_of_text": 0, "dtype": "uint32"})
    return TokenStore(folder)


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    dice = np.random.default_rng(0)
    return write_store(tmp_path_factory.mktemp("numbered"), dice.integers(1, 60, 600).tolist())


arms = st.fixed_dictionaries(
    {
        "unit": st.sampled_from(Unit),
        "spacing": st.sampled_from(Spacing),
        "repeats": st.integers(2, 40),
        "positions": st.integers(400, 800),
        "fraction": st.floats(0.05, 1.0),
        "seed": st.integers(0, 2**31),
        "pool_seed": st.integers(0, 5),
    }
)


def arm_of(store: TokenStore, arm: dict) -> tuple[RepeatMixture, Draw]:
    pool = max(1, int(arm["fraction"] * arm["positions"] / arm["repeats"]))
    distance = min(3, pool) if arm["spacing"] is Spacing.BURSTS else 0
    mixture = RepeatMixture(arm["positions"], pool, arm["repeats"], arm["seed"], arm["spacing"], distance)
    draw = Draw(store, CONTEXT, arm["positions"], arm["unit"], arm["seed"], arm["pool_seed"])
    draw.require(pool)
    return mixture, draw


def count(tokens: np.ndarray) -> Counter[int]:
    found = Counter(tokens.ravel().tolist())
    del found[0]  # the end of text
    return found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arms)
def test_every_token_of_the_pool_is_seen_R_times_every_other_once_and_test_text_never(
    numbered: TokenStore, arm: dict
) -> None:
    mixture, draw = arm_of(numbered, arm)
    tokens = draw.tokens(mixture.at(np.arange(mixture.positions)))
    assert tokens.shape == (mixture.positions, CONTEXT + 1)
    pool = count(draw.pool_tokens(np.arange(mixture.pool)))
    unique = count(draw.unique_tokens(np.arange(mixture.unique_positions)))
    assert set(pool.values()) <= {1} and set(unique.values()) <= {1} and not pool.keys() & unique.keys()
    expected = Counter({token: mixture.repeats for token in pool}) + unique
    assert count(tokens) == expected
    assert max(expected) < 10_000_000


@given(arms, st.integers(2, 10))
def test_pools_are_nested_and_the_unique_stream_is_shared(numbered: TokenStore, arm: dict, factor: int) -> None:
    mixture, draw = arm_of(numbered, arm)
    more, same = arm_of(numbered, arm | {"repeats": arm["repeats"] * factor})
    pool = draw.pool_tokens(np.arange(mixture.pool))
    assert (same.pool_tokens(np.arange(more.pool)) == pool[: more.pool]).all()
    places = np.arange(arm["positions"])
    assert (draw.unique_tokens(places) == same.unique_tokens(places)).all()
    other = Draw(numbered, CONTEXT, arm["positions"], arm["unit"], arm["seed"], arm["pool_seed"] + 1)
    assert (draw.unique_tokens(places) == other.unique_tokens(places)).all(), "another pool beside the same stream"


@given(arms)
def test_the_clean_run_never_meets_any_pool(numbered: TokenStore, arm: dict) -> None:
    _, draw = arm_of(numbered, arm)
    clean = count(draw.unique_tokens(np.arange(arm["positions"])))
    zone = count(draw.pool_tokens(np.arange(draw.pool_capacity)))
    assert not clean.keys() & zone.keys() and set(zone.values()) <= {1}


@pytest.mark.parametrize("unit", Unit)
def test_seeds_draw_other_text(numbered: TokenStore, unit: Unit) -> None:
    base, other, pool = (Draw(numbered, CONTEXT, 300, unit, *seeds) for seeds in ((0, 0), (1, 0), (0, 1)))
    slots, places = np.arange(20), np.arange(100)
    assert (base.pool_tokens(slots) != other.pool_tokens(slots)).any()
    assert (base.pool_tokens(slots) != pool.pool_tokens(slots)).any()
    assert (base.unique_tokens(places) != other.unique_tokens(places)).any()


def test_a_pool_of_documents_holds_each_from_its_start_to_its_end(numbered: TokenStore) -> None:
    draw = Draw(numbered, CONTEXT, 300, Unit.DOCUMENT, seed=0)
    packed = draw.pool_tokens(np.arange(200)).ravel()
    documents = np.split(packed, np.flatnonzero(packed == 0) + 1)[:-1]  # the last one is cut
    offsets = numbered.offsets("train")
    whole = {tuple(numbered.train[start:end].tolist()) for start, end in pairwise(offsets)}
    assert len(documents) > 20
    assert all(tuple(document.tolist()) in whole for document in documents)


def test_a_pool_of_documents_costs_memory_for_its_own_documents_only(numbered: TokenStore) -> None:
    draw = Draw(numbered, CONTEXT, 300, Unit.DOCUMENT, seed=0)
    first = draw.pool_tokens(np.arange(3))
    packed = draw._packed(3)
    assert len(packed.documents) < 30
    draw.pool_tokens(np.arange(300))
    assert (draw.pool_tokens(np.arange(3)) == first).all(), "a larger pool moves nothing"


@pytest.mark.parametrize("unit", Unit)
def test_a_corpus_that_is_too_small_is_named(numbered: TokenStore, unit: Unit) -> None:
    sequences = numbered.sequences_in("train", CONTEXT)
    with pytest.raises(InputError, match=rf"the run needs {sequences + 1} sequences .*the corpus has {sequences}"):
        Draw(numbered, CONTEXT, sequences, unit, seed=0).require(1)
    fits = Draw(numbered, CONTEXT, sequences // 2, unit, seed=0)
    fits.require(fits.pool_capacity)
    fits.pool_tokens(fits.pool_capacity - 1)
    with pytest.raises(InputError, match="ask for fewer tokens or give more text"):
        fits.require(fits.pool_capacity + 1)


def test_indices_say_where_the_tokens_stand(numbered: TokenStore) -> None:
    for unit in Unit:
        draw = Draw(numbered, CONTEXT, 300, unit, seed=0)
        for place in (0, 7, 99):
            assert (numbered.train[draw.indices(Stream.POOL, place)] == draw.pool_tokens(place)).all()
            assert (numbered.train[draw.indices(Stream.UNIQUE, place)] == draw.unique_tokens(place)).all()


@given(arms, st.sampled_from([1, 2, 3, 4, 6]), st.data())
def test_any_number_of_ranks_sees_each_step_of_one_process_from_any_step_on(
    numbered: TokenStore, arm: dict, world: int, data: st.DataObject
) -> None:
    arm = arm | {"positions": arm["positions"] // 12 * 12}
    mixture, draw = arm_of(numbered, arm)
    whole = draw.tokens(mixture.at(np.arange(mixture.positions))).reshape(-1, 12, CONTEXT + 1)
    ranks = [MixtureDataset([(mixture, draw)], 12, rank, world) for rank in range(world)]
    first = data.draw(st.integers(0, len(whole) - 1))
    for step in range(first, min(first + 5, len(whole))):
        together = np.stack([rank[step][0].numpy() for rank in ranks], axis=1).reshape(12, CONTEXT + 1)
        assert (together == whole[step]).all()


@settings(max_examples=8, deadline=None)
@given(arms, st.integers(1, 2))
def test_any_number_of_loader_workers_serves_the_same_order(numbered: TokenStore, arm: dict, workers: int) -> None:
    arm = arm | {"positions": arm["positions"] // 12 * 12}
    mixture, draw = arm_of(numbered, arm)
    batches = MixtureDataset([(mixture, draw)], 12)
    loader = DataLoader(batches, batch_size=None, sampler=RemainingSteps(3, len(batches)), num_workers=workers)
    assert all((batch == batches[step]).all() for step, batch in enumerate(loader, start=3))
