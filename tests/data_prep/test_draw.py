"""The data draw on stores in which every training token has a different id, so tokens can be counted."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from data_prep.document_batch import DocumentBatch
from data_prep.draw import Draw, Unit
from data_prep.errors import InputError
from data_prep.mixture import RepeatMixture, Spacing, Stream
from data_prep.store_writer import StoreWriter, write_manifest
from data_prep.token_store import TokenStore
from data_prep.tokenizer import word_tokenizer
from repeat_study.training.dataset import MixtureDataset, RemainingSteps

CONTEXT = 7


def write_store(folder: Path, lengths: list[int], first_token: int = 1) -> TokenStore:
    """Write a store of documents with these lengths (without end of text) that share no token."""
    folder.mkdir(parents=True, exist_ok=True)
    word_tokenizer(["a"]).save(str(folder / "tokenizer.json"))
    with StoreWriter(folder, np.dtype(np.uint32)) as writer:
        for is_test, first in ((False, first_token), (True, first_token + 10_000_000)):
            tokens = np.arange(first, first + sum(lengths), dtype=np.uint32)
            batch = DocumentBatch(
                tokens=np.insert(tokens, np.cumsum(lengths), 0),
                starts=np.cumsum(np.array(lengths) + 1) - lengths - 1,
                lengths=np.array(lengths) + 1,
                is_test=np.full(len(lengths), is_test),
                digests=b"",
                names=[f"document {n}" for n in range(len(lengths))],
                text_bytes=None,
            )
            writer.append(batch)
        counts = writer.close()
    assert counts["train"]["documents"] == len(lengths)
    record = {"splits": counts, "vocabulary": 2**31, "end_of_text": 0, "dtype": "uint32"}
    write_manifest(folder, record, writer.sha256())
    return TokenStore(folder)


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    rng = np.random.default_rng(0)
    return write_store(tmp_path_factory.mktemp("numbered"), rng.integers(1, 60, 600).tolist())


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
    counts = Counter(tokens.ravel().tolist())
    del counts[0]  # the end-of-text token
    return counts


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arms)
def test_every_pool_token_is_seen_exactly_R_times_every_unique_token_once_and_test_text_never(
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
def test_the_pool_for_a_larger_R_is_a_prefix_and_the_unique_stream_is_shared(
    numbered: TokenStore, arm: dict, factor: int
) -> None:
    mixture, draw = arm_of(numbered, arm)
    larger_mixture, larger_draw = arm_of(numbered, arm | {"repeats": arm["repeats"] * factor})
    pool = draw.pool_tokens(np.arange(mixture.pool))
    assert (larger_draw.pool_tokens(np.arange(larger_mixture.pool)) == pool[: larger_mixture.pool]).all()
    places = np.arange(arm["positions"])
    assert (draw.unique_tokens(places) == larger_draw.unique_tokens(places)).all()
    other_pool = Draw(numbered, CONTEXT, arm["positions"], arm["unit"], arm["seed"], arm["pool_seed"] + 1)
    assert (draw.unique_tokens(places) == other_pool.unique_tokens(places)).all(), "pool_seed changes only the pool"


@given(arms)
def test_the_clean_run_never_sees_text_of_any_pool(numbered: TokenStore, arm: dict) -> None:
    _, draw = arm_of(numbered, arm)
    clean = count(draw.unique_tokens(np.arange(arm["positions"])))
    reserved = count(draw.pool_tokens(np.arange(draw.pool_capacity)))
    assert not clean.keys() & reserved.keys() and set(reserved.values()) <= {1}


@pytest.mark.parametrize("unit", Unit)
def test_each_seed_chooses_different_text(numbered: TokenStore, unit: Unit) -> None:
    base, other_seed, other_pool = (Draw(numbered, CONTEXT, 300, unit, *seeds) for seeds in ((0, 0), (1, 0), (0, 1)))
    slots, places = np.arange(20), np.arange(100)
    assert (base.pool_tokens(slots) != other_seed.pool_tokens(slots)).any()
    assert (base.pool_tokens(slots) != other_pool.pool_tokens(slots)).any()
    assert (base.unique_tokens(places) != other_seed.unique_tokens(places)).any()


def test_a_pool_of_documents_contains_whole_documents(numbered: TokenStore) -> None:
    draw = Draw(numbered, CONTEXT, 300, Unit.DOCUMENT, seed=0)
    packed = draw.pool_tokens(np.arange(200)).ravel()
    documents = np.split(packed, np.flatnonzero(packed == 0) + 1)[:-1]  # drop the last document, which is cut
    offsets = numbered.offsets("train")
    complete = {tuple(numbered.train[start:end].tolist()) for start, end in pairwise(offsets)}
    assert len(documents) > 20
    assert all(tuple(document.tolist()) in complete for document in documents)


def test_a_pool_of_documents_keeps_only_its_own_documents_in_memory(numbered: TokenStore) -> None:
    draw = Draw(numbered, CONTEXT, 300, Unit.DOCUMENT, seed=0)
    first = draw.pool_tokens(np.arange(3))
    packed = draw._packed(3)
    assert len(packed.documents) < 30
    draw.pool_tokens(np.arange(300))
    assert (draw.pool_tokens(np.arange(3)) == first).all(), "a larger packing keeps the first sequences"


@pytest.mark.parametrize("unit", Unit)
def test_a_corpus_that_is_too_small_is_refused(numbered: TokenStore, unit: Unit) -> None:
    sequences = numbered.sequences_in("train", CONTEXT)
    with pytest.raises(InputError, match=rf"the run needs {sequences + 1} sequences .*but the corpus has {sequences}"):
        Draw(numbered, CONTEXT, sequences, unit, seed=0).require(1)
    fits = Draw(numbered, CONTEXT, sequences // 2, unit, seed=0)
    fits.require(fits.pool_capacity)
    fits.pool_tokens(fits.pool_capacity - 1)
    with pytest.raises(InputError, match="use fewer tokens or provide more text"):
        fits.require(fits.pool_capacity + 1)


def test_indices_are_the_positions_of_the_tokens_in_the_split(numbered: TokenStore) -> None:
    for unit in Unit:
        draw = Draw(numbered, CONTEXT, 300, unit, seed=0)
        for place in (0, 7, 99):
            assert (numbered.train[draw.indices(Stream.POOL, place)] == draw.pool_tokens(place)).all()
            assert (numbered.train[draw.indices(Stream.UNIQUE, place)] == draw.unique_tokens(place)).all()


@given(arms, st.sampled_from([1, 2, 3, 4, 6]), st.data())
def test_any_number_of_ranks_together_reads_the_batches_of_a_single_process(
    numbered: TokenStore, arm: dict, world: int, data: st.DataObject
) -> None:
    arm = arm | {"positions": arm["positions"] // 12 * 12}
    mixture, draw = arm_of(numbered, arm)
    steps = draw.tokens(mixture.at(np.arange(mixture.positions))).reshape(-1, 12, CONTEXT + 1)
    ranks = [MixtureDataset([(mixture, draw)], 12, rank, world) for rank in range(world)]
    first = data.draw(st.integers(0, len(steps) - 1))
    for step in range(first, min(first + 5, len(steps))):
        together = np.stack([rank[step][0].numpy() for rank in ranks], axis=1).reshape(12, CONTEXT + 1)
        assert (together == steps[step]).all()


@settings(max_examples=8)
@given(arms, st.integers(1, 2))
def test_any_number_of_loader_workers_gives_the_same_order(numbered: TokenStore, arm: dict, workers: int) -> None:
    arm = arm | {"positions": arm["positions"] // 12 * 12}
    mixture, draw = arm_of(numbered, arm)
    batches = MixtureDataset([(mixture, draw)], 12)
    loader = DataLoader(batches, batch_size=None, sampler=RemainingSteps(3, len(batches)), num_workers=workers)
    assert all((batch == batches[step]).all() for step, batch in enumerate(loader, start=3))
