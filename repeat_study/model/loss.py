"""Compute cross-entropy in chunks, so that memory never holds the logits for all tokens at once.

With a context of 8,192 and a vocabulary of 50,304, the logits of a single sequence take up 1.6 GB in float32, and autograd
would keep both the logits and their gradient.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Tokens per chunk on a CPU; a chunk this small fits in the cache. Wide models use 4·d_model tokens, because every chunk reads
# all weights.
CHUNK_ROWS = 256
CHUNK_LOGITS_CUDA = 1 << 27  # logits per chunk on a GPU: half a GB in float32, enough to keep the GPU busy


def token_losses(x_lbtd: Tensor, weight_ldv: Tensor, targets_lbt: Tensor) -> Tensor:
    """Cross-entropy of every token in nats, float32, shape [lanes, batch, time]. Not differentiable; used for evaluation."""
    lanes, d_model, _ = weight_ldv.shape
    x_lnd, weight_ldv = _cast_for_autocast(x_lbtd.reshape(lanes, -1, d_model), weight_ldv)
    targets_ln = targets_lbt.reshape(lanes, -1)
    losses_ln = x_lnd.new_empty(targets_ln.shape, dtype=torch.float32)
    with torch.no_grad():
        for rows in _chunks(x_lnd, weight_ldv):
            logits_lnv = torch.bmm(x_lnd[:, rows], weight_ldv).float()
            chosen_ln = logits_lnv.gather(2, targets_ln[:, rows, None])[..., 0]
            losses_ln[:, rows] = torch.logsumexp(logits_lnv, dim=2) - chosen_ln
    return losses_ln.view(targets_lbt.shape)


def mean_loss_per_lane(x_lbtd: Tensor, weight_ldv: Tensor, targets_lbt: Tensor, compiled: bool = False) -> Tensor:
    """Mean cross-entropy of each lane in nats, float32, shape [lanes]; used for training.

    Gradients are computed in the forward pass, while a chunk's logits are in memory. If `compiled` is true, the operations
    between the matrix products are fused, because they are memory-bound on a GPU.
    """
    lanes, d_model, _ = weight_ldv.shape
    x_lnd, weight_ldv = _cast_for_autocast(x_lbtd.reshape(lanes, -1, d_model), weight_ldv)
    loss_l: Tensor = _MeanLoss.apply(  # type: ignore[no-untyped-call]
        x_lnd, weight_ldv, targets_lbt.reshape(lanes, -1), compiled
    )
    return loss_l


class _MeanLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_lnd: Tensor, weight_ldv: Tensor, targets_ln: Tensor, compiled: bool) -> Tensor:
        loss_and_gradient = _compiled() if compiled else _loss_and_gradient
        tokens = x_lnd.shape[1]
        loss_l = x_lnd.new_zeros(len(x_lnd), dtype=torch.float32)
        x_gradient = torch.empty_like(x_lnd)
        weight_gradient = torch.zeros_like(weight_ldv, dtype=torch.float32)
        for rows in _chunks(x_lnd, weight_ldv):
            x, targets_ln1 = x_lnd[:, rows], targets_ln[:, rows, None]
            chosen_ln1, gradient_lnv = loss_and_gradient(torch.bmm(x, weight_ldv), targets_ln1)
            loss_l -= chosen_ln1.sum(dim=(1, 2))
            x_gradient[:, rows] = torch.bmm(gradient_lnv, weight_ldv.transpose(1, 2))
            if x.dtype is torch.float32:
                weight_gradient.baddbmm_(x.transpose(1, 2), gradient_lnv)
            else:
                weight_gradient += torch.bmm(x.transpose(1, 2), gradient_lnv)
        ctx.save_for_backward(x_gradient, weight_gradient)
        ctx.tokens, ctx.dtype = tokens, weight_ldv.dtype
        return loss_l / tokens

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x_gradient, weight_gradient = ctx.saved_tensors
        scale_l11 = (gradients[0] / ctx.tokens)[:, None, None]
        # Scaling in float32 matters: rounding 1 / tokens to bfloat16 would change all gradients by up to 0.2%.
        return (x_gradient * scale_l11).to(ctx.dtype), (weight_gradient * scale_l11).to(ctx.dtype), None, None


def _loss_and_gradient(logits_lnv: Tensor, targets_ln1: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each target in float32, and the gradient of the summed loss with respect to the logits.

    The gradient has the same dtype as the logits. Both results are computed from one float32 softmax. If a loss exceeds 87
    nats, the softmax underflows and the loss becomes infinite.
    """
    p_lnv = F.softmax(logits_lnv, dim=2, dtype=torch.float32)
    chosen_ln1 = p_lnv.gather(2, targets_ln1)
    p_lnv.scatter_add_(2, targets_ln1, torch.full_like(chosen_ln1, -1.0))
    return chosen_ln1.log(), p_lnv.to(logits_lnv.dtype)


@cache
def _compiled() -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return torch.compile(_loss_and_gradient, dynamic=True)


def _cast_for_autocast(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Cast both tensors to the autocast dtype, or to the weight's dtype if autocast is off.

    Autograd records these casts, but not the matrix products computed for each chunk.
    """
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    return x.to(dtype), weight.to(dtype)


def _chunks(x_lnd: Tensor, weight_ldv: Tensor) -> list[slice]:
    lanes, tokens, _ = x_lnd.shape
    _, d_model, vocabulary = weight_ldv.shape
    rows = max(1, CHUNK_LOGITS_CUDA // (lanes * vocabulary)) if x_lnd.is_cuda else max(CHUNK_ROWS, 4 * d_model)
    return [slice(first, min(first + rows, tokens)) for first in range(0, tokens, rows)]
