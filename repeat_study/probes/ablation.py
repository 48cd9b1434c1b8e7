"""Pattern-preserving ablation: what is lost where one head's output is zero and all attention stays as it was [O22]."""

import torch
from torch import Tensor
from torch.nn import Module

from repeat_study.model import loss
from repeat_study.model.decoder import Block, Decoder, sequences_per_pass
from repeat_study.probes.heads import attention_patterns


@torch.no_grad()
def ablated_losses(model: Decoder, sequences_bs: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Token losses in nats at `positions` of sequences [batch, time + 1]: of the model as it is, [lanes, batch,
    positions], and with each head's output zeroed in turn, [lanes, layers, heads, batch, positions].

    The patterns of a first pass are frozen, so an ablation takes away what a head writes and not where later heads look.
    The heads of a layer are folded into the batch, as many at a time as a chunk holds, and start behind their layer's
    patterns.
    """
    lanes, heads, d_head = len(model.embedding), model.shape.heads, model.shape.d_head
    sequences, positions = sequences_bs.to(model.embedding.device), positions.to(model.embedding.device)
    inputs_lbt = sequences[:, :-1].expand(lanes, -1, -1)
    targets_bp = sequences[:, 1:][:, positions]
    patterns: list[Tensor] = []  # [lanes, batch, heads, time, time]
    mixed_by_layer: list[Tensor] = []  # what heads put together, [lanes, 1, batch, time, heads·d_head]
    entered: list[Tensor] = []  # what every block read

    def keep(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        pattern = attention_patterns(query, key).to(value.dtype)
        patterns.append(pattern.unflatten(0, (lanes, -1)))
        mixed = pattern @ value
        mixed_by_layer.append(mixed.transpose(1, 2).flatten(2).unflatten(0, (lanes, 1, -1)))
        return mixed

    def frozen(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        # Ablations share a pattern: beside each other in its product, they do not copy it.
        value_lbhtak = value.unflatten(0, (lanes, -1, len(sequences))).movedim(1, 4)
        mixed = (patterns[layer] @ value_lbhtak.flatten(4)).unflatten(4, value_lbhtak.shape[4:])
        return mixed.movedim(4, 1).flatten(0, 2)

    def losses(x_lnpd: Tensor) -> Tensor:
        targets_lnp = targets_bp.repeat(x_lnpd.shape[1] // len(targets_bp), 1).expand(lanes, -1, -1)
        return loss.token_losses(x_lnpd, model.unembedding.weight, targets_lnp)

    def enter(block: Module, arguments: tuple[Tensor]) -> None:
        entered.append(arguments[0])

    hooks = [block.register_forward_pre_hook(enter) for block in model.blocks]
    try:
        whole = losses(model.residual(inputs_lbt, keep)[:, :, positions])
    finally:
        for hook in hooks:
            hook.remove()
    # Row h keeps every head but h.
    kept_hi = (~torch.eye(heads, dtype=torch.bool, device=sequences.device)).repeat_interleave(d_head, dim=1)
    at_once = max(1, sequences_per_pass(inputs_lbt) // len(sequences))
    found = []
    for layer, (x_lbtd, mixed_l1bti) in enumerate(zip(entered, mixed_by_layer, strict=True)):
        block, last = model.blocks[layer], layer == len(entered) - 1
        assert isinstance(block, Block)
        if last:  # nothing looks at other positions any more
            x_lbtd, mixed_l1bti = x_lbtd[:, :, positions], mixed_l1bti[:, :, :, positions]
        for kept_ai in kept_hi.split(at_once):
            without_lnti = (mixed_l1bti * kept_ai[:, None, None]).flatten(1, 2)
            x_lntd = block.after_mixing(x_lbtd.repeat(1, len(kept_ai), 1, 1), without_lnti)
            changed = model.residual_from(layer + 1, x_lntd, frozen)
            found.append(losses(changed if last else changed[:, :, positions]).unflatten(1, (-1, len(sequences))))
    return whole, torch.cat(found, dim=1).unflatten(1, (len(entered), heads))
