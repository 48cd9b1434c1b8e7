"""The list of metrics: every number that an evaluation records, described once.

TensorBoard, evaluation cost, tables, effective sizes and figures all read their names, units, nulls and intervals here, so
a new metric is one entry in METRICS; `probe` names the file in repeat_study/probes that measures it. This file imports nothing
heavy. Examples:

    from repeat_study.records.metrics import BY_COLUMN, BY_KEY, METRICS, further_test_loss

    metric = BY_KEY["copying_gain"]
    row[metric.key], row[metric.interval_key], row[metric.null_key]   # one line of metrics.jsonl
    axes.set_ylabel(metric.axis_label)                                # "copying gain\\n(nats/token)"

    [metric for metric in METRICS if metric.in_summary]               # columns of the study's summary table
    [metric for metric in METRICS if metric.compared]                 # what the report compares with the clean run
    [metric for metric in METRICS if metric.multiplier]               # what can be read as an effective size
    [metric for metric in METRICS if metric.column]                   # columns of heads.parquet: BY_COLUMN["ov_copying"]
    sum(metric.cost.sequences for metric in METRICS if metric.cost)   # what one evaluation costs

A figure or a table that shows only some metrics lists their keys and looks up everything else here.
"""

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
    def axis_label(self) -> str:
        """A label for a vertical axis, in short lines: "copying gain\\n(nats/token)", "prefix matching,\\nbest head"."""
        if self.column and self.unit != NATS:
            return f"{self.name},\nbest head"
        text = f"{self.name} (nats/token)" if self.unit == NATS else self.name
        return textwrap.fill(text, AXIS_WIDTH, break_on_hyphens=False)


# In the order of metrics.jsonl and of TensorBoard's charts. A metric's cost is counted once per forward pass, at the first
# metric that needs it; the losses on a run's texts depend on its spec and are counted by `cost.expected_evaluation_share`.
METRICS = (
    Metric(
        "train_loss",
        "training loss",
        NATS,
        Direction.LOWER,
        "mean over the steps since the previous evaluation",
        NOT_OF_THE_MODEL,
        is_loss=True,
        tag="loss/train",
    ),
    Metric(
        "gradient_norm",
        "gradient norm",
        "",
        Direction.NEITHER,
        "before clipping, mean over the steps since the previous evaluation",
        NOT_OF_THE_MODEL,
        tag="training/gradient_norm",
    ),
    Metric(
        "learning_rate",
        "learning rate",
        "",
        Direction.NEITHER,
        "of the next step",
        NOT_OF_THE_MODEL,
        tag="training/learning_rate",
    ),
    Metric(
        "test_loss",
        "test loss",
        NATS,
        Direction.LOWER,
        "on held-out text",
        CLEAN_RUN,
        probe="text_losses",
        is_loss=True,
        tag="loss/test",
        chart=True,
        result=True,
        in_summary=True,
        compared=True,
        multiplier="size_multiplier",
    ),
    Metric(
        "pool_loss",
        "pool loss",
        NATS,
        Direction.NEITHER,  # low on memorised text
        "on the repeated pool; in a clean run, on similar text that the run never trains on",
        CLEAN_RUN,
        probe="text_losses",
        is_loss=True,
        tag="loss/pool",
        chart=True,
        result=True,
        in_summary=True,
    ),
    Metric(
        "seen_unique_loss",
        "loss on unique text seen",
        NATS,
        Direction.LOWER,
        "on text that the run trained on exactly once",
        CLEAN_RUN,
        probe="text_losses",
        is_loss=True,
        tag="loss/seen_unique",
        in_summary=True,
    ),
    Metric(
        "in_context_score",
        "in-context score",
        NATS,
        Direction.LOWER,
        "loss late in the context minus loss early in it; negative if the model uses its context",  # [O22]
        UNTRAINED,
        probe="text_losses",
        has_interval=True,
        tag="induction/in_context_score",
        chart=True,
        in_summary=True,
        compared=True,
    ),
    Metric(
        "copying_loss",
        "copying loss",
        NATS,
        Direction.LOWER,
        "on the second and later copies of a paragraph",  # [H22, fig. 5]
        CLEAN_RUN,
        probe="copying",
        is_loss=True,
        has_interval=True,
        tag="copying/loss",
        chart=True,
        in_summary=True,
        compared=True,
        multiplier="copying_multiplier",
        cost=Cost(sequences=6 + 6),
    ),
    Metric(
        "copying_gain",
        "copying gain",
        NATS,
        Direction.HIGHER,
        "loss on the first copy of a paragraph minus loss on later copies",
        Null("every copy shuffles the paragraph's tokens anew", "null of the copying gain"),
        probe="copying",
        has_interval=True,
        tag="copying/gain",
        chart=True,
        result=True,
        in_summary=True,
        compared=True,
    ),
    Metric(
        "parent_test_loss",
        "loss on the parent's test text",
        NATS,
        Direction.LOWER,
        "of a fine-tuned run",
        CLEAN_RUN,
        probe="parent_losses",
        is_loss=True,
        tag="loss/parent_test",
    ),
    Metric(
        "parent_pool_loss",
        "loss on the parent's pool",
        NATS,
        Direction.NEITHER,
        "of a fine-tuned run; rises as the run forgets it",
        CLEAN_RUN,
        probe="parent_losses",
        is_loss=True,
        tag="loss/parent_pool",
    ),
    Metric(
        "parent_seen_unique_loss",
        "loss on unique text the parent saw",
        NATS,
        Direction.NEITHER,
        "of a fine-tuned run; rises as the run forgets it",
        CLEAN_RUN,
        probe="parent_losses",
        is_loss=True,
        tag="loss/parent_seen_unique",
    ),
    Metric(
        "random_copying_loss",
        "loss on copied random tokens",
        NATS,
        Direction.LOWER,
        "on the second and later copies of random tokens",
        CLEAN_RUN,
        probe="head_table",
        is_loss=True,
        has_interval=True,
        in_summary=True,
        multiplier="random_copying_multiplier",
        cost=Cost(sequences=10 + 4),
    ),
    Metric(
        "random_copying_gain",
        "copying gain on random tokens",
        NATS,
        Direction.HIGHER,
        "loss on the first copy of random tokens minus loss on later copies",
        Null("every copy has fresh tokens", "null of the copying gain on random tokens"),
        probe="head_table",
        has_interval=True,
        tag="copying/random_gain",
        in_summary=True,
        compared=True,
    ),
    Metric(
        "prefix_matching",
        "prefix matching",
        FRACTION,
        Direction.HIGHER,
        "the best head's attention to the tokens that followed earlier occurrences of the current token",  # [O22]
        Null("no token occurs twice", "null of prefix matching"),
        probe="head_table",
        has_interval=True,
        column="prefix_matching",
        tag="induction/prefix_matching",
        chart=True,
        result=True,
        in_summary=True,
        compared=True,
        multiplier="prefix_matching_multiplier",
    ),
    Metric(
        "previous_token",
        "attention to the token before",
        FRACTION,
        Direction.HIGHER,
        "the best previous-token head's attention to the previous token",
        Null("attention to the token two before"),
        probe="head_table",
        has_interval=True,
        column="previous_token",
        tag="induction/previous_token",
    ),
    Metric(
        "copying_score",
        "copying score",
        "-1 to 1",
        Direction.HIGHER,
        "how much the best head, attending to a token, raises that token's logit above other tokens'",  # [O22]
        Null("how much it raises the logit of another token of the sequence"),
        probe="head_table",
        has_interval=True,
        column="copying",
        tag="induction/copying_score",
        in_summary=True,
        compared=True,
    ),
    Metric(
        "",
        "OV copying",
        "-1 to 1",
        Direction.HIGHER,
        "sum of the OV circuit's eigenvalues over the sum of their absolute values",  # [E21]
        UNTRAINED,
        probe="head_table",
        column="ov_copying",
    ),
    Metric(
        "",
        "attribution",
        "logits",
        Direction.HIGHER,
        "the head's direct contribution to the logit of the token that induction predicts",
        Null("no token occurs twice"),
        probe="head_table",
        has_interval=True,
        column="attribution",
    ),
    Metric(
        "ablation_copying_gain",
        "copying gain lost by ablation",
        NATS,
        Direction.HIGHER,
        "drop in copying gain when the most important head is ablated",
        Null("every copy shuffles the paragraph's tokens anew", "null of the gain lost by ablation"),
        probe="head_table",
        has_interval=True,
        column="ablation_copying_gain",
        tag="induction/ablation_copying_gain",
        cost=Cost(sequences_per_head=4 + 4),
    ),
    Metric(
        "",
        "copying loss added by ablation",
        NATS,
        Direction.HIGHER,
        "rise in loss on the second and later copies when the head is ablated",
        UNTRAINED,
        probe="head_table",
        has_interval=True,
        column="ablation_copying_loss",
    ),
    Metric(
        "",
        "in-context score lost by ablation",
        NATS,
        Direction.HIGHER,
        "rise in the in-context score when the head is ablated",
        UNTRAINED,
        probe="head_table",
        has_interval=True,
        column="ablation_in_context_score",
        cost=Cost(sequences_per_head=4),
    ),
    # timing.jsonl
    Metric(
        "tokens_per_second",
        "speed",
        "tokens per second",
        Direction.HIGHER,
        "of training, without evaluations",
        NOT_OF_THE_MODEL,
        tag="machine/tokens_per_second",
    ),
    Metric(
        "utilisation",
        "utilisation",
        FRACTION,
        Direction.HIGHER,
        "share of the machine's peak FLOPs",
        NOT_OF_THE_MODEL,
        tag="machine/utilisation",
    ),
    Metric(
        "memory_bytes",
        "memory",
        "GiB",
        Direction.LOWER,
        "peak use so far",
        NOT_OF_THE_MODEL,
        tag="machine/memory_gib",
        scale=2.0**-30,
    ),
    Metric(
        "evaluation_seconds",
        "evaluations",
        "seconds",
        Direction.LOWER,
        "spent on all evaluations so far",
        NOT_OF_THE_MODEL,
        tag="machine/evaluation_seconds",
    ),
)
BY_KEY = {metric.key: metric for metric in METRICS if metric.key}
BY_COLUMN = {metric.column: metric for metric in METRICS if metric.column}


def further_test_loss(name: str) -> Metric:
    """The loss on a further test set of the study, by the set's name."""
    return Metric(
        f"test_loss_{name}",
        f"test loss, {name}",
        NATS,
        Direction.LOWER,
        "on further held-out text",
        CLEAN_RUN,
        is_loss=True,
        tag=f"loss/test_{name}",
        multiplier=f"{name}_multiplier",
    )
