"""A study's `[slurm]` table: the resources that each job requests. Changing them does not change a run's identity."""

import math
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from data_prep.errors import InputError
from data_prep.files import read_text
from repeat_study.config.base import ONE_LINE, Spec, validated
from repeat_study.config.resources import Resources

Line = Annotated[str, Field(pattern=ONE_LINE)]  # becomes part of one line of a batch script

# Formats: minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes, days-hours:minutes:seconds
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<fields>\d+(?::\d+){0,2})")


LONGEST_TIME = "365-0"


class Allocation(Spec):
    """Resources requested for one job, which trains one run or one bundle. Names and units follow submitit and sbatch.

    None selects the cluster's default.
    """

    partition: Line | None = None
    account: Line | None = None
    qos: Line | None = None
    time: str = "4:00:00"  # time limit of a job; a longer run is requeued and resumes from its checkpoint
    nodes: int = Field(1, ge=1)
    gpus_per_node: int = Field(0, ge=0)
    cpus_per_task: int = Field(1, ge=1)
    mem_gb: float | None = Field(None, gt=0)  # per node
    constraint: Line | None = None
    exclude: Line | None = None
    array_parallelism: int | None = Field(None, ge=1)  # maximum number of jobs that run simultaneously
    signal_delay_s: int = Field(90, ge=1)  # the job is told to save this many seconds before its time limit
    setup: list[str] = Field(default_factory=list)  # shell commands to run before training, e.g. "module load cuda"
    # any other sbatch options, e.g. {reservation = "maintenance"}
    extra: dict[Line, Line | int | bool] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _leaves_time_to_train(self) -> Self:
        if self.minutes * 60 <= self.signal_delay_s:
            raise InputError(
                f"time: {self.time} must be longer than signal_delay_s ({self.signal_delay_s} s), the time reserved for saving"
            )
        return self

    @property
    def minutes(self) -> int:
        """The time limit, rounded up to whole minutes as SLURM does."""
        match = _TIME.fullmatch(self.time)
        if not match:
            raise InputError(f"time: expected minutes, hours:minutes:seconds or days-hours, found {self.time!r}")
        fields = [int(number) for number in match["fields"].split(":")]
        if match["days"]:
            hours, minutes, seconds = [*fields, 0, 0][:3]
        else:
            hours, minutes, seconds = [[0, *fields, 0], [0, *fields], fields][len(fields) - 1]
        return math.ceil((int(match["days"] or 0) * 24 + hours) * 60 + minutes + seconds / 60)

    def tasks_per_node(self, resources: Resources) -> int:
        """Number of processes per node. Raises InputError if it does not match the requested nodes and GPUs."""
        world = resources.processes_per_run
        if world % self.nodes:
            raise InputError(f"slurm.nodes: processes_per_run={world} does not divide evenly among {self.nodes} nodes")
        tasks = world // self.nodes
        if self.gpus_per_node not in (0, tasks):
            raise InputError(
                f"slurm.gpus_per_node: {self.gpus_per_node} GPUs on each of {self.nodes} nodes for {world} processes;"
                f" each process needs exactly one GPU; try --set resources.processes_per_run={self.gpus_per_node * self.nodes}"
            )
        return tasks

    def parameters(self, resources: Resources) -> dict[str, Any]:
        """Arguments for submitit's `SlurmExecutor.update_parameters`."""
        renamed = {"time", "mem_gb", "extra", "array_parallelism"}
        parameters = self.model_dump(exclude=renamed, exclude_none=True)
        if not self.gpus_per_node:
            del parameters["gpus_per_node"]
        if self.mem_gb:
            parameters["mem"] = f"{math.ceil(self.mem_gb * 1024)}MB"
        # Always allow requeueing, whatever the cluster's default, because a requeued run resumes from its checkpoint.
        additional = {"requeue": True} | {key.replace("-", "_"): value for key, value in self.extra.items()}
        return parameters | {
            "time": self.minutes,
            "ntasks_per_node": self.tasks_per_node(resources),
            "additional_parameters": additional,
        }


def check_table(study_table: dict[str, Any]) -> None:
    """Check every key of a study's `[slurm]` table. A longer time limit than the default can still come from an option.

    Raises InputError with the key, the value found and the values accepted.
    """
    validated(Allocation, {"time": LONGEST_TIME} | study_table, "slurm.")


def merge_allocation(study_table: dict[str, Any], options: dict[str, Any], user_file: Path) -> Allocation:
    """Merge, from highest to lowest priority, command-line `options`, the study's `[slurm]` table and the user's file.

    Raises InputError with the file or table, the key, the value found and the values accepted.
    """
    user_table = _read(user_file)
    if user_table:
        validated(Allocation, user_table, f"{user_file}: ")
    options = {key: value for key, value in options.items() if value is not None}
    return validated(Allocation, user_table | study_table | options, "slurm.")


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(path))
    except InputError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return {}
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
