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


def dataset_of(run: Run, store: TokenStore, rank: int = 0, world: int = 1) -> MixtureDataset:
    return MixtureDataset([(run.mixture(), run.draw(store))], run.sequences_per_step, rank, world)


class TrainerAtStep(lightning.Trainer):
    """A trainer that has reached a given step."""

    def __init__(self, step: int) -> None:
        self._step = step

    @property
    def global_step(self) -> int:
        return self._step


def served_sequences(run: Run, store: TokenStore, step: int = 0) -> list[tuple[int, ...]]:
    module = MixtureDataModule(dataset_of(run, store))
    module.trainer = TrainerAtStep(step)
    return [tuple(row) for batch in module.train_dataloader() for row in batch[0].tolist()]


@pytest.mark.parametrize("which", range(6))
def test_pool_sequences_occur_R_times_unique_sequences_once_and_test_sequences_never(
    which: int, runs: list[Run], store: TokenStore
) -> None:
    run = runs[which]
    mixture, draw = run.mixture(), run.draw(store)
    counts = Counter(served_sequences(run, store))
    # A real corpus may contain equal sequences, so occurrences are counted by text, not by sequence number.
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
def test_all_ranks_together_get_the_batches_of_a_single_process(runs: list[Run], store: TokenStore, world: int) -> None:
    run = runs[1]
    single = dataset_of(run, store)
    ranks = [dataset_of(run, store, rank, world) for rank in range(world)]
    for step in range(0, run.steps, 7):
        together = torch.stack([rank[step][0] for rank in ranks], dim=1).flatten(0, 1)
        assert torch.equal(together, single[step][0])
    with pytest.raises(ValueError, match="cannot be divided evenly among 3"):
        dataset_of(run, store, 0, 3)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_loader_workers_do_not_change_batches(runs: list[Run], store: TokenStore, workers: int) -> None:
    dataset = dataset_of(runs[1], store)
    loader = DataLoader(dataset, batch_size=None, sampler=RemainingSteps(20, len(dataset)), num_workers=workers)
    assert all(torch.equal(batch, dataset[step]) for step, batch in enumerate(loader, start=20))


def test_a_resumed_loader_serves_exactly_the_remaining_sequences(runs: list[Run], store: TokenStore) -> None:
    run = runs[1]
    sequences = served_sequences(run, store)
    for step in (1, run.steps // 2, run.steps - 1, run.steps):
        assert served_sequences(run, store, step) == sequences[step * run.sequences_per_step :]


def test_runs_of_one_seed_share_the_unique_stream(runs: list[Run], store: TokenStore) -> None:
    clean, *repeated = (run for run in runs if run.model == "1x16")
    unique = served_sequences(clean, store)
    for run in repeated:
        stream = run.mixture().at(np.arange(run.positions)).stream
        trained_unique = [
            row for row, source in zip(served_sequences(run, store), stream, strict=True) if source == Stream.UNIQUE
        ]
        assert trained_unique == unique[: len(trained_unique)]


def test_batches_assembled_on_a_device_equal_batches_from_the_host(
    runs: list[Run], store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three lanes, with the CPU as the device. The steps are in two blocks of positions and are not read in order."""
    monkeypatch.setattr("repeat_study.training.dataset.BLOCK_POSITIONS", 16 * 8)
    lanes = [(run.mixture(), run.draw(store)) for run in runs[:3]]
    tokens = tokens_on_device([draw for _, draw in lanes], torch.device("cpu"), 10**9)
    assert tokens is not None and tokens.element_size() == 2
    host, device = MixtureDataset(lanes, 8), MixtureDataset(lanes, 8, tokens=tokens)
    for step in (0, 63, 7, 1):
        assert host[step].dtype == device[step].dtype and torch.equal(host[step], device[step])
    device.release()
    assert not device.on_device and torch.equal(host[7], device[7])
    assert tokens_on_device([lanes[0][1]], torch.device("cpu"), 100) is None, "too large"
    documents = runs[1].model_copy(update={"unit": Unit.DOCUMENT}).draw(store)
    assert tokens_on_device([lanes[0][1], documents], torch.device("cpu"), 10**9) is None, (
        "one lane has a pool of documents"
    )


def test_token_ids_above_32767_are_preserved_on_a_device(tmp_path: Path) -> None:
    class Store:
        train = np.array([0, 1, 32_767, 32_768, 65_535, 40_000], np.uint16)

        def sequences_in(self, split: str, context: int) -> int:
            return 3

    class DrawOfAll:
        stores, unit, context = (Store(),), Unit.SEQUENCE, 1

        def locate(self, provenance: object) -> np.ndarray:
            return np.array([[0, 1, 2]])

    class MixtureOfAll:
        positions = 3

        def at(self, positions: np.ndarray) -> np.ndarray:
            return positions

    tokens = tokens_on_device([DrawOfAll()], torch.device("cpu"), 100)  # type: ignore[list-item]
    dataset = MixtureDataset([(MixtureOfAll(), DrawOfAll())], 3, tokens=tokens)  # type: ignore[list-item]
    assert dataset[0].tolist() == [[[0, 1], [32_767, 32_768], [65_535, 40_000]]]
