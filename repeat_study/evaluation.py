"""One evaluation of a run: loss on the test set, on the pool, on unique tokens already seen, and the probes."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_prep.permutation import permute, stream_key
from data_prep.token_store import TokenStore
from repeat_study.model import Decoder
from repeat_study.probes.copying import CopyingProbe, copying_probe, pieces
from repeat_study.probes.head_table import head_table
from repeat_study.probes.heads import HeadProbe, head_probe
from repeat_study.probes.in_context import in_context
from repeat_study.records import Columns
from repeat_study.run import Run


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found.

    row: the numbers of metrics.jsonl by name; None where a number has no meaning yet.
    heads: columns with an entry per head, layer by layer; empty where the context is too short for the probe.
    paragraph: columns with an entry per token of the first copied paragraph.
    """

    row: dict[str, Any]
    heads: Columns
    paragraph: Columns


def mean_loss(model: Decoder, tokens: Tensor) -> float | None:
    """Mean loss in nats per token over sequences [n, context + 1], None for n = 0; summed in float64."""
    if not len(tokens):
        return None
    return float(model.token_losses(tokens[None].to(model.embedding.device)).double().mean())


@dataclass(frozen=True)
class Evaluator:
    """Holds a run's evaluation sets, int64 tokens of shape [sequences, context + 1]."""

    test: Tensor
    pool: Tensor  # in a clean run: sequences of the pool's zone, which it never trains on; the pool loss's null
    seen: Tensor
    seen_after: int  # steps until all of `seen` has been trained on
    copying: CopyingProbe
    heads: HeadProbe | None  # none where the context is too short
    paragraph: list[str]  # the first paragraph's tokens as text, one copy

    def __call__(self, model: Decoder, step: int) -> Evaluation:
        """Everything that is measured after `step` steps, on the first lane."""
        # Its shapes are many and seen rarely: compiled for them, training's own graphs would become general and slower.
        with torch.compiler.set_stance("force_eager") if model.compiled else nullcontext():
            return self._evaluate(model, step)

    def _evaluate(self, model: Decoder, step: int) -> Evaluation:
        test = model.token_losses(self.test[None].to(model.embedding.device))[0]
        copying = self.copying(model)
        row: dict[str, Any] = {
            "test_loss": float(test.double().mean()),
            "pool_loss": mean_loss(model, self.pool),
            "seen_unique_loss": mean_loss(model, self.seen) if step >= self.seen_after else None,
            **in_context(test),
            **copying.row("copying"),
        }
        heads: Columns = {}
        if self.heads:
            scores = self.heads(model)
            table = head_table(model, scores, self.copying, self.test)
            row |= scores.random_copying().row("random_copying") | table.headlines()
            heads = table.flat()
        return Evaluation(row, heads, self._paragraph(copying.tokens[0]))

    def _paragraph(self, losses: Tensor) -> Columns:
        copies, length = losses.shape
        return {
            "copy": [copy for copy in range(1, copies + 1) for _ in range(length)],
            "token": self.paragraph * copies,
            "loss": losses.flatten().tolist(),
        }


def evaluator(run: Run, store: TokenStore) -> Evaluator:
    """The evaluation sets of a run. Test sequences are the same for every run on a store; pool and seen sequences are
    the first of the pool and of the unique stream, so arms that share these are judged on the same text.

    Raises InputError where the study's copying text is too short or cannot be spelled.
    """
    mixture, draw, sizes = run.mixture(), run.draw(store), run.evaluation
    in_test = store.sequences_in("test", run.context)
    chosen = permute(np.arange(min(sizes.test_sequences, in_test)), in_test, stream_key("test"))
    beside = mixture.pool or draw.pool_capacity
    seen = min(sizes.seen_sequences, mixture.unique_positions)
    test = torch.from_numpy(store.gather("test", chosen, run.context))
    tokenizer = store.tokenizer()
    copying = copying_probe(tokenizer, store.end_of_text, run.context, sizes.copying_text, test)
    return Evaluator(
        test=test,
        pool=torch.from_numpy(draw.pool_tokens(np.arange(min(sizes.pool_sequences, beside)))),
        seen=torch.from_numpy(draw.unique_tokens(np.arange(seen))),
        seen_after=mixture.unique_position(seen - 1) // run.sequences_per_step + 1 if seen else 0,
        copying=copying,
        heads=head_probe(store, run.context),
        paragraph=pieces(tokenizer, copying.copied[0, 1 : 1 + copying.length].tolist()),
    )
