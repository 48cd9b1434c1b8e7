"""From the mixture to batches. The batch of a step is a function of the step number, so resuming needs no state."""

from collections.abc import Iterator

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from data_prep.mixture import RepeatMixture
from data_prep.token_store import TokenStore


class MixtureBatches(Dataset[Tensor]):
    """Item s is the batch of step s: int64 tokens of shape [lanes, sequences, context + 1]."""

    def __init__(self, store: TokenStore, mixtures: list[RepeatMixture], sequences_per_step: int, context: int) -> None:
        """`mixtures`: one per lane, all of the same length."""
        self.store, self.mixtures = store, mixtures
        self.sequences_per_step, self.context = sequences_per_step, context

    def __len__(self) -> int:
        return self.mixtures[0].positions // self.sequences_per_step

    def __getitem__(self, step: int) -> Tensor:
        positions = np.arange(step * self.sequences_per_step, (step + 1) * self.sequences_per_step)
        sequences = np.stack([mixture.at(positions).sequence for mixture in self.mixtures])
        return torch.from_numpy(self.store.gather("train", sequences, self.context))


class RemainingSteps(Sampler[int]):
    """The step numbers still to do. Its length is the whole run's, which is what Lightning counts batches against."""

    def __init__(self, first: int, total: int) -> None:
        self.first, self.total = first, total

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.total))


class MixtureDataModule(lightning.LightningDataModule):
    """Serves the batches of a run from the step the trainer has reached."""

    def __init__(self, batches: MixtureBatches) -> None:
        super().__init__()
        self.batches = batches

    def train_dataloader(self) -> DataLoader[Tensor]:
        """One pass over the steps that remain; an item is a whole batch already."""
        assert self.trainer is not None
        steps = RemainingSteps(self.trainer.global_step, len(self.batches))
        return DataLoader(self.batches, batch_size=None, sampler=steps)
