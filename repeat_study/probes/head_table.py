"""A table of all attention heads at one evaluation, with the scores from `heads` and the costs of ablating each head.

Every number has its null in the same table, except `ov_copying` and two ablation costs: their null is the untrained model.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from repeat_study.model.decoder import Decoder
from repeat_study.probes.ablation import ablated_losses
from repeat_study.probes.copying import CopyingProbe, copying_probe_of, later_copies
from repeat_study.probes.heads import HeadProbe, HeadScores, head_probe
from repeat_study.probes.intervals import mean_and_interval
from repeat_study.probes.positions import windows
from repeat_study.probes.probe import Evaluation, Probe, Subject
from repeat_study.probes.reports import Report, ignore
from repeat_study.probes.texts import sample_test_split
from repeat_study.records.metrics import METRICS

ABLATED_SEQUENCES = 4  # per kind of text; a few suffice, because costs are differences in loss on the same text
ABLATED_COPIES = 4  # 11 long copies would need too much GPU memory in a model with hundreds of heads
COST = "ablation_"  # prefix of columns with costs of ablation
SCORES = ("prefix_matching", "previous_token", "copying", "attribution")  # fields of HeadScores that have a null


@dataclass(frozen=True)
class HeadTable:
    """Numbers for one lane's heads, by column name; float64, shape [layers, heads].

    The columns are scores from HeadScores and the costs of ablating each head, in nats. The suffix `_null` marks a null, and
    `_ci` marks the half-width of a 95% interval over sequences; `ov_copying` has neither.
    ablation_copying_loss: rise in the loss on the second and later copies. Ablating any useful head causes a rise.
    ablation_copying_gain: the same rise minus the rise on the first copy. The difference is large only for heads that copy. Its
        null is measured on shuffled copies.
    ablation_in_context_score: rise in the in-context score. A rise means less in-context learning.
    """

    columns: dict[str, Tensor]
    ablated: Tensor | None = (
        None  # a mask of the ablated heads, [layers, heads]; None: all. The costs of other heads are NaN.
    )

    def best_heads(self) -> dict[str, Any]:
        """Numbers for metrics.jsonl: for each metric, the best head's score with its interval, and the highest null score."""
        row: dict[str, Any] = {}
        for metric in METRICS:
            if metric.key and metric.column in self.columns:
                scores = self._measured(metric.column)
                best = int(scores.argmax())
                half = float(self._measured(metric.interval_column)[best])
                row |= {metric.key: float(scores[best]), metric.interval_key: None if math.isnan(half) else half}
                row[metric.null_key] = float(self._measured(metric.null_column).max())
        return row

    def _measured(self, column: str) -> Tensor:
        """A column without the heads that were not ablated, if it contains costs of ablation."""
        values = self.columns[column].flatten()
        return values[self.ablated.flatten()] if self.ablated is not None and column.startswith(COST) else values

    def flat(self) -> dict[str, list[Any]]:
        """The columns of heads.parquet, with one entry per head, layer by layer."""
        layers, heads = self.columns["prefix_matching"].shape
        layer, head = torch.meshgrid(torch.arange(layers), torch.arange(heads), indexing="ij")
        return {
            name: values.flatten().tolist() for name, values in {"layer": layer, "head": head, **self.columns}.items()
        }


def head_table(
    model: Decoder,
    scores: HeadScores,
    copying: CopyingProbe,
    test: Tensor,
    most_ablated: int | None = None,
    report: Report = ignore,
) -> HeadTable:
    """Make the table of the first lane; see `head_tables`.

    most_ablated: number of heads to ablate, those with the highest prefix matching; None: all.
    """
    if most_ablated is None:
        return head_tables(model, scores, copying, test)[0]
    prefix_matching = scores.prefix_matching[0].mean(dim=-1)
    chosen = torch.zeros(prefix_matching.numel(), dtype=torch.bool)
    chosen[prefix_matching.flatten().topk(min(most_ablated, chosen.numel())).indices] = True
    ablated = chosen.view_as(prefix_matching)
    return replace(head_tables(model, scores, copying, test, ablated, report)[0], ablated=ablated)


def head_tables(
    model: Decoder,
    scores: HeadScores,
    copying: CopyingProbe,
    test: Tensor,
    ablated: Tensor | None = None,
    report: Report = ignore,
) -> list[HeadTable]:
    """Make a table for every lane from the model's `scores` and from ablations.

    copying, test: the texts on which heads are ablated; `test` has shape [sequences, context + 1]. ablated: a mask [layers, heads] of the
    heads to ablate, by default all.
    """
    samples = score_samples(scores) | _ablation_costs(model, copying, test, ablated, report)
    # Process one lane at a time, because a sum over sequences rounds differently in a tensor with more lanes.
    return [
        HeadTable(
            {"ov_copying": scores.ov_copying[lane], **columns_of({name: of[lane] for name, of in samples.items()})}
        )
        for lane in range(len(model.embedding))
    ]


def score_samples(scores: HeadScores) -> dict[str, Tensor]:
    """Every score that has a null, and the nulls, on every sequence, [lanes, layers, heads, sequences]."""
    return {name: getattr(scores, name) for score in SCORES for name in (score, f"{score}_null")}


def columns_of(samples: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Means over sequences and half-widths of their 95% intervals, from samples [layers, heads, sequences]."""
    columns = {}
    for name, by_sequence in samples.items():
        columns[name], columns[f"{name}_ci"] = mean_and_interval(by_sequence)
    return columns


def _ablation_costs(
    model: Decoder, copying: CopyingProbe, test: Tensor, chosen: Tensor | None, report: Report
) -> dict[str, Tensor]:
    """The cost of ablating each head, in nats: a CPU tensor of shape [lanes, layers, heads, sequences] for each column name."""
    length, copies = copying.length, min(ABLATED_COPIES, copying.copies)
    paragraphs, shuffles = (half[:ABLATED_SEQUENCES, : 1 + copies * length] for half in copying.sequences.chunk(2))
    positions = torch.arange(copies * length)
    intact, ablated = ablated_losses(model, torch.cat([paragraphs, shuffles]), positions, chosen, report)
    # [lanes, layers, heads, sequences, copies]
    rise = (ablated - intact[:, None, None]).double().unflatten(-1, (copies, length)).mean(dim=-1)
    lost_gain = later_copies(rise) - rise[..., 0]

    early, late = windows(test.shape[1] - 1)
    positions = torch.cat([torch.arange(window.start, window.stop) for window in (early, late)])
    intact, ablated = ablated_losses(model, test[:ABLATED_SEQUENCES, : late.stop + 1], positions, chosen, report)
    rise_early, rise_late = (
        (ablated - intact[:, None, None]).double().split([early.stop - early.start, late.stop - late.start], dim=-1)
    )
    costs = {
        f"{COST}copying_loss": later_copies(rise)[..., : len(paragraphs)],
        f"{COST}copying_gain": lost_gain[..., : len(paragraphs)],
        f"{COST}copying_gain_null": lost_gain[..., len(paragraphs) :],
        f"{COST}in_context_score": rise_late.mean(dim=-1) - rise_early.mean(dim=-1),
    }
    return {name: cost.cpu() for name, cost in costs.items()}


@dataclass(frozen=True)
class HeadInputs:
    """The random tokens on which heads are scored, and the texts on which they are ablated."""

    heads: HeadProbe
    copying: CopyingProbe
    test: Tensor


def prepare(subject: Subject) -> HeadInputs | None:
    """Prepare a run's inputs; None if its context is too short. Raises InputError if the copying text cannot be used."""
    run, store = subject.run, subject.store
    heads = head_probe(store, run.context)
    return HeadInputs(heads, copying_probe_of(subject), sample_test_split(run, store)) if heads else None


def measure(inputs: Sequence[HeadInputs | None], model: Decoder, step: int) -> list[Evaluation]:
    """Measure copying of random tokens, make the table of all heads, and take the best heads' numbers from it."""
    shared = inputs[0]
    assert shared
    scores = shared.heads(model)
    tables = head_tables(model, scores, shared.copying, shared.test)
    return [
        Evaluation(scores.random_copying(lane).row("random_copying") | table.best_heads(), {"heads": table.flat()})
        for lane, table in enumerate(tables)
    ]


PROBE = Probe(prepare, measure)
