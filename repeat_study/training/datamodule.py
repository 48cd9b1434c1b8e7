"""The Lightning data module: serves the batches of a run from the step that the trainer has reached."""

import lightning
from torch import Tensor
from torch.utils.data import DataLoader

from repeat_study.training.dataset import MixtureDataset, RemainingSteps


class MixtureDataModule(lightning.LightningDataModule):
    """A MixtureDataset for Lightning's trainer."""

    def __init__(self, dataset: MixtureDataset, pin_memory: bool = False) -> None:
        """`pin_memory`: for a GPU, which then copies the next batch while it computes."""
        super().__init__()
        self.dataset, self.pin_memory = dataset, pin_memory

    def train_dataloader(self) -> DataLoader[Tensor]:
        """One pass over the remaining steps; an item is a whole batch already."""
        assert self.trainer is not None
        steps = RemainingSteps(self.trainer.global_step, len(self.dataset))
        return DataLoader(self.dataset, batch_size=None, sampler=steps, pin_memory=self.pin_memory)
