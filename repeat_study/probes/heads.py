"""Score each attention head by where it attends and whether it copies, in one forward pass over copies of random tokens.

The definitions follow [O22] and [E21]. In the null sequences, no token occurs twice.
Additional shape suffixes: n sequences, q queries, p keys, y layers.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from data_prep.token_store import TokenStore
from repeat_study.model import loss
from repeat_study.model.decoder import Block, Decoder
from repeat_study.probes.circuits import (
    copying_scores,
    direct_contributions,
    eigenvalue_copying,
    final_norm_scale,
    logit_directions,
    ov_circuit,
)
from repeat_study.probes.copying import CopyingLosses

LENGTH = 25  # tokens per copy [O22]
COPIES = 4
SEQUENCES = 10
NULL_SEQUENCES = COPIES  # one for each rotation of the same copies
COUNTED_TOKENS = 1_000_000  # number of training tokens from which token frequencies are counted


def attention_patterns(query: Tensor, key: Tensor) -> Tensor:
    """Causal attention weights from queries and keys, [n, heads, time, d_head] to [n, heads, time, time]; rows sum to one."""
    scores = (query @ key.transpose(-1, -2)).float() / query.shape[-1] ** 0.5
    future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    return scores.masked_fill(future, -torch.inf).softmax(dim=-1)


def attention_samples(by_head: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The scores that attention patterns alone determine, and their nulls; see HeadScores.

    by_head: results of `HeadProbe.attention_scores`, stacked to [..., layers, heads, all sequences].
    """
    return {
        "prefix_matching": by_head["prefix"][..., :SEQUENCES],
        "prefix_matching_null": by_head["prefix"][..., SEQUENCES:],
        "previous_token": by_head["previous"][..., SEQUENCES:],
        "previous_token_null": by_head["two before"][..., SEQUENCES:],
    }


@dataclass(frozen=True)
class HeadScores:
    """Scores of every head on every sequence. Each has shape [lanes, layers, heads, sequences], is on the CPU and has a null.

    prefix_matching: attention to the tokens that followed earlier occurrences of the current token, from 0 to 1. The null is
        attention to the same positions in the null sequences, where only a head that attends by distance has a high score.
    previous_token: attention to the previous token, from 0 to 1. The null is the attention to the token before the previous one.
    copying: when the head attends to a single token, that token's share of the total rise in logits, scaled to the range -1 to 1.
        The null is the share of another token; see `circuits.copying_scores`.
    attribution: the head's direct contribution to the logit of the token that induction predicts, minus its mean contribution to
        the logits of the sequence's tokens, measured from the second copy on. The null is the same difference in the null
        sequences.

    Two fields are shaped differently:
    ov_copying: a copying score that depends on the weights alone, [lanes, layers, heads]; see `circuits.eigenvalue_copying`.
    random_losses: losses in nats on the copied sequences, followed by those on the null sequences, [lanes, all sequences, copies,
        length].
    """

    prefix_matching: Tensor
    prefix_matching_null: Tensor
    previous_token: Tensor
    previous_token_null: Tensor
    copying: Tensor
    copying_null: Tensor
    attribution: Tensor
    attribution_null: Tensor
    ov_copying: Tensor
    random_losses: Tensor

    def random_copying(self, lane: int = 0) -> CopyingLosses:
        """A lane's losses on copies of random tokens. In the null, every copy consists of new tokens."""
        return CopyingLosses(self.random_losses[lane, :SEQUENCES], self.random_losses[lane, SEQUENCES:])


@dataclass(frozen=True)
class HeadProbe:
    """The sequences on which heads are scored; all runs in a study use the same ones.

    sequences: SEQUENCES copied sequences, followed by NULL_SEQUENCES null sequences, shape [sequences, 1 + COPIES·length]. A
        copied sequence is a start token followed by COPIES copies of `length` random tokens, sampled without replacement from
        tokens of medium frequency. In a null sequence, no token occurs twice, unless the vocabulary is too small for that.
    """

    sequences: Tensor
    length: int

    def target(self) -> Tensor:
        """A mask [query time, key time]: 1 where the key follows an earlier occurrence of the query's token, otherwise 0.

        The last token of a sequence is not a query, because no token follows it.
        """
        time = self.sequences.shape[1] - 1
        query, key = torch.arange(time)[:, None], torch.arange(time)[None, :]
        distance = query + 1 - key
        return ((distance > 0) & (distance % self.length == 0) & (key > 1)).float()

    def queries(self) -> Tensor:
        """The query times at which prefix matching is measured."""
        # Indices instead of a mask, because a GPU would have to count the mask's elements for every use.
        return self.target().any(dim=1).nonzero()[:, 0]

    def attention_scores(self, device: torch.device) -> Callable[[Tensor], dict[str, Tensor]]:
        """A function that scores attention patterns of all sequences, [..., sequences, heads, time, time].

        Each of its scores has shape [..., sequences, heads].
        """
        target_qp, queries = self.target().to(device), self.queries().to(device)

        def scores(pattern_nhqp: Tensor) -> dict[str, Tensor]:
            return {
                "prefix": (pattern_nhqp * target_qp).sum(dim=-1)[..., queries].mean(dim=-1),
                "previous": pattern_nhqp.diagonal(-1, dim1=-2, dim2=-1).mean(dim=-1),
                "two before": pattern_nhqp.diagonal(-2, dim1=-2, dim2=-1).mean(dim=-1),
            }

        return scores

    def random_copying(self, losses_nt: Tensor) -> CopyingLosses:
        """The losses on all sequences as losses on each copy. In the null, every copy consists of new tokens."""
        losses = losses_nt.unflatten(1, (COPIES, self.length))
        return CopyingLosses(losses[:SEQUENCES], losses[SEQUENCES:])

    @torch.no_grad()
    def __call__(self, model: Decoder) -> HeadScores:
        """Scores of every head on every sequence, from one forward pass."""
        device, lanes = model.embedding.device, len(model.embedding)
        tokens_nt = self.sequences.to(device)
        inputs_lnt = tokens_nt[:, :-1].expand(lanes, -1, -1)
        targets_lnt = tokens_nt[:, 1:].expand(lanes, -1, -1)
        attended, queries = self.attention_scores(device), self.queries().to(device)
        by_layer: dict[str, list[Tensor]] = defaultdict(list)
        directions: dict[str, Tensor] = {}  # of the sample's tokens, and of the next token minus the sample's mean

        # Weights are read during the forward pass because, outside it, each process holds only its own shard of a sharded model.
        def record(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            with torch.autocast(device.type, enabled=False):
                block = model.blocks[layer]
                assert isinstance(block, Block)
                pattern = attention_patterns(query.float(), key.float())
                z = pattern @ value.float()
                for name, score in attended(pattern.unflatten(0, (lanes, -1))).items():
                    by_layer[name].append(score)
                if not directions:
                    read_ldv = logit_directions(model)
                    directions["sample"] = read_ldv[:, :, tokens_nt[:, 1 : 1 + self.length]].movedim(1, 2)
                    of_next_lntd = read_ldv.movedim(1, 2)[:, tokens_nt[:, 1:]]
                    directions["next"] = of_next_lntd - directions["sample"].mean(dim=-1)[:, :, None]
                by_layer["contribution"].append(direct_contributions(block.attention, z, directions["next"]))
                copying, copying_null = copying_scores(
                    block.attention, value.unflatten(0, (lanes, -1)), directions["sample"], self.length
                )
                by_layer["copying"].append(copying)
                by_layer["copying null"].append(copying_null)
                by_layer["circuit"].append(ov_circuit(model, block))
            return z.to(value.dtype)

        scales: list[Tensor] = []
        hook = model.final_norm.register_forward_pre_hook(
            lambda norm, arguments: scales.append(final_norm_scale(model, arguments[0]))
        )
        try:
            x_lntd = model.residual(inputs_lnt, record)
        finally:
            hook.remove()
        losses = loss.token_losses(x_lntd, model.unembedding.weight, targets_lnt)
        (scale_lnt,) = scales
        circuit_lyhkk = torch.stack(by_layer.pop("circuit"), dim=1)
        contributions = by_layer.pop("contribution")
        by_layer["attribution"] = [
            (contribution / scale_lnt[:, :, None])[..., queries].mean(dim=-1) for contribution in contributions
        ]
        # Stack lists of [lanes, sequences, heads] into [lanes, layers, heads, sequences], all lanes in one transfer.
        by_head = {name: torch.stack(layers, dim=1).movedim(2, -1).cpu() for name, layers in by_layer.items()}
        return HeadScores(
            **attention_samples(by_head),
            copying=by_head["copying"][..., :SEQUENCES],
            copying_null=by_head["copying null"][..., :SEQUENCES],
            attribution=by_head["attribution"][..., :SEQUENCES],
            attribution_null=by_head["attribution"][..., SEQUENCES:],
            ov_copying=eigenvalue_copying(circuit_lyhkk),
            random_losses=losses.cpu().unflatten(2, (COPIES, self.length)),
        )


def head_probe(store: TokenStore, context: int) -> HeadProbe | None:
    """Make the probe for a context length from tokens of medium frequency; None if 4 copies of 2 tokens do not fit."""
    counts = np.bincount(store.train[:COUNTED_TOKENS], minlength=store.vocabulary)
    ranked = np.argsort(counts, kind="stable")
    ranked = ranked[(counts[ranked] > 0) & (ranked != store.end_of_text)]
    return head_probe_from(ranked, store.end_of_text, context)


def head_probe_from(ranked: npt.NDArray[np.int64], start_token: int, context: int) -> HeadProbe | None:
    """Make the probe from the middle half of the ranked token ids; None if 4 copies of 2 tokens do not fit.

    The copies are shorter than 25 tokens if 4 copies of that length do not fit, or if the vocabulary is very small.
    """
    middle = ranked[len(ranked) // 4 : len(ranked) - len(ranked) // 4]
    length = min(LENGTH, context // COPIES, len(middle))
    if length < 2:
        return None
    random = np.random.default_rng(0)
    copied = [np.tile(random.choice(middle, length, replace=False), COPIES) for _ in range(SEQUENCES)]
    # The null sequences are rotations of each other, so on average no copy is harder than another.
    if len(middle) >= COPIES * length:
        fresh = random.choice(middle, (COPIES, length), replace=False)
    else:  # the vocabulary is too small, so some tokens occur twice
        fresh = np.stack([random.choice(middle, length, replace=False) for _ in range(COPIES)])
    null = [np.concatenate([fresh[(first + k) % COPIES] for k in range(COPIES)]) for first in range(NULL_SEQUENCES)]
    start = np.full((SEQUENCES + NULL_SEQUENCES, 1), start_token)
    return HeadProbe(torch.from_numpy(np.hstack([start, np.stack(copied + null)])), length)
