"""All that is known of every head at one evaluation, as one table."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from repeat_study.model.decoder import Decoder
from repeat_study.probes.ablation import ablated_losses
from repeat_study.probes.copying import CopyingProbe, later
from repeat_study.probes.heads import HeadScores
from repeat_study.probes.intervals import mean_and_interval
from repeat_study.probes.positions import windows
from repeat_study.records.metrics import METRICS

# Paragraphs, their shuffles and test sequences, as many of each: what is measured is a difference on the same text.
ABLATED_SEQUENCES = 4
ABLATED_COPIES = 4  # of a paragraph; the patterns of 11 long ones would fill a device where there are hundreds of heads
SCORES = ("prefix_matching", "previous_token", "copying", "attribution")  # of HeadScores, each with a null


@dataclass(frozen=True)
class HeadTable:
    """Numbers of a lane's heads by name, float64 of shape [layers, heads].

    The fields of `HeadScores` with `_null` and, for each, `_ci`: half the 95% interval over sequences. `ov_copying`.
    Likewise what ablating the head costs, in nats: `ablation_copying_loss` is by how much the loss rises on copies 2
    onwards, which any useful head's does; `ablation_copying_gain` by how much more it rises there than on copy 1, which
    only a head that copies does, and its null is that on shuffled copies; `ablation_in_context_score` by how much the
    score rises, which is losing.
    """

    columns: dict[str, Tensor]

    def headlines(self) -> dict[str, Any]:
        """One number per row of metrics: that of the best head, with its interval and with the best head's on the null."""
        row: dict[str, Any] = {}
        for metric in METRICS:
            if metric.key and metric.column in self.columns:
                scores = self.columns[metric.column].flatten()
                best = int(scores.argmax())
                half = float(self.columns[metric.interval_column].flatten()[best])
                row |= {metric.key: float(scores[best]), metric.interval_key: None if math.isnan(half) else half}
                row[metric.null_key] = float(self.columns[metric.null_column].max())
        return row

    def flat(self) -> dict[str, list[Any]]:
        """The columns of heads.parquet: an entry per head, layer by layer."""
        layers, heads = self.columns["prefix_matching"].shape
        layer, head = torch.meshgrid(torch.arange(layers), torch.arange(heads), indexing="ij")
        return {
            name: values.flatten().tolist() for name, values in {"layer": layer, "head": head, **self.columns}.items()
        }


def head_table(model: Decoder, scores: HeadScores, copying: CopyingProbe, test: Tensor) -> HeadTable:
    """The first lane's table of a model whose `scores` are known already; test: sequences [n, context + 1]."""
    return head_tables(model, scores, copying, test)[0]


def head_tables(model: Decoder, scores: HeadScores, copying: CopyingProbe, test: Tensor) -> list[HeadTable]:
    """The same of every lane."""
    samples = {name: getattr(scores, name) for score in SCORES for name in (score, f"{score}_null")} | _ablations(
        model, copying, test
    )
    tables = []
    for lane in range(len(model.embedding)):
        # Lane by lane: sums over sequences round by the shape that they are taken in.
        columns = {"ov_copying": scores.ov_copying[lane].cpu()}
        for name, by_sequence in samples.items():
            columns[name], columns[f"{name}_ci"] = (number.cpu() for number in mean_and_interval(by_sequence[lane]))
        tables.append(HeadTable(columns))
    return tables


def _ablations(model: Decoder, copying: CopyingProbe, test: Tensor) -> dict[str, Tensor]:
    """What ablating each head costs, [lanes, layers, heads, sequences] in nats."""
    length = copying.length
    copies = min(ABLATED_COPIES, copying.copies)
    paragraphs, shuffles = (half[:ABLATED_SEQUENCES, : 1 + copies * length] for half in copying.sequences.chunk(2))
    whole, ablated = ablated_losses(model, torch.cat([paragraphs, shuffles]), torch.arange(copies * length))
    # [lanes, layers, heads, sequences, copies]
    rise = (ablated - whole[:, None, None]).double().unflatten(-1, (copies, length)).mean(dim=-1)
    of_gain = later(rise) - rise[..., 0]
    early, late = windows(test.shape[1] - 1)
    positions = torch.cat([torch.arange(window.start, window.stop) for window in (early, late)])
    whole, ablated = ablated_losses(model, test[:ABLATED_SEQUENCES, : late.stop + 1], positions)
    of_early, of_late = (
        (ablated - whole[:, None, None]).double().split([early.stop - early.start, late.stop - late.start], dim=-1)
    )
    return {
        "ablation_copying_loss": later(rise)[..., : len(paragraphs)],
        "ablation_copying_gain": of_gain[..., : len(paragraphs)],
        "ablation_copying_gain_null": of_gain[..., len(paragraphs) :],
        "ablation_in_context_score": of_late.mean(dim=-1) - of_early.mean(dim=-1),
    }
