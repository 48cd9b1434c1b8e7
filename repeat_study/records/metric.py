"""What is known of one recorded number: name, unit, direction, null, cost, and where it is shown."""

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
    """The same measurement on input without the effect, recorded as `<key>_null` and `<column>_null`."""

    description: str
    name: str = ""  # in TensorBoard, at the metric's tag followed by "_null"; empty: not shown there


@dataclass(frozen=True)
class NoNull:
    """A metric without a null of its own, and what to compare it with instead."""

    compare_with: str


CLEAN_RUN = NoNull("a clean run of the same size")
UNTRAINED = NoNull("the untrained model")
NOT_OF_THE_MODEL = NoNull("nothing: it describes the training, not the model")


@dataclass(frozen=True)
class Cost:
    """Forward passes that one evaluation makes for a metric. Metrics that share its passes have no cost of their own."""

    sequences: int = 0  # nulls included
    sequences_per_head: int = 0  # once for every head, through the layers from the head's own onwards


@dataclass(frozen=True)
class Metric:
    """One recorded number: where it is stored, what it is called, how to judge it, where it is shown."""

    key: str  # in metrics.jsonl or timing.jsonl; empty for a number that only heads.parquet has
    name: str
    unit: str  # NATS, FRACTION or other
    direction: Direction
    description: str
    null: Null | NoNull
    probe: str = ""  # the file of repeat_study/probes that measures it
    is_loss: bool = False
    has_interval: bool = False  # half the width of a 95% interval is recorded as `<key>_ci`
    column: str = ""  # in heads.parquet, a value per head; `key` then holds the best head's
    tag: str = ""  # in TensorBoard; empty: not shown there
    chart: bool = False  # among TensorBoard's side-by-side charts
    result: bool = False  # a result column of TensorBoard's table of runs (HParams)
    scale: float = 1.0  # multiplies the recorded value to give `unit` in TensorBoard
    in_summary: bool = False  # a column of the study's summary table
    compared: bool = False  # compared with the clean run in the report's findings
    multiplier: str = ""  # the summary's column for the effective size that the metric implies [H22, figs. 4-6]
    cost: Cost | None = None

    @property
    def null_key(self) -> str:
        """The key of its null in metrics.jsonl; empty if it has none."""
        return f"{self.key}_null" if self.key and isinstance(self.null, Null) else ""

    @property
    def interval_key(self) -> str:
        """The key of half the width of its 95% interval in metrics.jsonl; empty if it has none."""
        return f"{self.key}_ci" if self.key and self.has_interval else ""

    @property
    def null_column(self) -> str:
        """The column of its null in heads.parquet; empty if it has none."""
        return f"{self.column}_null" if self.column and isinstance(self.null, Null) else ""

    @property
    def interval_column(self) -> str:
        """The column of half the width of its 95% interval in heads.parquet; empty if it has none."""
        return f"{self.column}_ci" if self.column and self.has_interval else ""

    @property
    def title(self) -> str:
        """Name and unit, "test loss, nats per token"."""
        return f"{self.name}, {self.unit}" if self.unit else self.name

    @property
    def guide(self) -> str:
        """How to read it: what it measures, which values are better, and what to compare it with."""
        null = (
            f"null: {self.null.description}"
            if isinstance(self.null, Null)
            else f"compare with {self.null.compare_with}"
        )
        better = "" if self.direction is Direction.NEITHER else f"; {self.direction}"
        return f"{self.description}{better}; {null}"

    @property
    def axis_label(self) -> str:
        """A label for a vertical axis, in short lines: "copying gain\\n(nats/token)", "prefix matching,\\nbest head"."""
        if self.column and self.unit != NATS:
            return f"{self.name},\nbest head"
        text = f"{self.name} (nats/token)" if self.unit == NATS else self.name
        return textwrap.fill(text, AXIS_WIDTH, break_on_hyphens=False)
