"""Which runs are trained together, in lockstep, a lane each. Where and how they are placed changes none of them."""

from collections.abc import Iterable
from typing import Any

from repeat_study.config.resources import AUTO, Resources, Sharing
from repeat_study.config.run import Run
from repeat_study.cost import training_memory

# What the runs of a bundle may differ in; everything else they share.
OF_LANE = frozenset(
    {"repeats", "repeated_fraction", "seed", "unit", "spacing", "burst_distance", "pool_seed", "parent"}
    | {"learning_rate", "weight_decay", "warmup_fraction", "final_learning_rate_fraction", "gradient_clip"}
)
USABLE = 0.8  # of a GPU's memory; kernels' workspaces and the allocator take the rest
# Tokens of a step, all lanes together, from which on a large GPU is busy whatever the model: lanes beyond that would cost
# memory and gain nothing. An estimate: `benchmarks/bundles.py` measures it.
ENOUGH_TOKENS = 1 << 18


def alike(run: Run) -> tuple[Any, ...]:
    """What two runs have to agree in to share a bundle."""
    return tuple((key, getattr(run, key)) for key in sorted(Run.model_fields.keys() - OF_LANE))


def bundles(runs: Iterable[Run], resources: Resources, vocabulary: int, gpu: bool, places: int = 1) -> list[list[Run]]:
    """Runs packed into bundles as `resources.lanes` says, as evenly as may be, in the order given; each run once.

    vocabulary: the tokenizer's; gpu: whether they train on one; places: processes or GPUs that wait for work, each of which is to
    have some. Processes that share a run have no lanes to give.
    """
    kinds: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        kinds.setdefault(alike(run), []).append(run)
    packed = []
    for of_kind in kinds.values():
        count = -(-len(of_kind) // lanes_of(of_kind[0], resources, vocabulary, gpu))
        for number in range(count):
            packed.append(of_kind[len(of_kind) * number // count : len(of_kind) * (number + 1) // count])
    while len(packed) < places and (largest := max(packed, key=len, default=[]))[1:]:
        at = packed.index(largest)
        packed[at : at + 1] = [largest[: len(largest) // 2], largest[len(largest) // 2 :]]
    return packed


def lanes_of(run: Run, resources: Resources, vocabulary: int, gpu: bool) -> int:
    """The most runs like this one that a process trains together.

    `auto` is one on a CPU, where lanes gain nothing, and on a GPU what its memory holds, up to a step of ENOUGH_TOKENS.
    """
    if resources.processes_per_run > 1:
        return 1
    if resources.lanes != AUTO:
        return int(resources.lanes)
    if not gpu:
        return 1
    fit = int(USABLE * resources.gpu_memory_gb * 1e9 // bundle_memory(run, 1, resources, vocabulary))
    busy = -(-ENOUGH_TOKENS // (at_once(run, resources) * run.context))
    return max(1, min(fit, busy))


def at_once(run: Run, resources: Resources) -> int:
    """Sequences of a lane that a process computes at a time."""
    share = -(-run.sequences_per_step // resources.processes_per_run)
    return min(share, resources.micro_sequences or share)


def bundle_memory(run: Run, lanes: int, resources: Resources, vocabulary: int) -> int:
    """Bytes that a process with as many runs like this one, or with its part of one, keeps on a GPU at once, at least."""
    rows, split = run.model_vocabulary(vocabulary), 1
    if resources.sharing is Sharing.FSDP:
        split = resources.processes_per_run
    sequences = at_once(run, resources)
    each = training_memory(run.shape, rows, run.context, sequences, resources.checkpoint_activations, split)
    return lanes * each.total
