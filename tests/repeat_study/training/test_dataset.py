from collections import Counter
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from data_prep.draw import Unit
from data_prep.mixture import Stream
from data_prep.token_store import TokenStore
from repeat_study.config.run import Run
from repeat_study.training.datamodule import MixtureDataModule
from repeat_study.training.dataset import MixtureDataset, RemainingSteps, tokens_on_device


def batches_of(run: Run, store: TokenStore, rank: int = 0, world: int = 1) -> MixtureDataset:
    return MixtureDataset([(run.mixture(), run.draw(store))], run.sequences_per_step, rank, world)


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
    mixture, draw = run.mixture(), run.draw(store)
    counts = Counter(served(run, store))
    # The text itself can repeat in a real corpus: what is wanted is what the store's sequences say.
    expected: Counter[tuple[int, ...]] = Counter()
    for tokens, times in (
        (draw.pool_tokens(np.arange(mixture.pool)), run.repeats),
        (draw.unique_tokens(np.arange(mixture.unique_positions)), 1),
    ):
        for row in tokens.tolist():
            expected[tuple(row)] += times
    assert counts == expected
    assert sum(counts.values()) == run.positions == mixture.pool * run.repeats + mixture.unique_positions
    train = {tuple(row) for row in store.gather("train", np.arange(store.sequences_in("train", 32)), 32).tolist()}
    assert counts.keys() <= train


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_ranks_together_see_each_step_of_the_single_process(runs: list[Run], store: TokenStore, world: int) -> None:
    run = runs[1]
    whole = batches_of(run, store)
    ranks = [batches_of(run, store, rank, world) for rank in range(world)]
    for step in range(0, run.steps, 7):
        together = torch.stack([rank[step][0] for rank in ranks], dim=1).flatten(0, 1)
        assert torch.equal(together, whole[step][0])
    with pytest.raises(ValueError, match="do not divide among 3"):
        batches_of(run, store, 0, 3)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_loader_workers_change_nothing(runs: list[Run], store: TokenStore, workers: int) -> None:
    batches = batches_of(runs[1], store)
    loader = DataLoader(batches, batch_size=None, sampler=RemainingSteps(20, len(batches)), num_workers=workers)
    assert all(torch.equal(batch, batches[step]) for step, batch in enumerate(loader, start=20))


def test_a_resumed_loader_serves_exactly_the_tail(runs: list[Run], store: TokenStore) -> None:
    run = runs[1]
    whole = served(run, store)
    for step in (1, run.steps // 2, run.steps - 1, run.steps):
        assert served(run, store, step) == whole[step * run.sequences_per_step :]


def test_arms_of_one_seed_share_the_unique_stream(runs: list[Run], store: TokenStore) -> None:
    clean, *repeated = (run for run in runs if run.model == "1x16")
    unique = served(clean, store)
    for run in repeated:
        stream = run.mixture().at(np.arange(run.positions)).stream
        shown = [row for row, source in zip(served(run, store), stream, strict=True) if source == Stream.UNIQUE]
        assert shown == unique[: len(shown)]


def test_batches_put_together_on_a_device_are_those_of_the_host(runs: list[Run], store: TokenStore) -> None:
    """All lanes of a bundle, here with the device being the CPU; a block is left and come back to."""
    lanes = [(run.mixture(), run.draw(store)) for run in runs[:3]]
    tokens = tokens_on_device([draw for _, draw in lanes], torch.device("cpu"), 10**9)
    assert tokens is not None and tokens.element_size() == 2
    host, device = MixtureDataset(lanes, 8), MixtureDataset(lanes, 8, tokens=tokens)
    for step in (0, 63, 7, 1):
        assert host[step].dtype == device[step].dtype and torch.equal(host[step], device[step])
    assert tokens_on_device([lanes[0][1]], torch.device("cpu"), 100) is None, "where it does not fit"
    documents = runs[1].model_copy(update={"unit": Unit.DOCUMENT}).draw(store)
    assert tokens_on_device([lanes[0][1], documents], torch.device("cpu"), 10**9) is None, "in any lane"


def test_tokens_beyond_half_of_two_bytes_come_back_as_they_were(tmp_path: Path) -> None:
    class Wide:
        train = np.array([0, 1, 32_767, 32_768, 65_535, 40_000], np.uint16)

        def sequences_in(self, split: str, context: int) -> int:
            return 3

    class Drawn:
        store, unit, context = Wide(), Unit.SEQUENCE, 1

        def locate(self, found: object) -> np.ndarray:
            return np.array([[0, 1, 2]])

    class Mixed:
        positions = 3

        def at(self, positions: np.ndarray) -> np.ndarray:
            return positions

    tokens = tokens_on_device([Drawn()], torch.device("cpu"), 100)  # type: ignore[list-item]
    batches = MixtureDataset([(Mixed(), Drawn())], 3, tokens=tokens)  # type: ignore[list-item]
    assert batches[0].tolist() == [[[0, 1], [32_767, 32_768], [65_535, 40_000]]]
