"""The processes that share one run. One of them, the lead, writes; the others compute."""

import os
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class ProcessGroup:
    """This process's place among those that share a run; numbers and names are torchrun's."""

    rank: int = 0
    world: int = 1
    local_world: int = 1  # on this machine

    @classmethod
    def from_environment(cls) -> "ProcessGroup":
        """The process_group that RANK, WORLD_SIZE and LOCAL_WORLD_SIZE describe; alone without them."""
        world = int(os.environ.get("WORLD_SIZE", "1"))
        local = int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
        return cls(int(os.environ.get("RANK", "0")), world, local)

    @property
    def is_lead(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    @property
    def nodes(self) -> int:
        """Machines the process_group is on."""
        return self.world // self.local_world

    def join(self, cuda: bool) -> None:
        """Meet the others at MASTER_ADDR and MASTER_PORT. GPU tensors go by nccl, everything else by gloo, so that flags
        travel without making a GPU wait."""
        if self.world > 1:
            dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", rank=self.rank, world_size=self.world)

    def leave(self) -> None:
        """Undo `join`, so that the next run can form another process_group."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def broadcast(self, thing: Thing) -> Thing:
        """What the lead says: its `thing`, whatever the others brought."""
        if self.world == 1:
            return thing
        box = [thing]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def any(self, flag: bool) -> bool:
        """Whether any process raises its flag."""
        if self.world == 1:
            return flag
        raised = torch.tensor(int(flag))
        dist.all_reduce(raised, op=dist.ReduceOp.MAX)
        return bool(raised)

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over all processes of a tensor, which is overwritten."""
        if self.world > 1:
            dist.all_reduce(tensor)
            tensor = tensor / self.world
        return tensor
