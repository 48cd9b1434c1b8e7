"""A study's hardware settings: device, precision, processes and memory. They are not part of a run's identity.

They affect a run's speed and the rounding of its results. Precision has the largest effect on rounding, so a run keeps
the precision it started with, and the report warns if runs in a study differ in precision.
"""

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from data_prep.errors import InputError
from repeat_study.config.run import Run

AUTO: Literal["auto"] = "auto"
REDUCE_OVERHEAD: Literal["reduce-overhead"] = "reduce-overhead"  # torch.compile's mode that uses CUDA graphs


class Precision(StrEnum):
    """Data type of matrix products; weights and optimizer state are always float32."""

    AUTO = "auto"  # bfloat16 on a GPU that supports it, float32 elsewhere
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Sharing(StrEnum):
    """How the processes of one run divide the work."""

    DDP = "ddp"  # every process has a copy of the model and trains on a share of every batch
    FSDP = "fsdp"  # weights, gradients and optimizer state are sharded too, for models that do not fit on one GPU


class Keep(StrEnum):
    """Which weights are kept in checkpoints/step-*.pt in addition to the last checkpoint."""

    LAST = "last"  # no additional weights
    LOG = "log"  # the weights at the log-spaced evaluations, for probing a run at different stages of training
    ALL = "all"  # the weights at every evaluation


class Accelerator(StrEnum):
    """The device that a run trains on."""

    AUTO = "auto"  # a GPU if there is one
    CPU = "cpu"
    CUDA = "cuda"


class Resources(BaseModel):
    """The optional `[resources]` table of a study."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    accelerator: Accelerator = Field(Accelerator.AUTO, strict=False)
    precision: Precision = Field(Precision.AUTO, strict=False)
    processes_per_run: int = Field(1, ge=1, le=4096)  # each uses one GPU, or one CPU core if there is no GPU
    sharing: Sharing = Field(Sharing.DDP, strict=False)
    micro_sequences: int | None = Field(None, ge=1)  # sequences per forward pass; None: all of the process's sequences
    checkpoint_activations: bool = False  # saves memory, but training takes about a third longer
    compile: bool | Literal["reduce-overhead"] | None = None  # None: only on CUDA, without CUDA graphs
    lanes: int | Literal["auto"] = 1  # number of runs that one process trains in lockstep
    gpu_memory_gb: float = Field(80.0, gt=0)  # GPU memory in GB that lanes = "auto" may use
    keep_checkpoints: Keep = Field(Keep.LAST, strict=False)

    @field_validator("compile", mode="before")
    @classmethod
    def _check_compile(cls, value: Any) -> Any:
        if not (value is None or isinstance(value, bool) or value == REDUCE_OVERHEAD):
            raise InputError(f'resources.compile: {value!r} found; expected true, false or "{REDUCE_OVERHEAD}"')
        return value

    @field_validator("lanes", mode="before")
    @classmethod
    def _check_lanes(cls, value: Any) -> Any:
        if value != AUTO and not (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
            raise InputError(f'resources.lanes: {value!r} found; expected "{AUTO}" or a positive integer')
        return value


def check_divisible(run: Run, resources: Resources, vocabulary: int) -> None:
    """Raise InputError if the processes of one run cannot split its batch and, with FSDP, its model evenly.

    vocabulary: size of the tokenizer's vocabulary.
    """
    processes = resources.processes_per_run
    if run.sequences_per_step % processes:
        indivisible = f"the {run.sequences_per_step} sequences per step of {run.model}"
    elif resources.sharing is Sharing.FSDP and (axis := _indivisible_axis(run, vocabulary, processes)):
        indivisible = f"with FSDP, the {axis} of {run.model}"
    else:
        return
    raise InputError(f"resources.processes_per_run: {indivisible} cannot be split evenly among {processes} processes")


def _indivisible_axis(run: Run, vocabulary: int, processes: int) -> str:
    """Describe the first axis that the processes cannot split evenly; return an empty string if there is none."""
    shape, rows = run.shape, run.model_vocabulary(vocabulary)
    axes = {"d_model": shape.d_model, "head": shape.heads * shape.d_head, "MLP": shape.mlp_width, "vocabulary": rows}
    return next((f"{size} {axis} rows" for axis, size in axes.items() if size % processes), "")
