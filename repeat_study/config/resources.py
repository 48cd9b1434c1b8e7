"""What a run may use. None of it is in a run's identity: it decides how fast a result comes, and its rounding.

Precision rounds most: a run keeps the one it began with, and the report says where a study has several.
"""

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from data_prep.errors import InputError

AUTO: Literal["auto"] = "auto"


class Precision(StrEnum):
    """What matrix products are computed in; weights and optimiser state are float32 always."""

    AUTO = "auto"  # bfloat16 on a GPU that has it, float32 elsewhere
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Sharing(StrEnum):
    """How the processes of one run share it."""

    DDP = "ddp"  # each holds the whole model and a part of every batch
    FSDP = "fsdp"  # weights, gradients and optimiser state are split too: for what does not fit


class Keep(StrEnum):
    """Which weights stay beside the last checkpoint, in checkpoints/step-*.pt."""

    LAST = "last"  # none
    LOG = "log"  # those of the log-spaced evaluations, for probing how a run came to be
    ALL = "all"  # those of every evaluation


class Accelerator(StrEnum):
    """What a run trains on."""

    AUTO = "auto"  # a GPU where there is one
    CPU = "cpu"
    CUDA = "cuda"


class Resources(BaseModel):
    """The `[resources]` table of a study, which may be left out."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    accelerator: Accelerator = Field(Accelerator.AUTO, strict=False)
    precision: Precision = Field(Precision.AUTO, strict=False)
    processes_per_run: int = Field(1, ge=1, le=4096)  # each has a GPU, or a core where there is none
    sharing: Sharing = Field(Sharing.DDP, strict=False)
    micro_sequences: int | None = Field(None, ge=1)  # sequences at a time in a process; left out: its whole share
    checkpoint_activations: bool = False  # less memory for about a third more time
    compile: bool | None = None  # left out: on CUDA
    lanes: int | Literal["auto"] = 1  # runs that one process trains in lockstep
    gpu_memory_gb: float = Field(80.0, gt=0)  # that lanes = "auto" may fill, of one GPU
    keep_checkpoints: Keep = Field(Keep.LAST, strict=False)

    @field_validator("lanes", mode="before")
    @classmethod
    def _a_number_or_auto(cls, value: Any) -> Any:
        if value != AUTO and not (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
            raise InputError(f'resources.lanes: {value!r} found; accepted are "{AUTO}" and whole numbers from 1')
        return value
