"""One evaluation of a run: loss on the test set, on the pool, on unique tokens already seen, and the probes."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_prep.errors import InputError
from data_prep.permutation import permute, stream_key
from data_prep.token_store import TokenStore, find_store
from repeat_study.config.run import Run
from repeat_study.model.decoder import Decoder
from repeat_study.probes.copying import CopyingProbe, copying_probe, pieces
from repeat_study.probes.head_table import head_tables
from repeat_study.probes.heads import HeadProbe, head_probe
from repeat_study.probes.in_context import in_context
from repeat_study.records.tables import Columns


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
    """The first lane's mean loss in nats per token over sequences [n, context + 1], None for n = 0; summed in float64."""
    return mean_losses(model, [tokens])[0]


def mean_losses(model: Decoder, tokens: Sequence[Tensor]) -> list[float | None]:
    """The same of every lane, each on sequences of its own; where it has fewer than another lane, some are looked at twice
    and counted once."""
    longest = max(tokens, key=len)
    if not len(longest):
        return [None] * len(tokens)
    order = torch.arange(len(longest))
    filled = [of_lane[order % len(of_lane)] if len(of_lane) else longest for of_lane in tokens]
    losses_lbt = model.token_losses(torch.stack(filled).to(model.embedding.device))
    return [
        float(losses_bt[: len(of_lane)].double().mean()) if len(of_lane) else None
        for losses_bt, of_lane in zip(losses_lbt, tokens, strict=True)
    ]


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
        return evaluate_lanes([self], model, step)[0]

    def paragraph_columns(self, losses: Tensor) -> Columns:
        """The first paragraph's losses, [copies, length], beside its tokens."""
        copies, length = losses.shape
        return {
            "copy": [copy for copy in range(1, copies + 1) for _ in range(length)],
            "token": self.paragraph * copies,
            "loss": losses.flatten().tolist(),
        }


def evaluate_lanes(evaluators: Sequence[Evaluator], model: Decoder, step: int) -> list[Evaluation]:
    """What is measured of every lane of a model after `step` steps, all lanes in one pass; `evaluators`: of runs of one study,
    which share all but pool, unique text and parent."""
    # Its shapes are many and seen rarely: compiled for them, training's own graphs would become general and slower.
    with torch.compiler.set_stance("force_eager") if model.compiled else nullcontext():
        return _evaluate_lanes(evaluators, model, step)


def _evaluate_lanes(evaluators: Sequence[Evaluator], model: Decoder, step: int) -> list[Evaluation]:
    shared, nothing = evaluators[0], evaluators[0].texts.test[:0]
    lanes = len(evaluators)
    test_lbt = model.token_losses(shared.texts.test.to(model.embedding.device).expand(lanes, -1, -1))
    pool = mean_losses(model, [one.texts.pool for one in evaluators])
    seen = mean_losses(model, [one.texts.seen if step >= one.texts.seen_after else nothing for one in evaluators])
    further = {name: mean_losses(model, [tokens] * lanes) for name, tokens in shared.further.items()}
    of_parents = {
        name: mean_losses(model, [getattr(one.of_parent, field) if one.of_parent else nothing for one in evaluators])
        for name, field in (("test", "test"), ("pool", "pool"), ("seen_unique", "seen"))
    }
    copying = shared.copying.of_lanes(model)
    scores = shared.heads(model) if shared.heads else None
    tables = head_tables(model, scores, shared.copying, shared.texts.test) if scores else []
    found = []
    for lane, one in enumerate(evaluators):
        row: dict[str, Any] = {
            "test_loss": float(test_lbt[lane].double().mean()),
            "pool_loss": pool[lane],
            "seen_unique_loss": seen[lane],
            **{f"test_loss_{name}": losses[lane] for name, losses in further.items()},
            **in_context(test_lbt[lane]),
            **copying[lane].row("copying"),
        }
        if one.of_parent:
            row |= {f"parent_{name}_loss": losses[lane] for name, losses in of_parents.items()}
        if scores:
            row |= scores.random_copying(lane).row("random_copying") | tables[lane].headlines()
        heads = tables[lane].flat() if scores else {}
        found.append(Evaluation(row, heads, one.paragraph_columns(copying[lane].tokens[0])))
    return found


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
