"""Evaluate runs with every probe named in METRICS. Each probe measures all lanes of a model in one pass."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from data_prep.token_store import TokenStore
from repeat_study.config.run import Run
from repeat_study.model.decoder import Decoder
from repeat_study.probes.copying import CopyingProbe
from repeat_study.probes.heads import HeadProbe
from repeat_study.probes.probe import Evaluation, Probe, Subject
from repeat_study.probes.texts import Texts
from repeat_study.records.metrics import METRICS

PROBES: dict[str, Probe[Any]] = {
    name: import_module(f"repeat_study.probes.{name}").PROBE
    for name in dict.fromkeys(metric.probe for metric in METRICS if metric.probe)
}


@dataclass(frozen=True)
class Evaluator:
    """One run's prepared inputs for every probe, keyed by the probe's name in PROBES."""

    inputs: dict[str, Any]

    def __call__(self, model: Decoder, step: int) -> Evaluation:
        """Evaluate the first lane after `step` training steps."""
        return evaluate_lanes([self], model, step)[0]

    @property
    def texts(self) -> Texts:
        """The run's own evaluation texts."""
        texts: Texts = self.inputs["text_losses"].texts
        return texts

    @property
    def copying(self) -> CopyingProbe:
        """The copying probe with its paragraphs."""
        probe: CopyingProbe = self.inputs["copying"].probe
        return probe

    @property
    def heads(self) -> HeadProbe | None:
        """The heads probe with its random tokens; None if the context is too short."""
        inputs = self.inputs["head_table"]
        return inputs.heads if inputs else None


def evaluator(run: Run, store: TokenStore, parent: Run | None = None) -> Evaluator:
    """Prepare all probes for a run. A fine-tuned run is also probed on its parent's texts.

    The stores of extra test sets and of the parent are looked up in the same folder as the run's store. Raises InputError if a
    store is missing, or if the study's copying text is too short or cannot be encoded.
    """
    subject = Subject(run, store, parent)
    return Evaluator({name: probe.prepare(subject) for name, probe in PROBES.items()})


def evaluate_lanes(evaluators: Sequence[Evaluator], model: Decoder, step: int) -> list[Evaluation]:
    """Evaluate every lane of a model after `step` training steps. `evaluators`: one per lane, all for runs in the same study."""
    # Evaluations are rare and use many input shapes.
    # If they used the graphs compiled for training, torch would recompile those into slower graphs with dynamic shapes.
    with torch.compiler.set_stance("force_eager") if model.compiled else nullcontext():
        evaluations = [Evaluation() for _ in evaluators]
        for name, probe in PROBES.items():
            inputs = [evaluator.inputs[name] for evaluator in evaluators]
            if any(lane_inputs is not None for lane_inputs in inputs):
                measured = probe.measure(inputs, model, step)
                evaluations = [before | added for before, added in zip(evaluations, measured, strict=True)]
        return evaluations
