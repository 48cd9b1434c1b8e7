"""Prefix matching: does a head attend to what came after earlier occurrences of the present token? [O22; H22 fig. 6]."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_prep.token_store import TokenStore
from repeat_study.model import Decoder

LENGTH = 25  # tokens of a copy [O22]
COPIES = 4
SEQUENCES = 10
COUNTED_TOKENS = 1_000_000  # of the training split, to tell common tokens from rare ones


def attention_patterns(query: Tensor, key: Tensor) -> Tensor:
    """What every query attends to, from [n, heads, time, d_head] each to [n, heads, time, time]; rows sum to one."""
    scores = (query @ key.transpose(-1, -2)).float() / query.shape[-1] ** 0.5
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    return scores.masked_fill(later, -torch.inf).softmax(dim=-1)


@dataclass(frozen=True)
class PrefixMatchingProbe:
    """The probe's input, the same for every run of a study.

    sequences: a start token and `COPIES` copies of random tokens drawn without replacement, neither the most common
    nor the rarest, shape [SEQUENCES, 1 + copies·length]; then as many for the null, in which every copy is drawn
    afresh, so that only a head that attends by distance alone scores there.
    """

    sequences: Tensor
    length: int

    def target(self) -> Tensor:
        """1 where query (row) should attend: right after earlier occurrences of its token; shape [time, time]."""
        time = self.sequences.shape[1]
        query, key = torch.arange(time)[:, None], torch.arange(time)[None, :]
        back = query + 1 - key
        return ((back > 0) & (back % self.length == 0) & (key > 1)).float()

    @torch.no_grad()
    def scores(self, model: Decoder) -> Tensor:
        """Score of every head on the copies and on the null, shape [2, lanes, layers, heads]: the attention mass on the
        right positions, 0 to 1, mean over queries from the second copy on and over sequences."""
        target = self.target().to(model.embedding.device)
        queries = target.any(dim=1)
        layers = []

        def look(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            pattern = attention_patterns(query, key)
            mass = (pattern * target).sum(dim=-1)[..., queries].mean(dim=-1)  # [lanes·sequences, heads]
            layers.append(mass.view(model.embedding.shape[0], 2, -1, mass.shape[-1]).mean(dim=2))
            return (pattern @ value.float()).to(value.dtype)

        tokens = self.sequences.to(model.embedding.device)
        model.residual(tokens.expand(model.embedding.shape[0], -1, -1), look)
        return torch.stack(layers, dim=2).transpose(0, 1)

    def __call__(self, model: Decoder) -> dict[str, Any]:
        """Score of the best head, and of the best head on the null."""
        best = self.scores(model)[:, 0].flatten(1).max(dim=1).values.tolist()
        return {"prefix_matching": best[0], "prefix_matching_null": best[1]}


def prefix_matching_probe(store: TokenStore, context: int) -> PrefixMatchingProbe | None:
    """The probe for a context, with shorter copies where 4 of 25 tokens do not fit; None where not even 4 of 2 do."""
    length = min(LENGTH, (context - 1) // COPIES)
    counts = np.bincount(store.train[:COUNTED_TOKENS], minlength=store.vocabulary)
    ranked = np.argsort(counts, kind="stable")
    ranked = ranked[(counts[ranked] > 0) & (ranked != store.end_of_text)]
    middle = ranked[len(ranked) // 4 : len(ranked) - len(ranked) // 4]
    length = min(length, len(middle))
    if length < 2:
        return None
    random = np.random.default_rng(0)

    def draw() -> np.ndarray:
        return random.choice(middle, length, replace=False)

    copied = [np.tile(draw(), COPIES) for _ in range(SEQUENCES)]
    null = [np.concatenate([draw() for _ in range(COPIES)]) for _ in range(SEQUENCES)]
    start = np.full((2 * SEQUENCES, 1), store.end_of_text)
    return PrefixMatchingProbe(torch.from_numpy(np.hstack([start, np.stack(copied + null)])), length)
