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
from repeat_study.probes.copying import CopyingProbe, copying_probe
from repeat_study.probes.prefix_matching import PrefixMatchingProbe, prefix_matching_probe
from repeat_study.study import Run

CHUNK_TOKENS = 1 << 12  # of a forward pass on a CPU
CHUNK_TOKENS_CUDA = 1 << 16


@torch.no_grad()
def mean_loss(model: Decoder, tokens: Tensor) -> float | None:
    """Mean loss in nats per token over sequences [n, context + 1], None for n = 0; summed in float64."""
    if not len(tokens):
        return None
    tokens = tokens.to(model.embedding.device)
    size = CHUNK_TOKENS_CUDA if tokens.is_cuda else CHUNK_TOKENS
    chunks = torch.split(tokens, max(1, size // tokens.shape[1]))
    return float(torch.cat([model.token_losses(chunk[None]) for chunk in chunks], dim=1).double().mean())


@dataclass(frozen=True)
class Evaluator:
    """Holds a run's evaluation sets, int64 tokens of shape [sequences, context + 1]."""

    test: Tensor
    pool: Tensor  # in a clean run: sequences of the pool's zone, which it never trains on; the pool loss's null
    seen: Tensor
    seen_after: int  # steps until all of `seen` has been trained on
    copying: CopyingProbe
    prefix_matching: PrefixMatchingProbe | None  # none where the context is too short

    def __call__(self, model: Decoder, step: int) -> dict[str, Any]:
        """All numbers of one evaluation, by the names of metrics.jsonl; None where a number has no meaning yet."""
        # Its shapes are many and seen rarely: compiled for them, training's own graphs would become general and slower.
        with torch.compiler.set_stance("force_eager") if model.compiled else nullcontext():
            return {
                "test_loss": mean_loss(model, self.test),
                "pool_loss": mean_loss(model, self.pool),
                "seen_unique_loss": mean_loss(model, self.seen) if step >= self.seen_after else None,
                **self.copying(model),
                **(self.prefix_matching(model) if self.prefix_matching else {}),
            }


def evaluator(run: Run, store: TokenStore) -> Evaluator:
    """The evaluation sets of a run. Test sequences are the same for every run on a store; pool and seen sequences are
    the first of the pool and of the unique stream, so arms that share these are judged on the same text."""
    mixture, draw, sizes = run.mixture(), run.draw(store), run.evaluation
    in_test = store.sequences_in("test", run.context)
    chosen = permute(np.arange(min(sizes.test_sequences, in_test)), in_test, stream_key("test"))
    beside = mixture.pool or draw.pool_capacity
    seen = min(sizes.seen_sequences, mixture.unique_positions)
    test = torch.from_numpy(store.gather("test", chosen, run.context))
    return Evaluator(
        test=test,
        pool=torch.from_numpy(draw.pool_tokens(np.arange(min(sizes.pool_sequences, beside)))),
        seen=torch.from_numpy(draw.unique_tokens(np.arange(seen))),
        seen_after=mixture.unique_position(seen - 1) // run.sequences_per_step + 1 if seen else 0,
        copying=copying_probe(store.tokenizer(), store.end_of_text, run.context, test[0].tolist()),
        prefix_matching=prefix_matching_probe(store, run.context),
    )
