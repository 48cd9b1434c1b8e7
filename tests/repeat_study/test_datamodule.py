from collections import Counter

import lightning
import numpy as np
import pytest

from data_prep.mixture import Stream
from data_prep.token_store import TokenStore
from repeat_study.datamodule import MixtureBatches, MixtureDataModule
from repeat_study.study import Run


def batches_of(run: Run, store: TokenStore) -> MixtureBatches:
    mixture = run.mixture(store.sequences_in("train", run.context))
    return MixtureBatches(store, [mixture], run.sequences_per_step, run.context)


class Reached(lightning.Trainer):
    """A trainer that stands at a given step."""

    def __init__(self, step: int) -> None:
        self._step = step

    @property
    def global_step(self) -> int:
        return self._step


def served(run: Run, store: TokenStore, step: int = 0) -> list[tuple[int, ...]]:
    module = MixtureDataModule(batches_of(run, store))
    module.trainer = Reached(step)
    return [tuple(row) for batch in module.train_dataloader() for row in batch[0].tolist()]


@pytest.mark.parametrize("which", range(6))
def test_a_whole_run_shows_every_pool_sequence_R_times_every_unique_one_once_and_no_test_text(
    which: int, runs: list[Run], store: TokenStore
) -> None:
    run = runs[which]
    mixture = run.mixture(store.sequences_in("train", run.context))
    counts = Counter(served(run, store))
    # The text itself can repeat in a real corpus: what is wanted is what the store's sequences say.
    expected: Counter[tuple[int, ...]] = Counter()
    for sequences, times in (
        (mixture.pool_sequence(np.arange(mixture.pool)), run.repeats),
        (mixture.unique_sequence(np.arange(mixture.unique_positions)), 1),
    ):
        for row in store.gather("train", sequences, run.context).tolist():
            expected[tuple(row)] += times
    assert counts == expected
    assert sum(counts.values()) == run.positions == mixture.pool * run.repeats + mixture.unique_positions
    numbers = mixture.at(np.arange(run.positions))
    assert Counter(Counter(numbers.sequence[numbers.stream == Stream.POOL].tolist()).values()) == (
        {run.repeats: run.pool} if run.pool else {}
    )
    assert numbers.sequence.max() < store.sequences_in("train", run.context), "test text lies in a file of its own"
    test = {
        tuple(row)
        for row in store.gather("test", np.arange(store.sequences_in("test", run.context)), run.context).tolist()
    }
    train = {tuple(row) for row in store.gather("train", np.arange(mixture.store_sequences), run.context).tolist()}
    assert not set(counts) & (test - train)


def test_a_resumed_loader_serves_exactly_the_tail(runs: list[Run], store: TokenStore) -> None:
    run = runs[1]
    whole = served(run, store)
    for step in (1, run.steps // 2, run.steps - 1, run.steps):
        assert served(run, store, step) == whole[step * run.sequences_per_step :]


def test_arms_of_one_seed_share_the_unique_stream(runs: list[Run], store: TokenStore) -> None:
    clean, *repeated = (run for run in runs if run.model == "1x16")
    unique = served(clean, store)
    for run in repeated:
        mixture = run.mixture(store.sequences_in("train", run.context))
        stream = mixture.at(np.arange(run.positions)).stream
        shown = [row for row, source in zip(served(run, store), stream, strict=True) if source == Stream.UNIQUE]
        assert shown == unique[: len(shown)]
