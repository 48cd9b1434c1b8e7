"""The exact mixture as a torch dataset. A batch depends only on its step number, so resuming needs no saved state."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from data_prep.combined_draw import CombinedDraw
from data_prep.draw import Draw, Unit
from data_prep.mixture import RepeatMixture
from data_prep.permutation import Ints
from data_prep.token_store import TokenStore
from repeat_study.config.run import Run

BLOCK_POSITIONS = 1 << 14  # number of positions located per call, because each call has a large fixed cost


class MixtureDataset(Dataset[Tensor]):
    """A map-style dataset over a run's optimizer steps: item s is the batch for step s, counted from 0.

    A batch contains int64 token ids of shape [lanes, sequences, context + 1]. Inputs are `batch[..., :-1]` and targets are
    `batch[..., 1:]`. A single run has one lane, and a bundle has one lane per run. Over all steps, each sequence of the repeated pool
    occurs exactly R times and each unique sequence once. Items may be read in any order and from any DataLoader worker. An item is
    already a whole batch, so pass `batch_size=None` to the DataLoader:

        dataset = mixture_dataset(run, store)
        loader = DataLoader(dataset, batch_size=None, sampler=RemainingSteps(first=0, total=len(dataset)))

    Raises ValueError if a step's sequences cannot be divided evenly among the processes.
    """

    def __init__(
        self,
        lanes: Sequence[tuple[RepeatMixture, Draw | CombinedDraw]],
        sequences_per_step: int,
        rank: int = 0,
        world: int = 1,
        tokens: Tensor | None = None,
    ) -> None:
        """Make the dataset for one or more lanes.

        lanes: each lane's mixture (order) and draw (text). All lanes must have the same number of positions.
        sequences_per_step: batch size of each lane, counted over all processes.
        rank, world: this process gets every `world`-th sequence of a step, starting with sequence `rank`.
        tokens: the result of `tokens_on_device`. If given, batches are assembled on that device.
        """
        if sequences_per_step % world:
            raise ValueError(
                f"{sequences_per_step} sequences per step cannot be divided evenly among {world} processes"
            )
        self.lanes, self.sequences_per_step, self.rank, self.world = lanes, sequences_per_step, rank, world
        self._block_steps = max(1, BLOCK_POSITIONS // sequences_per_step)
        # The current block's index and, for each lane, the sequences located for the block's steps, [steps, sequences].
        self._block: tuple[int, list[Ints]] | None = None
        self._tokens = tokens
        self._block_on_device: Tensor | None = None  # [lanes, steps, sequences]

    @property
    def on_device(self) -> bool:
        """Whether batches are assembled on the device that holds `tokens`."""
        return self._tokens is not None

    def release(self) -> None:
        """Free the memory on the device. After this, batches are assembled on the host."""
        self._tokens = self._block_on_device = None

    def __len__(self) -> int:
        return self.lanes[0][0].positions // self.sequences_per_step

    def __getitem__(self, step: int) -> Tensor:
        number, offset = divmod(step, self._block_steps)
        if self._block is None or self._block[0] != number:
            steps = np.arange(number * self._block_steps, min((number + 1) * self._block_steps, len(self)))
            sequences = np.arange(self.rank, self.sequences_per_step, self.world)
            positions = steps[:, None] * self.sequences_per_step + sequences
            self._block = number, [draw.locate(mixture.at(positions)) for mixture, draw in self.lanes]
            if self._tokens is not None:
                located = torch.from_numpy(np.stack(self._block[1]))
                if self._tokens.is_cuda:  # a copy from pageable memory would wait for earlier work on the GPU
                    located = located.pin_memory()
                self._block_on_device = located.to(self._tokens.device, non_blocking=True)
        if self._tokens is not None and self._block_on_device is not None:
            return self._tokens[self._block_on_device[:, offset]].long() & 0xFFFF
        tokens = [draw.gather(located[offset]) for (_, draw), located in zip(self.lanes, self._block[1], strict=True)]
        return torch.from_numpy(np.stack(tokens) if len(tokens) > 1 else tokens[0][None])


def mixture_dataset(run: Run, store: TokenStore, rank: int = 0, world: int = 1) -> MixtureDataset:
    """Make a dataset of one run for your own training loop: item s is the batch for optimizer step s, counted from 0.

    A batch contains int64 token ids of shape [1, sequences, context + 1]. With `world` processes, each gets every `world`-th sequence,
    starting with sequence `rank`. Raises InputError if the store has too few tokens, and ValueError if the number of sequences per
    step is not divisible by `world`.
    """
    return MixtureDataset([(run.mixture(), run.draw(store))], run.sequences_per_step, rank, world)


def tokens_on_device(draws: Sequence[Draw | CombinedDraw], device: torch.device, max_bytes: int) -> Tensor | None:
    """Copy the training split of every store to a device, as a tensor of shape [sequences, context + 1] with two bytes per token.

    The tensor is int16, because torch cannot index uint16 on all devices; MixtureDataset converts negative values back. Returns None
    if the splits are larger than `max_bytes` or their tokens need more than two bytes. Also returns None if a pool is packed from
    documents, because such a pool does not consist of sequences from the split.
    """
    context, stores = draws[0].context, draws[0].stores
    if (
        any(store.train.dtype != np.uint16 for store in stores)
        or sum(store.train.nbytes for store in stores) > max_bytes
    ):
        return None
    if any(draw.unit is not Unit.SEQUENCE for draw in draws):
        return None
    counts = [store.sequences_in("train", context) for store in stores]
    tokens = torch.empty((sum(counts), context + 1), dtype=torch.int16, device=device)
    for store, rows in zip(stores, tokens.split(counts), strict=True):
        rows.copy_(torch.tensor(store.train[: len(rows) * (context + 1)].view(np.int16).reshape(rows.shape)))
    return tokens


class RemainingSteps(Sampler[int]):
    """Samples steps `first` to `total` - 1 in order, for resuming. Its length is `total`, because Lightning counts earlier batches too."""

    def __init__(self, first: int, total: int) -> None:
        self.first, self.total = first, total

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.total))
