"""The Lightning data module, which serves a run's batches from the trainer's current step on."""

import lightning
from torch import Tensor
from torch.utils.data import DataLoader

from repeat_study.training.dataset import MixtureDataset, RemainingSteps


class MixtureDataModule(lightning.LightningDataModule):
    """Serves a MixtureDataset to Lightning's trainer."""

    def __init__(self, dataset: MixtureDataset, pin_memory: bool = False) -> None:
        """`pin_memory`: put batches into pinned memory, from which a GPU can copy the next batch while it computes."""
        super().__init__()
        self.dataset, self.pin_memory = dataset, pin_memory

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Make a loader for the batches of all remaining steps. An item is already a whole batch."""
        assert self.trainer is not None
        steps = RemainingSteps(self.trainer.global_step, len(self.dataset))
        return DataLoader(self.dataset, batch_size=None, sampler=steps, pin_memory=self.pin_memory)
