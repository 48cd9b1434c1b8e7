"""The `[slurm]` table of a study: what each job requests from the cluster. It is not part of a run's identity."""

import math
import re
import tomllib
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from data_prep.errors import InputError
from repeat_study.config.base import Spec, validated
from repeat_study.config.resources import Resources

# minutes, minutes:seconds, hours:minutes:seconds; days-hours, days-hours:minutes, days-hours:minutes:seconds
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<fields>\d+(?::\d+){0,2})")


class Allocation(Spec):
    """What one job requests; the job trains one run or one bundle. Names and units follow submitit and sbatch.

    None means the cluster's default.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: str = "4:00:00"  # time limit; a run that needs longer is requeued and continues from its checkpoint
    nodes: int = Field(1, ge=1)
    gpus_per_node: int = Field(0, ge=0)
    cpus_per_task: int = Field(1, ge=1)
    mem_gb: float | None = Field(None, gt=0)  # per node
    constraint: str | None = None
    exclude: str | None = None
    array_parallelism: int | None = Field(None, ge=1)  # jobs at a time, each with a run or a bundle
    signal_delay_s: int = Field(90, ge=1)  # seconds before the time limit when the job gets the signal to save
    setup: list[str] = Field(default_factory=list)  # shell lines before training, e.g. "module load cuda"
    # any other option of sbatch, e.g. {reservation = "maintenance"}
    extra: dict[str, str | int | bool] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _leaves_time_to_train(self) -> Self:
        if self.minutes * 60 <= self.signal_delay_s:
            raise InputError(
                f"time: {self.time} is no longer than signal_delay_s ({self.signal_delay_s} s), the time a run has to save"
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
        """Processes of a run on each node. Raises InputError if they do not match the requested nodes and GPUs."""
        world = resources.processes_per_run
        if world % self.nodes:
            raise InputError(f"slurm.nodes: processes_per_run={world} does not divide evenly among {self.nodes} nodes")
        tasks = world // self.nodes
        if self.gpus_per_node not in (0, tasks):
            raise InputError(
                f"slurm.gpus_per_node: {self.gpus_per_node} GPUs on each of {self.nodes} nodes for {world} processes;"
                f" each process needs exactly one: --set resources.processes_per_run={self.gpus_per_node * self.nodes}"
            )
        return tasks

    def parameters(self, resources: Resources) -> dict[str, Any]:
        """Arguments of submitit's SlurmExecutor.update_parameters."""
        renamed = {"time", "mem_gb", "extra", "array_parallelism"}
        parameters = self.model_dump(exclude=renamed, exclude_none=True)
        if not self.gpus_per_node:
            del parameters["gpus_per_node"]
        if self.mem_gb:
            parameters["mem"] = f"{math.ceil(self.mem_gb * 1024)}MB"
        # Requeueing is safe whatever the cluster's JobRequeue setting: the run continues from its checkpoint.
        additional = {"requeue": True} | {key.replace("-", "_"): value for key, value in self.extra.items()}
        return parameters | {
            "time": self.minutes,
            "ntasks_per_node": self.tasks_per_node(resources),
            "additional_parameters": additional,
        }


def merge_allocation(study_table: dict[str, Any], options: dict[str, Any], user_file: Path) -> Allocation:
    """Command-line `options` override the study's `[slurm]` table, which overrides the user's file, then the defaults.

    Raises InputError naming the file or table, the key, what was found and what is accepted.
    """
    user_table = _read(user_file)
    if user_table:
        validated(Allocation, user_table, f"{user_file}: ")
    options = {key: value for key, value in options.items() if value is not None}
    return validated(Allocation, user_table | study_table | options, "slurm.")


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
