"""The processes that share one run. Only the lead process writes files."""

import os
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Value = TypeVar("Value")


@dataclass(frozen=True)
class ProcessGroup:
    """This process's rank and the size of the group that shares its run, as torchrun defines them."""

    rank: int = 0
    world: int = 1
    local_world: int = 1  # number of processes on this machine

    @classmethod
    def from_environment(cls) -> "ProcessGroup":
        """Read the group from RANK, WORLD_SIZE and LOCAL_WORLD_SIZE. If they are unset, the group has one process."""
        world = int(os.environ.get("WORLD_SIZE", "1"))
        local = int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
        return cls(int(os.environ.get("RANK", "0")), world, local)

    @property
    def is_lead(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    @property
    def nodes(self) -> int:
        """Number of machines."""
        return self.world // self.local_world

    def join(self, cuda: bool) -> None:
        """Connect to the other processes at MASTER_ADDR and MASTER_PORT.

        GPU tensors are exchanged with NCCL and everything else with Gloo, so exchanging flags never makes a GPU wait.
        """
        if self.world > 1:
            dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", rank=self.rank, world_size=self.world)

    def leave(self) -> None:
        """Disconnect, so that the next run can form another group."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def broadcast(self, value: Value) -> Value:
        """Return the lead process's value on every process. The value must be picklable."""
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
        """Average a tensor over all processes. The input tensor is overwritten."""
        if self.world > 1:
            dist.all_reduce(tensor)
            tensor = tensor / self.world
        return tensor
