"""Which runs are trained together, in lockstep, one lane each. Bundling never changes a run's hash, nor its result on a CPU.

This file needs no torch, so planning a study does not either.
"""

from collections.abc import Iterable
from typing import Any

from repeat_study.config.resources import AUTO, Resources, Sharing
from repeat_study.config.run import Run
from repeat_study.cost import training_memory

# Fields in which the runs of a bundle may differ; they agree in all others.
PER_LANE_FIELDS = frozenset(
    {"repeats", "repeated_fraction", "seed", "unit", "spacing", "burst_distance", "pool_seed", "parent"}
    | {"learning_rate", "weight_decay", "warmup_fraction", "final_learning_rate_fraction", "gradient_clip"}
)
USABLE_MEMORY = 0.8  # share of a GPU's memory; the rest is left to workspaces of kernels and to the allocator
# Tokens per step, over all lanes, that keep a large GPU busy whatever the model: more lanes would cost memory and gain nothing.
# This is an estimate, which `benchmarks/bundles.py` measures.
SATURATING_TOKENS = 1 << 18


def bundle_key(run: Run) -> tuple[Any, ...]:
    """Runs with equal keys can share a bundle."""
    return tuple((key, getattr(run, key)) for key in sorted(Run.model_fields.keys() - PER_LANE_FIELDS))


def pack_bundles(
    runs: Iterable[Run], resources: Resources, vocabulary: int, gpu: bool, workers: int = 1
) -> list[list[Run]]:
    """Pack runs into bundles of nearly equal size, at most `max_lanes` runs each, in the given order.

    vocabulary: size of the tokenizer's; gpu: whether the runs train on a GPU; workers: processes or GPUs waiting for work: bundles
    are split until each worker has one, as far as there are runs.
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
    """The largest number of runs like this one that a process trains together.

    `lanes = "auto"` means one on a CPU, where lanes gain nothing, and on a GPU as many as fit into its memory, up to
    SATURATING_TOKENS per step. Processes that share a run train it alone.
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
    """Sequences of a lane in one forward and backward pass of a process; a step may take several passes."""
    per_process = -(-run.sequences_per_step // resources.processes_per_run)
    return min(per_process, resources.micro_sequences or per_process)


def bundle_memory(run: Run, lanes: int, resources: Resources, vocabulary: int) -> int:
    """Lower bound of the bytes that a process needs on its GPU for `lanes` runs like this one, or for its share of one run."""
    rows, shards = run.model_vocabulary(vocabulary), 1
    if resources.sharing is Sharing.FSDP:
        shards = resources.processes_per_run
    sequences = sequences_per_pass(run, resources)
    lane = training_memory(run.shape, rows, run.context, sequences, resources.checkpoint_activations, shards)
    return lanes * lane.total
