"""The description of a metric: its name, unit, direction, null and cost, and where it is displayed."""

import textwrap
from dataclasses import dataclass
from enum import StrEnum

NATS = "nats per token"
FRACTION = "0 to 1"
AXIS_WIDTH = 22  # characters per line of a vertical axis label


class Direction(StrEnum):
    """Which values of a metric are better."""

    LOWER = "lower is better"
    HIGHER = "higher is better"
    NEITHER = "neither is better"


@dataclass(frozen=True)
class Null:
    """A metric's null: the same measurement on input without the effect, recorded as `<key>_null` and `<column>_null`."""

    description: str
    name: str = ""  # display name in TensorBoard, where the tag ends with "_null"; empty if not displayed


@dataclass(frozen=True)
class NoNull:
    """Marks a metric that has no null, and describes what to compare it with instead."""

    compare_with: str


CLEAN_RUN = NoNull("a clean run of the same size")
UNTRAINED = NoNull("the untrained model")
OTHER_RUNS = NoNull("other runs; it describes the training, not the model")


@dataclass(frozen=True)
class Cost:
    """Number of sequences that an evaluation runs through the model to measure a metric.

    If several metrics are computed from the same forward passes, only one of them has a cost.
    """

    sequences: int = 0  # including those of the null
    sequences_per_head: int = 0  # run once per head, through the head's layer and all later layers


@dataclass(frozen=True)
class Metric:
    """A recorded metric: where it is stored, how to interpret it, and where it is displayed."""

    key: str  # in metrics.jsonl or timing.jsonl; empty if the metric is only in heads.parquet
    name: str
    unit: str  # NATS, FRACTION or other
    direction: Direction
    description: str
    null: Null | NoNull
    probe: str = ""  # the module in repeat_study.probes that measures it
    is_loss: bool = False
    has_interval: bool = False  # if true, the half-width of its 95% interval is recorded as `<key>_ci`
    column: str = ""  # in heads.parquet, with one value per head; `key` then contains the best head's value
    tag: str = ""  # TensorBoard tag; empty if the metric is not in TensorBoard
    chart: bool = False  # whether TensorBoard's side-by-side charts include it
    result: bool = False  # whether TensorBoard's table of runs (HParams) has a result column for it
    scale: float = 1.0  # converts the recorded value to `unit` in TensorBoard
    in_summary: bool = False  # whether the study's summary table has a column for it
    compared: bool = False  # whether the report's findings compare a run's value with the clean run's
    multiplier: str = ""  # the summary column for the effective size implied by the metric [H22, figs. 4-6]
    cost: Cost | None = None

    @property
    def null_key(self) -> str:
        """The metrics.jsonl key for the null; empty if there is no null."""
        return f"{self.key}_null" if self.key and isinstance(self.null, Null) else ""

    @property
    def interval_key(self) -> str:
        """The metrics.jsonl key for the half-width of the 95% interval; empty if there is no interval."""
        return f"{self.key}_ci" if self.key and self.has_interval else ""

    @property
    def null_column(self) -> str:
        """The heads.parquet column for the null; empty if there is no null."""
        return f"{self.column}_null" if self.column and isinstance(self.null, Null) else ""

    @property
    def interval_column(self) -> str:
        """The heads.parquet column for the half-width of the 95% interval; empty if there is no interval."""
        return f"{self.column}_ci" if self.column and self.has_interval else ""

    @property
    def title(self) -> str:
        """Name and unit, e.g. "test loss, nats per token"."""
        return f"{self.name}, {self.unit}" if self.unit else self.name

    @property
    def guide(self) -> str:
        """How to interpret the metric: what it measures, which values are better, and what to compare it with."""
        null = (
            f"null: {self.null.description}"
            if isinstance(self.null, Null)
            else f"compare with {self.null.compare_with}"
        )
        better = "" if self.direction is Direction.NEITHER else f"; {self.direction}"
        return f"{self.description}{better}; {null}"

    @property
    def axis_label(self) -> str:
        """A vertical axis label, wrapped into short lines, e.g. "copying gain\\n(nats/token)" or "prefix matching,\\nbest head"."""
        if self.column and self.unit != NATS:
            return f"{self.name},\nbest head"
        text = f"{self.name} (nats/token)" if self.unit == NATS else self.name
        return textwrap.fill(text, AXIS_WIDTH, break_on_hyphens=False)
