"""Decide which runs are trained together as a bundle, in lockstep and with one lane each. Bundling never changes a run's hash.

This file does not import torch, so a study can be planned without it.
"""

from collections.abc import Iterable
from typing import Any

from repeat_study.config.resources import AUTO, Resources, Sharing
from repeat_study.config.run import Run
from repeat_study.cost import training_memory

# Fields in which runs in a bundle may differ. All other fields must be equal.
PER_LANE_FIELDS = frozenset(
    {"repeats", "repeated_fraction", "fixed_pool", "seed", "unit", "spacing", "burst_distance", "pool_seed", "parent"}
    | {"learning_rate", "weight_decay", "warmup_fraction", "final_learning_rate_fraction", "gradient_clip"}
)
USABLE_MEMORY = 0.8  # share of a GPU's memory; the rest is left for kernel workspaces and the allocator
# Number of tokens per step, over all lanes, that keeps a large GPU busy with any model. More lanes would only use more memory.
# This is an estimate; `benchmarks/bundles.py` measures the speed with different numbers of lanes.
SATURATING_TOKENS = 1 << 18


def bundle_key(run: Run) -> tuple[Any, ...]:
    """Return the number of steps and the fields that all runs in a bundle share. Runs with equal keys can be bundled."""
    shared = sorted(Run.model_fields.keys() - PER_LANE_FIELDS)
    return (run.steps, *((key, getattr(run, key)) for key in shared))


def pack_bundles(
    runs: Iterable[Run], resources: Resources, vocabulary: int, gpu: bool, workers: int = 1
) -> list[list[Run]]:
    """Pack runs in the given order into bundles of nearly equal size, with at most `max_lanes` runs each.

    vocabulary: number of tokens in the tokenizer's vocabulary.
    gpu: whether the runs train on a GPU.
    workers: number of worker processes or GPUs. Bundles are split until there is one for each worker, or until each holds a
        single run.
    """
    by_key: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        by_key.setdefault(bundle_key(run), []).append(run)
    packed = []
    for group in by_key.values():
        count = -(-len(group) // max_lanes(group[0], resources, vocabulary, gpu))
        for number in range(count):
            packed.append(group[len(group) * number // count : len(group) * (number + 1) // count])
    while len(packed) < workers and (largest := max(packed, key=len, default=[]))[1:]:
        at = packed.index(largest)
        packed[at : at + 1] = [largest[: len(largest) // 2], largest[len(largest) // 2 :]]
    return packed


def max_lanes(run: Run, resources: Resources, vocabulary: int, gpu: bool) -> int:
    """Return the maximum number of lanes for a process that trains runs like this one.

    `lanes = "auto"` means one lane on a CPU, where more lanes are not faster. On a GPU, it means as many lanes as fit into its memory,
    up to SATURATING_TOKENS per step. Processes that share a run have one lane.
    """
    if resources.processes_per_run > 1:
        return 1
    if resources.lanes != AUTO:
        return int(resources.lanes)
    if not gpu:
        return 1
    fitting = int(USABLE_MEMORY * resources.gpu_memory_gb * 1e9 // bundle_memory(run, 1, resources, vocabulary))
    saturating = -(-SATURATING_TOKENS // (sequences_per_pass(run, resources) * run.context))
    return max(1, min(fitting, saturating))


def sequences_per_pass(run: Run, resources: Resources) -> int:
    """Number of sequences per lane in each forward and backward pass of one process. A step may take several passes."""
    per_process = -(-run.sequences_per_step // resources.processes_per_run)
    return min(per_process, resources.micro_sequences or per_process)


def bundle_memory(run: Run, lanes: int, resources: Resources, vocabulary: int) -> int:
    """Lower bound, in bytes, on the GPU memory that a process needs for `lanes` runs like this one, or for its share of one run."""
    rows, shards = run.model_vocabulary(vocabulary), 1
    if resources.sharing is Sharing.FSDP:
        shards = resources.processes_per_run
    sequences = sequences_per_pass(run, resources)
    lane = training_memory(run.shape, rows, run.context, sequences, resources.checkpoint_activations, shards)
    return lanes * lane.total
