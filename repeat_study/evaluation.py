"""One evaluation of a run: loss on the test set, on the pool, on unique tokens already seen, and the probes."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_prep.errors import InputError
from data_prep.permutation import permute, stream_key
from data_prep.token_store import TokenStore, find_store
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
class Texts:
    """What stands for a run's text in an evaluation, int64 tokens of shape [sequences, context + 1]."""

    test: Tensor
    pool: Tensor  # in a clean run: sequences of the pool's zone, which it never trains on; the pool loss's null
    seen: Tensor
    seen_after: int  # steps until all of `seen` has been trained on


@dataclass(frozen=True)
class Evaluator:
    """Holds a run's evaluation sets."""

    texts: Texts
    further: dict[str, Tensor]  # by name; form as the test set's
    of_parent: Texts | None  # what the parent was judged on, to see what is forgotten
    copying: CopyingProbe
    heads: HeadProbe | None  # none where the context is too short
    paragraph: list[str]  # the first paragraph's tokens as text, one copy

    def __call__(self, model: Decoder, step: int) -> Evaluation:
        """Everything that is measured after `step` steps, on the first lane."""
        # Its shapes are many and seen rarely: compiled for them, training's own graphs would become general and slower.
        with torch.compiler.set_stance("force_eager") if model.compiled else nullcontext():
            return self._evaluate(model, step)

    def _evaluate(self, model: Decoder, step: int) -> Evaluation:
        texts = self.texts
        test = model.token_losses(texts.test[None].to(model.embedding.device))[0]
        copying = self.copying(model)
        row: dict[str, Any] = {
            "test_loss": float(test.double().mean()),
            "pool_loss": mean_loss(model, texts.pool),
            "seen_unique_loss": mean_loss(model, texts.seen) if step >= texts.seen_after else None,
            **{f"test_loss_{name}": mean_loss(model, tokens) for name, tokens in self.further.items()},
            **in_context(test),
            **copying.row("copying"),
        }
        if self.of_parent:
            row |= {
                f"parent_{name}_loss": mean_loss(model, tokens)
                for name, tokens in (
                    ("test", self.of_parent.test),
                    ("pool", self.of_parent.pool),
                    ("seen_unique", self.of_parent.seen),
                )
            }
        heads: Columns = {}
        if self.heads:
            scores = self.heads(model)
            table = head_table(model, scores, self.copying, texts.test)
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


def texts_of(run: Run, store: TokenStore) -> Texts:
    """Test sequences are the same for every run on a store; pool and seen sequences are the first of the pool and of the
    unique stream, so arms that share these are judged on the same text."""
    mixture, draw, sizes = run.mixture(), run.draw(store), run.evaluation
    beside = mixture.pool or draw.pool_capacity
    seen = min(sizes.seen_sequences, mixture.unique_positions)
    return Texts(
        test=test_tokens(run, store),
        pool=torch.from_numpy(draw.pool_tokens(np.arange(min(sizes.pool_sequences, beside)))),
        seen=torch.from_numpy(draw.unique_tokens(np.arange(seen))),
        seen_after=mixture.unique_position(seen - 1) // run.sequences_per_step + 1 if seen else 0,
    )


def test_tokens(run: Run, store: TokenStore) -> Tensor:
    """The sequences of a store's test split that a run is tested on: as many as its spec says, or all of fewer."""
    there = store.sequences_in("test", run.context)
    if not there:
        raise InputError(f"{store.folder}: its test split is shorter than one sequence of {run.context} and its target")
    chosen = permute(np.arange(min(run.evaluation.test_sequences, there)), there, stream_key("test"))
    return torch.from_numpy(store.gather("test", chosen, run.context))


def evaluator(run: Run, store: TokenStore, parent: Run | None = None) -> Evaluator:
    """The evaluation sets of a run, and of its parent where that is given; stores of other texts than the run's lie beside its
    own.

    Raises InputError where a store is missing, or the study's copying text is too short or cannot be spelled.
    """
    beside = store.folder.parent
    texts = texts_of(run, store)
    tokenizer = store.tokenizer()
    copying = copying_probe(tokenizer, store.end_of_text, run.context, run.evaluation.copying_text, texts.test)
    return Evaluator(
        texts=texts,
        further={text.name: test_tokens(run, find_store(beside, text.fingerprint)) for text in run.further_tests},
        of_parent=texts_of(parent, find_store(beside, parent.corpus)) if parent else None,
        copying=copying,
        heads=head_probe(store, run.context),
        paragraph=pieces(tokenizer, copying.copied[0, 1 : 1 + copying.length].tolist()),
    )
