"""What the machine is and can do: precision, peak FLOP/s, memory used."""

import os
import platform
import resource
import sys
import time
from functools import cache
from typing import Any

import torch
from lightning.fabric.utilities.throughput import get_available_flops

from data_prep.errors import InputError
from repeat_study.config.resources import Accelerator, Precision, Resources


def uses_cuda(resources: Resources) -> bool:
    """Whether a run with these resources trains on a GPU of this machine; InputError where it should and there is none."""
    if resources.accelerator is Accelerator.CPU:
        return False
    there = torch.cuda.is_available()
    if resources.accelerator is Accelerator.CUDA and not there:
        raise InputError(
            "resources.accelerator: 'cuda' asked for, this machine has no GPU that torch can use; accepted: 'auto'"
        )
    return there


def gpus_for(resources: Resources) -> int:
    """GPUs of this machine that its pool may use."""
    return torch.cuda.device_count() if uses_cuda(resources) else 0


def multiplies_in(resources: Resources) -> torch.dtype:
    """The type matrix products are computed in."""
    bfloat16 = resources.precision is Precision.BFLOAT16
    if resources.precision is Precision.AUTO:
        bfloat16 = uses_cuda(resources) and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if bfloat16 else torch.float32


def precision_name(resources: Resources) -> str:
    """What the records call it: bfloat16 or float32."""
    return str(multiplies_in(resources)).removeprefix("torch.")


def published_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """FLOP/s of a GPU by Lightning's table; None for a CPU and for a GPU that is not in it."""
    flops = get_available_flops(device, dtype) if device.type == "cuda" else None
    return float(flops) if flops else None


@cache
def peak_flops(device: torch.device, dtype: torch.dtype, threads: int) -> float:
    """FLOP/s of a process at best: a GPU's published number, and of a CPU, or a GPU that is not in Lightning's table,
    what a square matrix product reaches here."""
    if published := published_flops(device, dtype):
        return published
    size = 8192 if device.type == "cuda" else 768
    square = torch.randn(size, size, device=device, dtype=dtype)
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        torch.mm(square, square)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - begun)
    return 2.0 * size**3 / min(seconds)


def peak_memory(device: torch.device) -> int:
    """Most bytes held: on the GPU by this run, or, where there is none, resident by this process since it began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def describe(device: torch.device, resources: Resources, processes: int) -> dict[str, Any]:
    """What a line of sessions.jsonl says of the machine."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine() + " cpu"
    dtype = multiplies_in(resources)
    return {
        "host": platform.node(),
        "job": os.environ.get("SLURM_JOB_ID"),
        "device": name,
        "precision": precision_name(resources),
        "processes": processes,
        "threads": torch.get_num_threads(),
        "sharing": resources.sharing if processes > 1 else None,
        "torch": torch.__version__,
        "peak_flops": processes * peak_flops(device, dtype, torch.get_num_threads()),
        "peak_is": "published" if published_flops(device, dtype) else "measured",
    }
