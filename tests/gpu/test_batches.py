"""Batches that are assembled on a GPU equal those of the host token by token."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data_prep.token_store import TokenStore
from repeat_study.config.resources import Resources
from repeat_study.config.run import Run
from repeat_study.records.outcome import Outcome
from repeat_study.training import lockstep
from repeat_study.training.datamodule import MixtureDataModule
from repeat_study.training.dataset import MixtureDataset, tokens_on_device
from repeat_study.training.trainer import train
from tests.gpu.records import CLOSE, assert_close_losses

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("first_id", [0, 40_000])
def test_batches_assembled_on_the_device_equal_batches_from_the_host(
    first_id: int, device: str, lanes: list[Run], store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps are in several blocks and are not read in order. Token ids from 32,768 on are negative as int16."""
    monkeypatch.setattr("repeat_study.training.dataset.BLOCK_POSITIONS", 8 * 8)
    monkeypatch.setattr(store, "train", store.train + np.uint16(first_id))
    monkeypatch.setattr(store, "_sequences", {})
    mixtures = [(run.mixture(), run.draw(store)) for run in lanes]
    tokens = tokens_on_device([draw for _, draw in mixtures], torch.device(device), 10**9)
    assert tokens is not None and tokens.device.type == device and tokens.element_size() == 2
    host, resident = MixtureDataset(mixtures, 8), MixtureDataset(mixtures, 8, tokens=tokens)
    largest = 0
    for step in (0, 31, 7, 8, 1, 30):
        assert resident[step].device.type == device and resident[step].dtype == host[step].dtype
        assert torch.equal(resident[step].cpu(), host[step]), step
        largest = max(largest, int(host[step].max()))
    assert first_id < largest
    resident.release()
    assert not resident.on_device and torch.equal(resident[7], host[7]) and not resident[7].is_cuda


def test_a_run_has_the_same_losses_with_batches_from_the_host(
    device: str,
    lanes: list[Run],
    singles: Path,
    store: TokenStore,
    resources: Resources,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If the training split does not fit on the GPU, batches are copied from pinned memory."""
    modules: list[tuple[bool, bool]] = []

    class Recorded(MixtureDataModule):
        def __init__(self, dataset: MixtureDataset, pin_memory: bool = False) -> None:
            super().__init__(dataset, pin_memory)
            modules.append((dataset.on_device, pin_memory))

    monkeypatch.setattr(lockstep, "MixtureDataModule", Recorded)
    assert train(lanes[0], store, tmp_path / "resident", resources=resources) is Outcome.DONE
    monkeypatch.setattr(lockstep, "CORPUS_MEMORY_SHARE", 0)
    assert train(lanes[0], store, tmp_path / "host", resources=resources) is Outcome.DONE
    assert modules == ([(True, False), (False, True)] if device == "cuda" else [(False, False)] * 2)
    assert_close_losses(tmp_path / "host", tmp_path / "resident", lanes[0], CLOSE)
    assert_close_losses(tmp_path / "host", singles, lanes[0], CLOSE)
