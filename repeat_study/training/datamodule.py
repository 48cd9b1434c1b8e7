"""From the mixture to batches. The batch of a step is a function of the step number, so resuming needs no state."""

from collections.abc import Iterator, Sequence

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from data_prep.draw import Draw, Unit
from data_prep.mixture import RepeatMixture
from data_prep.permutation import Ints

BLOCK_POSITIONS = 1 << 14  # located at a time: the arithmetic of positions costs little per element, much per call


class MixtureBatches(Dataset[Tensor]):
    """Item s is the batch of step s: int64 tokens of shape [lanes, sequences, context + 1]."""

    def __init__(
        self,
        lanes: list[tuple[RepeatMixture, Draw]],
        sequences_per_step: int,
        rank: int = 0,
        world: int = 1,
        tokens: Tensor | None = None,
    ) -> None:
        """`lanes`: order and text of each, all of one length. Of `world` processes, `rank` takes every world-th sequence
        of a step, so that together they see the step that one process would; raises ValueError where they cannot.

        tokens: the training split's sequences as `on_device` gives them; batches are then put together there, and lie there.
        """
        if sequences_per_step % world:
            raise ValueError(f"{sequences_per_step} sequences per step do not divide among {world} processes")
        self.lanes, self.sequences_per_step, self.rank, self.world = lanes, sequences_per_step, rank, world
        self._block_steps = max(1, BLOCK_POSITIONS // sequences_per_step)
        self._block: tuple[int, list[Ints]] | None = None  # number, and per lane what `locate` gave: [steps, sequences]
        self._tokens = tokens
        self._on_device: Tensor | None = None  # the block, [lanes, steps, sequences]

    def __len__(self) -> int:
        return self.lanes[0][0].positions // self.sequences_per_step

    def __getitem__(self, step: int) -> Tensor:
        number, within = divmod(step, self._block_steps)
        if self._block is None or self._block[0] != number:
            steps = np.arange(number * self._block_steps, min((number + 1) * self._block_steps, len(self)))
            sequences = np.arange(self.rank, self.sequences_per_step, self.world)
            positions = steps[:, None] * self.sequences_per_step + sequences
            self._block = number, [draw.locate(mixture.at(positions)) for mixture, draw in self.lanes]
            if self._tokens is not None:
                self._on_device = torch.from_numpy(np.stack(self._block[1])).to(self._tokens.device, non_blocking=True)
        if self._tokens is not None and self._on_device is not None:
            return self._tokens[self._on_device[:, within]].long() & 0xFFFF
        tokens = [draw.gather(located[within]) for (_, draw), located in zip(self.lanes, self._block[1], strict=True)]
        return torch.from_numpy(np.stack(tokens) if len(tokens) > 1 else tokens[0][None])


def on_device(draws: Sequence[Draw], device: torch.device, most_bytes: int) -> Tensor | None:
    """All sequences of the training split that these draws read on a device, two bytes per token (as signed ones: these can be indexed
    everywhere), shape [sequences, context + 1]; None where they take more than `most_bytes`, or a token or a pool needs more."""
    draw, store = draws[0], draws[0].store
    if store.train.dtype != np.uint16 or store.train.nbytes > most_bytes:
        return None
    if any(one.unit is not Unit.SEQUENCE for one in draws):  # a pool of documents is no sequences of the split
        return None
    count = store.sequences_in("train", draw.context)
    rows = store.train[: count * (draw.context + 1)].view(np.int16).reshape(count, -1)
    return torch.tensor(rows, device=device)


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

    def __init__(self, batches: MixtureBatches, pin_memory: bool = False) -> None:
        """`pin_memory`: for a GPU, which then copies a batch while it computes."""
        super().__init__()
        self.batches, self.pin_memory = batches, pin_memory

    def train_dataloader(self) -> DataLoader[Tensor]:
        """One pass over the steps that remain; an item is a whole batch already."""
        assert self.trainer is not None
        steps = RemainingSteps(self.trainer.global_step, len(self.batches))
        return DataLoader(self.batches, batch_size=None, sampler=steps, pin_memory=self.pin_memory)
