"""The results of all probes on a trained model, and on an untrained model, the null."""

import math
from dataclasses import dataclass
from typing import Any

from repeat_study.probes.copying import CopyingProbe
from repeat_study.probes.heads import COPIES as HEAD_COPIES
from repeat_study.probes.heads import HeadProbe
from repeat_study.probes.probe import Evaluation


@dataclass(frozen=True)
class ProbedModel:
    """Evaluations of a trained model and of an untrained model with the same shape.

    source: what was measured, for the JSON file. title: the same for a reader. copying: None if text could not be measured.
    notes: how the model was measured, and which scores are missing and why.
    """

    source: dict[str, Any]
    title: str
    context: int
    copying: CopyingProbe | None
    heads: HeadProbe
    trained: Evaluation
    untrained: Evaluation
    notes: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """All numbers for a JSON file, with the same keys and columns as a run's metrics.jsonl and tables."""
        copying = [self.copying.copies, self.copying.length] if self.copying else [0, 0]
        lengths = {"copying": copying, "heads": [HEAD_COPIES, self.heads.length]}
        numbers = {"copies_and_tokens": lengths, **self.trained.record(), "untrained": self.untrained.record()}
        notes = {"notes": list(self.notes)} if self.notes else {}
        return {**self.source, **notes, **_finite(numbers)}


def _finite(value: Any) -> Any:
    """Replace NaN and infinity with None, because JSON has neither. Intervals over a single sequence are NaN."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
