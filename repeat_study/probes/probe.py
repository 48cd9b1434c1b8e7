"""The interface of a probe.

To add a probe, write a file in this folder that defines PROBE, and name the file in the `probe` field of an entry in
`records.metrics.METRICS`. The new metric then appears in evaluations, TensorBoard, tables and cost estimates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from data_prep.token_store import TokenStore
from repeat_study.config.run import Run
from repeat_study.model.decoder import Decoder
from repeat_study.records.tables import Columns

Inputs = TypeVar("Inputs")


@dataclass(frozen=True)
class Subject:
    """The run to evaluate."""

    run: Run
    store: TokenStore
    parent: Run | None = None  # the run it was fine-tuned from


@dataclass(frozen=True)
class Evaluation:
    """Results of one probe, or of all probes together, for one run at one step.

    row: numbers for metrics.jsonl, by key; None for a number that is not defined yet.
    tables: columns of the Parquet tables, by table name; a table that was not measured is missing or empty. `heads` has one entry per head,
        layer by layer; `paragraph` has one per token of the first copied paragraph; `test_sequences` and `pool_sequences` have one
        per sequence.
    """

    row: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, Columns] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """The results for a JSON file: the numbers under `row`, and each table under its own name."""
        return {"row": self.row, **self.tables}

    def __or__(self, other: "Evaluation") -> "Evaluation":
        """Merge the results of two evaluations."""
        return Evaluation(self.row | other.row, self.tables | other.tables)


@dataclass(frozen=True)
class Probe(Generic[Inputs]):
    """A measurement made at every evaluation.

    prepare: makes the sequences to measure on, once per run. Returns None if the run cannot be measured, and raises InputError if
        the study's own text for this probe cannot be used.
    measure: measures all lanes in one pass, given every lane's inputs, the model and the step, and returns one Evaluation per lane.
        All lanes belong to one study, so inputs that depend only on the study are equal in all lanes. If all inputs are None,
        `measure` is not called.
    """

    prepare: Callable[[Subject], Inputs | None]
    measure: Callable[[Sequence[Inputs | None], Decoder, int], list[Evaluation]]
