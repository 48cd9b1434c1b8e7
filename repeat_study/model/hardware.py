"""Query the hardware: GPUs, precision, peak FLOP/s and memory use."""

import os
import platform
import resource
import sys
import time
from functools import cache
from typing import Any

import torch

from data_prep.errors import InputError
from repeat_study.config.resources import Accelerator, Precision, Resources


def uses_cuda(resources: Resources) -> bool:
    """Whether a run with these resources trains on a GPU.

    Raises InputError if the resources require a GPU and this machine has none.
    """
    if resources.accelerator is Accelerator.CPU:
        return False
    available = torch.cuda.is_available()
    if resources.accelerator is Accelerator.CUDA and not available:
        raise InputError(
            "resources.accelerator: 'cuda' found, but torch finds no GPU on this machine; use 'auto' or 'cpu'"
        )
    return available


def gpus_for(resources: Resources) -> int:
    """Number of GPUs on this machine, or 0 if these resources rule out GPUs."""
    return torch.cuda.device_count() if uses_cuda(resources) else 0


def matmul_dtype(resources: Resources) -> torch.dtype:
    """The dtype of matrix products."""
    bfloat16 = resources.precision is Precision.BFLOAT16
    if resources.precision is Precision.AUTO:
        bfloat16 = uses_cuda(resources) and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if bfloat16 else torch.float32


def precision_name(resources: Resources) -> str:
    """The name of the precision, as recorded in sessions.jsonl: bfloat16 or float32."""
    return str(matmul_dtype(resources)).removeprefix("torch.")


def published_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """Peak FLOP/s of a GPU according to Lightning's table; None for a CPU or for a GPU that is not in the table."""
    if device.type != "cuda":
        return None
    from lightning.fabric.utilities.throughput import get_available_flops  # takes seconds to import

    flops = get_available_flops(device, dtype)
    return float(flops) if flops else None


@cache
def peak_flops(device: torch.device, dtype: torch.dtype, threads: int) -> float:
    """Peak FLOP/s of one process: the published number or, if there is none, the measured speed of a large matrix product.

    `threads` is used only as part of the cache key.
    """
    if published := published_flops(device, dtype):
        return published
    size = 8192 if device.type == "cuda" else 768
    square = torch.randn(size, size, device=device, dtype=dtype)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        torch.mm(square, square)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return 2.0 * size**3 / min(seconds)


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: allocated GPU memory, or this process's resident memory on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def describe(device: torch.device, resources: Resources, processes: int) -> dict[str, Any]:
    """Describe the machine, as recorded in sessions.jsonl."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine() + " cpu"
    dtype = matmul_dtype(resources)
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
