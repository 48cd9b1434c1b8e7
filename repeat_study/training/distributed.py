"""The processes that share one run. One of them, the lead, writes; the others only compute."""

import os
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Value = TypeVar("Value")


@dataclass(frozen=True)
class ProcessGroup:
    """This process's place in the group that shares a run; the terms are torchrun's."""

    rank: int = 0
    world: int = 1
    local_world: int = 1  # on this machine

    @classmethod
    def from_environment(cls) -> "ProcessGroup":
        """The group described by RANK, WORLD_SIZE and LOCAL_WORLD_SIZE; a group of one without them."""
        world = int(os.environ.get("WORLD_SIZE", "1"))
        local = int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
        return cls(int(os.environ.get("RANK", "0")), world, local)

    @property
    def is_lead(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    @property
    def nodes(self) -> int:
        """Number of machines."""
        return self.world // self.local_world

    def join(self, cuda: bool) -> None:
        """Connect to the other processes at MASTER_ADDR and MASTER_PORT.

        GPU tensors travel by nccl and everything else by gloo, so that exchanging flags never makes a GPU wait.
        """
        if self.world > 1:
            dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", rank=self.rank, world_size=self.world)

    def leave(self) -> None:
        """Disconnect, so that the next run can form another group."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def broadcast(self, value: Value) -> Value:
        """The lead process's value, on every process; it must be picklable."""
        if self.world == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process."""
        if self.world == 1:
            return flag
        flags = torch.tensor(int(flag))
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return bool(flags)

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean of a tensor over all processes; overwrites the tensor."""
        if self.world > 1:
            dist.all_reduce(tensor)
            tensor = tensor / self.world
        return tensor
