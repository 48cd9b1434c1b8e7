"""Split a bundle's checkpoint into one checkpoint per run, and merge several runs' checkpoints into one bundle checkpoint.

A checkpoint file always belongs to one run, so a run that started in one bundle can resume in another bundle or alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from repeat_study.checkpoints.files import Checkpoint, replace_checkpoint, write_scratch
from repeat_study.records.run_directory import RunDirectory

RECIPE = ("lr", "weight_decay")  # the settings that `training.lane_optimizer` stores separately for each lane
ONLY_IN_BUNDLES = ("lanes", "steps")  # parameter-group keys that only that optimizer uses
SHARED_BUFFER = "summed_steps"  # the only buffer that all lanes share
UNSTACKED_BUFFER = "left_range"  # has no lane axis in a single run's checkpoint


class LaneCheckpointIO(TorchCheckpointIO):
    """Lightning plugin that reads and writes one checkpoint file per lane.

    It writes directly to the run directories. Lightning's own plugin makes a second copy in memory and a third one in /tmp.
    """

    def __init__(self, directories: Sequence[RunDirectory], same_recipe: bool) -> None:
        """Create the plugin.

        directories: the run directory of each lane. same_recipe: whether all lanes have the same optimizer settings;
            otherwise the optimizer is a `training.lane_optimizer.LaneAdamW`.
        """
        super().__init__()
        self.directories, self.same_recipe = directories, same_recipe
        self.dropped: set[int] = set()

    def drop(self, lane: int) -> None:
        """Stop writing checkpoints for a lane, to preserve its last good checkpoint."""
        self.dropped.add(lane)

    def save_checkpoint(self, checkpoint: Checkpoint, path: str | Path, storage_options: Any | None = None) -> None:
        """Write every lane to a scratch file, then replace all checkpoints. Lightning's `path` is ignored."""
        lanes = len(self.directories)
        if lanes > 1:  # transfer the tensors of all lanes from a GPU at once, instead of each lane's tensors separately
            checkpoint = _on_cpu(checkpoint)
        kept = [(lane, directory) for lane, directory in enumerate(self.directories) if lane not in self.dropped]
        for lane, directory in kept:
            write_scratch(directory, split_lane(checkpoint, lane, lanes))
        for _, directory in kept:
            replace_checkpoint(directory)

    def load_checkpoint(self, path: str | Path, *arguments: Any, **options: Any) -> Checkpoint:
        """The bundle's checkpoint, merged from the files of its lanes. Lightning's `path` is ignored."""
        load = super().load_checkpoint
        return merge_lanes([load(run.checkpoint, *arguments, **options) for run in self.directories], self.same_recipe)


def _on_cpu(value: Any) -> Any:
    """A copy of a nested structure with all tensors on the CPU. Tensors that are already there are not copied."""
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {key: _on_cpu(item) for key, item in value.items()}
    return [_on_cpu(item) for item in value] if isinstance(value, list) else value


def split_lane(checkpoint: Checkpoint, lane: int, lanes: int) -> Checkpoint:
    """Extract one run's checkpoint from the checkpoint of a bundle with `lanes` lanes."""

    def select(name: str, value: Tensor) -> Tensor:
        if name == SHARED_BUFFER:
            return value
        if name == UNSTACKED_BUFFER:
            return value[lane].clone()
        # Clone the slice, because torch.save would write the entire underlying tensor.
        return value[lane : lane + 1].clone() if lanes > 1 else value

    replaced: Checkpoint = {
        "state_dict": {name: select(name, value) for name, value in checkpoint["state_dict"].items()}
    }
    if lanes > 1:
        replaced["optimizer_states"] = [_split_optimizer(checkpoint["optimizer_states"][0], lane)]
        replaced["callbacks"] = {
            name: {account: seconds[lane] for account, seconds in clocks.items()}
            for name, clocks in checkpoint["callbacks"].items()
        }
        replaced["run"] = checkpoint["run"][lane]
        replaced["records"] = checkpoint["records"][lane]
    return checkpoint | replaced


def merge_lanes(checkpoints: Sequence[Checkpoint], same_recipe: bool) -> Checkpoint:
    """Merge several runs' checkpoints from the same step into one bundle checkpoint.

    same_recipe: as in LaneCheckpointIO.
    """
    first, lanes = checkpoints[0], len(checkpoints)
    states = [checkpoint["state_dict"] for checkpoint in checkpoints]

    def merge(name: str) -> Tensor:
        if name == SHARED_BUFFER:
            return states[0][name]
        values = [state[name] for state in states]
        return torch.stack(values) if name == UNSTACKED_BUFFER else torch.cat(values)

    replaced: Checkpoint = {"state_dict": {name: merge(name) for name in states[0]}}
    if lanes > 1:
        optimizers = [checkpoint["optimizer_states"][0] for checkpoint in checkpoints]
        replaced["optimizer_states"] = [_stack_optimizers(optimizers, same_recipe)]
        replaced["callbacks"] = {
            name: {account: [checkpoint["callbacks"][name][account] for checkpoint in checkpoints] for account in state}
            for name, state in first["callbacks"].items()
        }
        replaced["run"] = [checkpoint["run"] for checkpoint in checkpoints]
    return first | replaced


def _split_optimizer(optimizer: Checkpoint, lane: int) -> Checkpoint:
    """Extract one lane's optimizer state, in the format of an optimizer that trains a single run."""
    split = {
        number: {name: value[lane : lane + 1].clone() if value.dim() else value for name, value in state.items()}
        for number, state in optimizer["state"].items()
    }
    return {"state": split, "param_groups": [_group_of_lane(group, lane) for group in optimizer["param_groups"]]}


def _group_of_lane(group: Checkpoint, lane: int) -> Checkpoint:
    shared = {key: value for key, value in group.items() if key not in ONLY_IN_BUNDLES}
    return shared | group["lanes"][lane] if "lanes" in group else group


def _stack_optimizers(optimizers: Sequence[Checkpoint], same_recipe: bool) -> Checkpoint:
    """Merge several runs' optimizer states. A bundle's optimizer stores all lanes of a parameter in one tensor."""

    def merge(values: list[Tensor]) -> Tensor:
        return torch.cat(values) if values[0].dim() else values[0]

    states = [optimizer["state"] for optimizer in optimizers]
    merged = {
        number: {name: merge([state[number][name] for state in states]) for name in first}
        for number, first in states[0].items()
    }
    groups = zip(*(optimizer["param_groups"] for optimizer in optimizers), strict=True)
    return {
        "state": merged,
        "param_groups": [of_lanes[0] if same_recipe else _merge_groups(of_lanes) for of_lanes in groups],
    }


def _merge_groups(groups: Sequence[Checkpoint]) -> Checkpoint:
    recipes = [{key: group[key] for key in RECIPE} for group in groups]
    return groups[0] | dict.fromkeys(RECIPE, 0.0) | {"lanes": recipes, "steps": 0}
