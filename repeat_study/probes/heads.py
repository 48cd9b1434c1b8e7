"""Every head of every layer in one pass over random tokens: where it looks, and what it writes there.

Definitions are those of Olsson et al. 2022 [O22] and of Elhage et al. 2021, A Mathematical Framework for Transformer Circuits.
Letters beside the model's: n sequences, s tokens of a sequence's sample, q queries, p keys.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from data_prep.token_store import TokenStore
from repeat_study.config.model_sizes import Style
from repeat_study.model import loss
from repeat_study.model.decoder import Attention, Block, Decoder
from repeat_study.probes.copying import Copying

LENGTH = 25  # tokens of a copy [O22]
COPIES = 4
SEQUENCES = 10
NULL_SEQUENCES = COPIES  # one for each rotation of its copies
COUNTED_TOKENS = 1_000_000  # of the training split, to tell common tokens from rare ones


def attention_patterns(query: Tensor, key: Tensor) -> Tensor:
    """What every query attends to, from [n, heads, time, d_head] each to [n, heads, time, time]; rows sum to one."""
    scores = (query @ key.transpose(-1, -2)).float() / query.shape[-1] ** 0.5
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    return scores.masked_fill(later, -torch.inf).softmax(dim=-1)


def reading(model: Decoder) -> Tensor:
    """What the unembedding reads behind the final norm, whose scale is left out: [lanes, d_model, vocabulary].

    LayerNorm's subtraction of the mean is folded in, so a direct path to the logits is one product.
    """
    read_ldv = model.final_norm.gain[:, :, None] * model.unembedding.weight
    return read_ldv - read_ldv.mean(dim=1, keepdim=True) if model.shape.style is Style.SHORTFORMER else read_ldv


def final_scale(model: Decoder, stream_lntd: Tensor) -> Tensor:
    """What the final norm divides the residual stream by, [lanes, n, time]."""
    x = stream_lntd.float()
    if model.shape.style is Style.SHORTFORMER:
        return (x.var(dim=-1, correction=0) + 1e-5).sqrt()
    return (x.square().mean(dim=-1) + 1e-6).sqrt()


def contributions(attention: Attention, mixed_nhtk: Tensor, read_lntd: Tensor) -> Tensor:
    """What each head writes along a direction of its own for every token, [lanes, n, heads, time]; divided by
    `final_scale` it is the head's direct path to the logit that the direction reads.

    mixed: what the heads put together, [lanes·n, heads, time, d_head].
    """
    lanes, heads, d_head = len(read_lntd), mixed_nhtk.shape[1], mixed_nhtk.shape[-1]
    out_lid = attention.out.weight.float()
    along_lnthk = (read_lntd.flatten(1, 2).float() @ out_lid.transpose(1, 2)).view(*read_lntd.shape[:3], heads, d_head)
    mixed_lnhtk = mixed_nhtk.unflatten(0, (lanes, -1)).float()
    return (along_lnthk.transpose(2, 3) * mixed_lnhtk).sum(dim=-1)


@dataclass(frozen=True)
class HeadScores:
    """A number per sequence and head, each [lanes, layers, heads, sequences], with its null.

    prefix_matching: attention to what came after earlier occurrences of the present token, 0 to 1; the null is the same
        on sequences in which nothing repeats, so that only a head that goes by distance scores there.
    previous_token: attention to the token before, 0 to 1; the null is attention to the one before that.
    copying: of the logits that a head's direct path raises among the sequence's tokens where it attends to one of them,
        the share that is that token's, from 0..0.5 to -1..1; the null is the share of the token drawn after it.
    attribution: the head's direct path to the logit of the token that induction predicts, over its mean path to the
        logits of the sequence's tokens, from the second copy on; the null is the same where nothing repeats.

    ov_copying: copying by the weights alone, see `eigenvalue_copying`, [lanes, layers, heads]; untrained heads are its null.
    random_losses: nats, [lanes, all sequences, copies, length]: of the copied sequences, then of those with fresh tokens.
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

    def random_copying(self, lane: int = 0) -> Copying:
        """Losses of a lane on copied random tokens; in the null every copy has fresh ones."""
        return Copying(self.random_losses[lane, :SEQUENCES], self.random_losses[lane, SEQUENCES:])


@dataclass(frozen=True)
class HeadProbe:
    """The probe's input, the same for every run of a study.

    sequences: a start token and `COPIES` copies of random tokens drawn without replacement, neither the most common
    nor the rarest, shape [SEQUENCES, 1 + copies·length]; then NULL_SEQUENCES in which no token comes twice.
    """

    sequences: Tensor
    length: int

    def target(self) -> Tensor:
        """1 where query (row) should attend: right after earlier occurrences of its token; shape [time, time].

        The last token of a sequence predicts nothing that is there, and is no query.
        """
        time = self.sequences.shape[1] - 1
        query, key = torch.arange(time)[:, None], torch.arange(time)[None, :]
        back = query + 1 - key
        return ((back > 0) & (back % self.length == 0) & (key > 1)).float()

    @torch.no_grad()
    def __call__(self, model: Decoder) -> HeadScores:
        """Scores of every head on every sequence, from one forward pass."""
        device, lanes = model.embedding.device, len(model.embedding)
        tokens_nt = self.sequences.to(device)
        inputs_lnt = tokens_nt[:, :-1].expand(lanes, -1, -1)
        targets_lnt = tokens_nt[:, 1:].expand(lanes, -1, -1)
        attended_qp = self.target().to(device)
        queries = attended_qp.any(dim=1)
        found: dict[str, list[Tensor]] = defaultdict(list)

        reads: dict[str, Tensor] = {}  # of the sequence's tokens, and of the next token over their mean

        # Weights are looked at inside the pass alone: elsewhere a sharded model has only its part of them.
        def look(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            with torch.autocast(device.type, enabled=False):
                block = model.blocks[layer]
                assert isinstance(block, Block)
                pattern = attention_patterns(query.float(), key.float())
                mixed = pattern @ value.float()
                pattern_lnhqp = pattern.unflatten(0, (lanes, -1))
                found["match"].append((pattern_lnhqp * attended_qp).sum(dim=-1)[..., queries].mean(dim=-1))
                for name, back in (("before", 1), ("two before", 2)):
                    found[name].append(pattern_lnhqp.diagonal(-back, dim1=-2, dim2=-1).mean(dim=-1))
                if not reads:
                    read_ldv = reading(model)
                    reads["sample"] = read_ldv[:, :, tokens_nt[:, 1 : 1 + self.length]].movedim(1, 2)
                    of_next_lntd = read_ldv.movedim(1, 2)[:, tokens_nt[:, 1:]]
                    reads["next"] = of_next_lntd - reads["sample"].mean(dim=-1)[:, :, None]
                found["push"].append(contributions(block.attention, mixed, reads["next"]))
                own, other = copying_scores(
                    block.attention, value.unflatten(0, (lanes, -1)), reads["sample"], self.length
                )
                found["own"].append(own)
                found["other"].append(other)
                found["circuit"].append(ov_circuit(model, block))
            return mixed.to(value.dtype)

        def measure(norm: Module, arguments: tuple[Tensor]) -> None:
            found["scale"].append(final_scale(model, arguments[0]))

        hook = model.final_norm.register_forward_pre_hook(measure)
        try:
            x_lntd = model.residual(inputs_lnt, look)
        finally:
            hook.remove()
        losses = loss.token_losses(x_lntd, model.unembedding.weight, targets_lnt)
        (scale_lnt,) = found.pop("scale")
        circuit_lyhkk = torch.stack(found.pop("circuit"), dim=1)
        found["push"] = [(push / scale_lnt[:, :, None])[..., queries].mean(dim=-1) for push in found["push"]]
        # Layers become an axis, and sequences the last one.
        by_head = {name: torch.stack(layers, dim=1).movedim(2, -1) for name, layers in found.items()}
        return HeadScores(
            prefix_matching=by_head["match"][..., :SEQUENCES],
            prefix_matching_null=by_head["match"][..., SEQUENCES:],
            previous_token=by_head["before"][..., SEQUENCES:],
            previous_token_null=by_head["two before"][..., SEQUENCES:],
            copying=by_head["own"][..., :SEQUENCES],
            copying_null=by_head["other"][..., :SEQUENCES],
            attribution=by_head["push"][..., :SEQUENCES],
            attribution_null=by_head["push"][..., SEQUENCES:],
            ov_copying=eigenvalue_copying(circuit_lyhkk),
            random_losses=losses.unflatten(2, (COPIES, self.length)),
        )


def copying_scores(
    attention: Attention, value_lnhtk: Tensor, sample_lnds: Tensor, length: int
) -> tuple[Tensor, Tensor]:
    """Copying scores [O22] for the attended token and for the one drawn after it, [lanes, n, heads] each.

    For every token of the first copy: what the head would write where it attended to that token alone, read out on
    the sample's tokens.
    """
    heads, d_head = value_lnhtk.shape[2], value_lnhtk.shape[-1]
    source_lnhsk = value_lnhtk[..., 1 : 1 + length, :].float()
    out_lid = attention.out.weight.float()
    read_lnhks = (out_lid[:, None] @ sample_lnds.float()).unflatten(2, (heads, d_head))
    logits_lnhss = source_lnhsk @ read_lnhks
    push = (logits_lnhss - logits_lnhss.mean(dim=-1, keepdim=True)).relu()
    share = push / push.sum(dim=-1, keepdim=True).clamp_min(1e-30)
    own = share.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    other = share.roll(-1, dims=-1).diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    # From 0..0.5 to -1..1 [O22]: a head that spends half of its push on the token copies as well as any.
    return 4 * own.clamp_max(0.5) - 1, 4 * other.clamp_max(0.5) - 1


def ov_circuit(model: Decoder, block: Block) -> Tensor:
    """From the embedding through each head's values to the logits, in d_head dimensions, [lanes, heads, d_head, d_head].

    The vocabulary's square matrix W_E·W_V·W_O·W_U has the same nonzero eigenvalues. The scales of norms are left out,
    their gains are not.
    """
    heads, d_head = model.shape.heads, model.shape.d_head
    source_lvd: Tensor = model.embedding
    if model.shape.style is Style.SHORTFORMER:
        source_lvd = source_lvd - source_lvd.mean(dim=2, keepdim=True)
    source_lvd = block.attention_norm.gain[:, None, :] * source_lvd
    through_ldd = reading(model).float() @ source_lvd.float()
    value_lhdk = block.attention.value.weight.float().unflatten(2, (heads, d_head)).movedim(2, 1)
    out_lhkd = block.attention.out.weight.float().unflatten(1, (heads, d_head))
    return out_lhkd @ through_ldd[:, None] @ value_lhdk


def eigenvalue_copying(circuit: Tensor) -> Tensor:
    """Sum of a circuit's eigenvalues over the sum of their sizes, -1 to 1, [..., d_head, d_head] to [...]: 1 where
    every direction is written back as itself [Elhage et al. 2021]."""
    circuit = circuit.cpu().double()
    # What is not finite is of a run that diverged, which the run itself will say.
    finite = circuit.isfinite().all(dim=-1).all(dim=-1)
    eigenvalues = torch.linalg.eigvals(circuit.where(finite[..., None, None], 0.0))
    share = eigenvalues.real.sum(dim=-1) / eigenvalues.abs().sum(dim=-1).clamp_min(1e-30)
    return share.where(finite, torch.nan)


def head_probe(store: TokenStore, context: int) -> HeadProbe | None:
    """The probe for a context, with shorter copies where 4 of 25 tokens do not fit; None where not even 4 of 2 do."""
    length = min(LENGTH, context // COPIES)
    counts = np.bincount(store.train[:COUNTED_TOKENS], minlength=store.vocabulary)
    ranked = np.argsort(counts, kind="stable")
    ranked = ranked[(counts[ranked] > 0) & (ranked != store.end_of_text)]
    middle = ranked[len(ranked) // 4 : len(ranked) - len(ranked) // 4]
    length = min(length, len(middle))
    if length < 2:
        return None
    random = np.random.default_rng(0)

    copied = [np.tile(random.choice(middle, length, replace=False), COPIES) for _ in range(SEQUENCES)]
    # Over the rotations every copy of the null is made of the same tokens, so none is harder than another.
    if len(middle) >= COPIES * length:
        drawn = random.choice(middle, (COPIES, length), replace=False)
    else:  # a vocabulary too small for that has some token twice
        drawn = np.stack([random.choice(middle, length, replace=False) for _ in range(COPIES)])
    null = [np.concatenate([drawn[(first + k) % COPIES] for k in range(COPIES)]) for first in range(NULL_SEQUENCES)]
    start = np.full((SEQUENCES + NULL_SEQUENCES, 1), store.end_of_text)
    return HeadProbe(torch.from_numpy(np.hstack([start, np.stack(copied + null)])), length)
