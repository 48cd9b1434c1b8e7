"""The form of a probe.

To add one: write a file in this folder that defines PROBE, and name that file in the `probe` field of an entry of
`records.metrics.METRICS`. Evaluations, TensorBoard, tables and cost estimates follow from the entry.
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
    """What one probe, or all of them, measured on one run at one step.

    row: numbers for metrics.jsonl by key; None for a number that is not defined yet.
    tables: columns of the Parquet tables by table name, without those that were not measured: `heads` has one entry per head,
        layer by layer; `paragraph` one per token of the first copied paragraph; `test_sequences` and `pool_sequences` one per
        sequence.
    """

    row: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, Columns] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """For JSON: the numbers as `row`, and every table by its name."""
        return {"row": self.row, **self.tables}

    def __or__(self, other: "Evaluation") -> "Evaluation":
        """Both evaluations' numbers."""
        return Evaluation(self.row | other.row, self.tables | other.tables)


@dataclass(frozen=True)
class Probe(Generic[Inputs]):
    """A measurement made at every evaluation.

    prepare: the sequences to measure on, made once per run; None if the run cannot be measured. Raises InputError if the
        study's own text for this probe is unusable.
    measure: given every lane's inputs, the model and the step, one Evaluation per lane, all lanes in one pass. Lanes belong
        to one study, so inputs that depend on the study alone are equal in all lanes. Not called if all inputs are None.
    """

    prepare: Callable[[Subject], Inputs | None]
    measure: Callable[[Sequence[Inputs | None], Decoder, int], list[Evaluation]]
