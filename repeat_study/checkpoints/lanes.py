"""The checkpoints of runs that are trained in lockstep, a lane each.

A checkpoint is of one run whatever bundle wrote it, so a run begun in one bundle goes on in another, or alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

Checkpoint = dict[str, Any]
KINDS = 2  # optimiser parameter groups per recipe: with weight decay and without
COUNTED = "summed_steps"  # the one number of the module's state that is no lane's own
LEFT_RANGE = "left_range"


class LaneFiles(TorchCheckpointIO):
    """Checkpoints of a bundle, a file per lane, straight to these paths: Lightning's own way goes twice through memory and once
    through /tmp. Not atomic: what writes them gives scratch files and renames those."""

    def __init__(self, written: list[Path | None], read: Sequence[Path], one_recipe: bool) -> None:
        """`written`: where each lane's goes, None where it is not to be written any more; `read`: where it comes from;
        `one_recipe`: whether the optimiser holds all lanes in one tensor."""
        super().__init__()
        self.written, self.read, self.one_recipe = written, read, one_recipe

    def save_checkpoint(self, checkpoint: Checkpoint, path: str | Path, storage_options: Any | None = None) -> None:
        """Every lane's to its own file; `path` is the first one's."""
        for lane, own in enumerate(self.written):
            if own:
                torch.save(of_lane(checkpoint, lane, len(self.written)), own)

    def load_checkpoint(self, path: str | Path, *arguments: Any, **options: Any) -> Checkpoint:
        """The bundle's, from its lanes' files; `path` is the first one's."""
        read = [super(LaneFiles, self).load_checkpoint(own, *arguments, **options) for own in self.read]
        return of_bundle(read, self.one_recipe)


def of_lane(checkpoint: Checkpoint, lane: int, lanes: int) -> Checkpoint:
    """One run's checkpoint out of a bundle's."""

    def own(name: str, value: Tensor) -> Tensor:
        if name == COUNTED:
            return value
        if name == LEFT_RANGE:
            return value[lane].clone()
        # A part of a tensor would be saved with all of it.
        return value[lane : lane + 1].clone() if lanes > 1 else value

    state = {name: own(name, value) for name, value in checkpoint["state_dict"].items()}
    parts: Checkpoint = {"state_dict": state}
    if lanes > 1:
        parts["optimizer_states"] = [_optimizer_of_lane(checkpoint["optimizer_states"][0], lane)]
        parts["callbacks"] = {
            name: {account: seconds[lane] for account, seconds in clocks.items()}
            for name, clocks in checkpoint["callbacks"].items()
        }
        parts["run"] = checkpoint["run"][lane]
    return checkpoint | parts


def _optimizer_of_lane(optimizer: Checkpoint, lane: int) -> Checkpoint:
    groups, states = optimizer["param_groups"], optimizer["state"]
    if len(groups) == KINDS:  # all lanes in one tensor
        parts = {
            number: {name: value[lane : lane + 1].clone() if value.dim() else value for name, value in state.items()}
            for number, state in states.items()
        }
        return {"state": parts, "param_groups": groups}
    own = groups[KINDS * lane : KINDS * (lane + 1)]
    first = own[0]["params"][0]
    return {
        "state": {number - first: states[number] for group in own for number in group["params"]},
        "param_groups": [group | {"params": [number - first for number in group["params"]]} for group in own],
    }


def of_bundle(checkpoints: Sequence[Checkpoint], one_recipe: bool) -> Checkpoint:
    """A bundle's checkpoint out of those of its runs, all of one step; `one_recipe` as for LaneFiles."""
    first, lanes = checkpoints[0], len(checkpoints)
    states = [checkpoint["state_dict"] for checkpoint in checkpoints]

    def together(name: str) -> Tensor:
        if name == COUNTED:
            return states[0][name]
        values = [state[name] for state in states]
        return torch.stack(values) if name == LEFT_RANGE else torch.cat(values)

    parts: Checkpoint = {"state_dict": {name: together(name) for name in states[0]}}
    if lanes > 1:
        optimizers = [checkpoint["optimizer_states"][0] for checkpoint in checkpoints]
        parts["optimizer_states"] = [(_one_optimizer if one_recipe else _optimizers_beside_each_other)(optimizers)]
        parts["callbacks"] = {
            name: {account: [checkpoint["callbacks"][name][account] for checkpoint in checkpoints] for account in state}
            for name, state in first["callbacks"].items()
        }
        parts["run"] = [checkpoint["run"] for checkpoint in checkpoints]
    return first | parts


def _one_optimizer(optimizers: Sequence[Checkpoint]) -> Checkpoint:
    def together(values: list[Tensor]) -> Tensor:
        return torch.cat(values) if values[0].dim() else values[0]

    states = [optimizer["state"] for optimizer in optimizers]
    parts = {
        number: {name: together([state[number][name] for state in states]) for name in own}
        for number, own in states[0].items()
    }
    return {"state": parts, "param_groups": optimizers[0]["param_groups"]}


def _optimizers_beside_each_other(optimizers: Sequence[Checkpoint]) -> Checkpoint:
    each = len(optimizers[0]["state"])
    return {
        "state": {
            lane * each + number: state
            for lane, optimizer in enumerate(optimizers)
            for number, state in optimizer["state"].items()
        },
        "param_groups": [
            group | {"params": [lane * each + number for number in group["params"]]}
            for lane, optimizer in enumerate(optimizers)
            for group in optimizer["param_groups"]
        ],
    }
