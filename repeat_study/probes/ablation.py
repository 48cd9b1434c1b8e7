"""Pattern-preserving ablation [O22]: set one head's output to zero, keep all attention patterns fixed, and measure the losses.

`head_table` chooses the texts, including the shuffled copies that serve as the null.
"""

import torch
from torch import Tensor
from torch.nn import Module

from repeat_study.model import loss
from repeat_study.model.decoder import Block, Decoder, sequences_per_pass
from repeat_study.probes.heads import attention_patterns
from repeat_study.probes.reports import Report, ignore


@torch.no_grad()
def ablated_losses(
    model: Decoder, sequences_bs: Tensor, positions: Tensor, chosen: Tensor | None = None, report: Report = ignore
) -> tuple[Tensor, Tensor]:
    """Compute token losses in nats, with and without ablation, at the given positions of sequences [batch, time + 1].

    Returns the losses of the intact model, [lanes, batch, positions], and the losses with each head ablated in turn,
    [lanes, layers, heads, batch, positions].

    chosen: a mask [layers, heads] of the heads to ablate, by default all; the losses of other heads are NaN. report: called before every
    batch.

    A first pass records the attention patterns, which then stay fixed: an ablation removes a head's output but does not change
    where later heads attend. All heads in a layer are ablated together in one large batch, which is split if it does not fit in
    memory. Additional shape suffixes: n batch·ablations, a ablations, p positions, i heads·d_head.
    """
    lanes, heads, d_head = len(model.embedding), model.shape.heads, model.shape.d_head
    sequences, positions = sequences_bs.to(model.embedding.device), positions.to(model.embedding.device)
    inputs_lbt = sequences[:, :-1].expand(lanes, -1, -1)
    targets_bp = sequences[:, 1:][:, positions]
    patterns: list[Tensor] = []  # one per layer, [lanes, batch, heads, time, time]
    z_by_layer: list[Tensor] = []  # concatenated head outputs before W_O, [lanes, 1, batch, time, heads·d_head]
    block_inputs: list[Tensor] = []  # [lanes, batch, time, d_model]

    def record(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        pattern = attention_patterns(query, key).to(value.dtype)
        patterns.append(pattern.unflatten(0, (lanes, -1)))
        z = pattern @ value
        z_by_layer.append(z.transpose(1, 2).flatten(2).unflatten(0, (lanes, 1, -1)))
        return z

    def with_frozen_pattern(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        # All ablations use the same pattern. Moving the ablation axis next to d_head avoids one copy of the pattern per ablation.
        value_lbhtak = value.unflatten(0, (lanes, -1, len(sequences))).movedim(1, 4)
        z = (patterns[layer] @ value_lbhtak.flatten(4)).unflatten(4, value_lbhtak.shape[4:])
        return z.movedim(4, 1).flatten(0, 2)

    def losses(x_lnpd: Tensor) -> Tensor:
        targets_lnp = targets_bp.repeat(x_lnpd.shape[1] // len(targets_bp), 1).expand(lanes, -1, -1)
        return loss.token_losses(x_lnpd, model.unembedding.weight, targets_lnp)

    def record_input(block: Module, arguments: tuple[Tensor]) -> None:
        block_inputs.append(arguments[0])

    hooks = [block.register_forward_pre_hook(record_input) for block in model.blocks]
    try:
        intact = losses(model.residual(inputs_lbt, record)[:, :, positions])
    finally:
        for hook in hooks:
            hook.remove()
    # Row h keeps every head except h.
    kept_hi = (~torch.eye(heads, dtype=torch.bool, device=sequences.device)).repeat_interleave(d_head, dim=1)
    heads_per_pass = max(1, sequences_per_pass(inputs_lbt) // len(sequences))
    chosen = torch.ones(len(block_inputs), heads, dtype=torch.bool) if chosen is None else chosen
    ablated = []
    for layer, (x_lbtd, z_l1bti) in enumerate(zip(block_inputs, z_by_layer, strict=True)):
        block, is_last = model.blocks[layer], layer == len(block_inputs) - 1
        assert isinstance(block, Block)
        if is_last:  # no later layer needs the other positions
            x_lbtd, z_l1bti = x_lbtd[:, :, positions], z_l1bti[:, :, :, positions]
        chosen_hi = kept_hi[chosen[layer].to(kept_hi.device)]
        for kept_ai in chosen_hi.split(heads_per_pass) if len(chosen_hi) else ():
            report(f"ablating heads of layer {layer + 1} of {len(block_inputs)}")
            ablated_z_lnti = (z_l1bti * kept_ai[:, None, None]).flatten(1, 2)
            x_lntd = block.after_attention(x_lbtd.repeat(1, len(kept_ai), 1, 1), ablated_z_lnti)
            stream_lntd = model.residual_from(layer + 1, x_lntd, with_frozen_pattern)
            at_positions = stream_lntd if is_last else stream_lntd[:, :, positions]
            ablated.append(losses(at_positions).unflatten(1, (-1, len(sequences))))
    losses_lhbp = torch.cat(ablated, dim=1)
    if not chosen.all():
        chosen_losses, losses_lhbp = losses_lhbp, intact.new_full((lanes, chosen.numel(), *intact.shape[1:]), torch.nan)
        losses_lhbp[:, chosen.flatten()] = chosen_losses
    return intact, losses_lhbp.unflatten(1, (len(block_inputs), heads))
