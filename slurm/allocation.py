"""What each run of a sweep asks of a cluster: the `[slurm]` table of a study. None of it is in a run's identity."""

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
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d+){0,2})")


class Allocation(Spec):
    """Of one job, which trains one run; names and units are submitit's and sbatch's."""

    partition: str | None = None  # left out: the cluster's default, as with all that is None
    account: str | None = None
    qos: str | None = None
    time: str = "4:00:00"  # of one stay on a node: a run that needs more is requeued and goes on
    nodes: int = Field(1, ge=1)
    gpus_per_node: int = Field(0, ge=0)
    cpus_per_task: int = Field(1, ge=1)
    mem_gb: float | None = Field(None, gt=0)  # per node
    constraint: str | None = None
    exclude: str | None = None
    array_parallelism: int | None = Field(None, ge=1)  # runs at a time
    signal_delay_s: int = Field(90, ge=1)  # seconds before the time limit at which a run is told to save
    setup: list[str] = Field(default_factory=list)  # shell lines before a run starts, e.g. "module load cuda"
    extra: dict[str, str | int | bool] = Field(
        default_factory=dict
    )  # any other option of sbatch, e.g. {reservation = "maintenance"}

    @model_validator(mode="after")
    def _leaves_time_to_train(self) -> Self:
        if self.minutes * 60 <= self.signal_delay_s:
            raise InputError(
                f"time: {self.time} is no longer than the {self.signal_delay_s} s of signal_delay_s in which a run saves"
            )
        return self

    @property
    def minutes(self) -> int:
        """The time limit, rounded up to whole minutes as SLURM does."""
        found = _TIME.fullmatch(self.time)
        if not found:
            raise InputError(f"time: accepted are minutes, hours:minutes:seconds or days-hours, found {self.time!r}")
        parts = [int(part) for part in found["parts"].split(":")]
        if found["days"]:
            hours, minutes, seconds = [*parts, 0, 0][:3]
        else:
            hours, minutes, seconds = [[0, *parts, 0], [0, *parts], parts][len(parts) - 1]
        return math.ceil((int(found["days"] or 0) * 24 + hours) * 60 + minutes + seconds / 60)

    def tasks_per_node(self, resources: Resources) -> int:
        """Processes of a run on each node; InputError where they do not fit what is asked for."""
        world = resources.processes_per_run
        if world % self.nodes:
            raise InputError(f"slurm.nodes: {world} processes_per_run do not divide among {self.nodes} nodes")
        tasks = world // self.nodes
        if self.gpus_per_node not in (0, tasks):
            raise InputError(
                f"slurm.gpus_per_node: {self.gpus_per_node} GPUs on each of {self.nodes} nodes for {world} processes;"
                f" give each process one: --set resources.processes_per_run={self.gpus_per_node * self.nodes}"
            )
        return tasks

    def parameters(self, resources: Resources) -> dict[str, Any]:
        """Arguments of submitit's SlurmExecutor.update_parameters."""
        renamed = {"time", "mem_gb", "extra", "array_parallelism"}
        plain = self.model_dump(exclude=renamed, exclude_none=True)
        if not self.gpus_per_node:
            del plain["gpus_per_node"]
        if self.mem_gb:
            plain["mem"] = f"{math.ceil(self.mem_gb * 1024)}MB"
        # A run may always be requeued, whatever the cluster's JobRequeue says: it goes on from its checkpoint.
        more = {"requeue": True} | {key.replace("-", "_"): value for key, value in self.extra.items()}
        return plain | {
            "time": self.minutes,
            "ntasks_per_node": self.tasks_per_node(resources),
            "additional_parameters": more,
        }


def allocation_of(study: dict[str, Any], given: dict[str, Any], user_file: Path) -> Allocation:
    """What was `given` on the command line, else the study's `[slurm]` table, else the user's file, else the defaults.

    Raises InputError naming the file or table, the key, what was found and what is accepted.
    """
    own = _read(user_file)
    if own:
        validated(Allocation, own, f"{user_file}: ")
    given = {key: value for key, value in given.items() if value is not None}
    return validated(Allocation, own | study | given, "slurm.")


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
