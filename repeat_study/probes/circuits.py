"""Direct paths from attention heads to the logits [E21], and the copying scores that are computed from them [O22].

Additional shape suffixes: n sequences, s distinct tokens in a sequence (its sample). The variable `z` is a
head's output before W_O.
"""

import torch
from torch import Tensor

from repeat_study.config.model_sizes import Style
from repeat_study.model.decoder import LAYER_NORM_EPSILON, Attention, Block, Decoder


def logit_directions(model: Decoder) -> Tensor:
    """For each token, the direction whose dot product with the residual stream is the token's logit times `final_norm_scale`.

    The directions are W_U with the final norm's gain folded in, shape [lanes, d_model, vocabulary]. LayerNorm's subtraction of
    the mean is folded in too, so a direct path to the logits is a single matrix product.
    """
    read_ldv = model.final_norm.gain[:, :, None] * model.unembedding.weight
    return read_ldv - read_ldv.mean(dim=1, keepdim=True) if model.shape.style is Style.SHORTFORMER else read_ldv


def final_norm_scale(model: Decoder, stream_lntd: Tensor) -> Tensor:
    """The divisor that the final norm applies to the residual stream at each position, [lanes, n, time]."""
    x = stream_lntd.float()
    if model.shape.style is Style.SHORTFORMER:
        return (x.var(dim=-1, correction=0) + LAYER_NORM_EPSILON).sqrt()
    return (x.square().mean(dim=-1) + model.shape.norm_epsilon).sqrt()


def direct_contributions(attention: Attention, z_nhtk: Tensor, read_lntd: Tensor) -> Tensor:
    """Dot product of each head's output with a given direction at each position, [lanes, n, heads, time].

    If the direction is one of `logit_directions`, dividing the result by `final_norm_scale` gives the head's direct contribution
    to that logit.
    z_nhtk: head outputs before W_O, [lanes·n, heads, time, d_head].
    read_lntd: the directions, [lanes, n, time, d_model].
    """
    lanes, heads, d_head = len(read_lntd), z_nhtk.shape[1], z_nhtk.shape[-1]
    out_lid = attention.out.weight.float()
    along_lnthk = (read_lntd.flatten(1, 2).float() @ out_lid.transpose(1, 2)).view(*read_lntd.shape[:3], heads, d_head)
    z_lnhtk = z_nhtk.unflatten(0, (lanes, -1)).float()
    return (along_lnthk.transpose(2, 3) * z_lnhtk).sum(dim=-1)


def copying_scores(
    attention: Attention, value_lnhtk: Tensor, sample_lnds: Tensor, length: int
) -> tuple[Tensor, Tensor]:
    """Copying scores [O22] and their null, both between -1 and 1, shape [lanes, n, heads].

    For every token in the first copy, compute how the logits of the sample's tokens would change if the head attended to that
    token alone. Only the excess of each change over the mean change counts. The score is based on the token's own share of the
    total excess, and the null on the share of the token that comes next in the sample.
    """
    heads, d_head = value_lnhtk.shape[2], value_lnhtk.shape[-1]
    source_lnhsk = value_lnhtk[..., 1 : 1 + length, :].float()
    out_lid = attention.out.weight.float()
    read_lnhks = (out_lid[:, None] @ sample_lnds.float()).unflatten(2, (heads, d_head))
    logits_lnhss = source_lnhsk @ read_lnhks
    raised = (logits_lnhss - logits_lnhss.mean(dim=-1, keepdim=True)).relu()
    share = raised / raised.sum(dim=-1, keepdim=True).clamp_min(1e-30)
    own = share.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    next_ = share.roll(-1, dims=-1).diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    # Map shares from 0 to 0.5 to scores from -1 to 1 [O22]. A share of one half already counts as perfect copying.
    return 4 * own.clamp_max(0.5) - 1, 4 * next_.clamp_max(0.5) - 1


def ov_circuit(model: Decoder, block: Block) -> Tensor:
    """Each head's OV circuit [E21], the path from the embedding through the head to the logits, reduced to d_head dimensions.

    The result has shape [lanes, heads, d_head, d_head] and the same nonzero eigenvalues as W_E·W_V·W_O·W_U over the vocabulary.
    It includes the norms' gains but not their scales.
    """
    heads, d_head = model.shape.heads, model.shape.d_head
    source_lvd: Tensor = model.embedding
    if model.shape.style is Style.SHORTFORMER:
        source_lvd = source_lvd - source_lvd.mean(dim=2, keepdim=True)
    source_lvd = block.attention_norm.gain[:, None, :] * source_lvd
    through_ldd = logit_directions(model).float() @ source_lvd.float()
    value_lhdk = block.attention.value.weight.float().unflatten(2, (heads, d_head)).movedim(2, 1)
    out_lhkd = block.attention.out.weight.float().unflatten(1, (heads, d_head))
    return out_lhkd @ through_ldd[:, None] @ value_lhdk


def eigenvalue_copying(circuit: Tensor) -> Tensor:
    """Sum of a circuit's eigenvalues divided by the sum of their absolute values [E21], [..., d_head, d_head] to [...].

    The score is between -1 and 1; it is 1 if all eigenvalues are positive, as expected of a head that copies. The null is an
    untrained head.
    """
    circuit = circuit.cpu().double()
    # The weights of a diverged run may not be finite. Divergence is reported elsewhere; here the score is just NaN.
    finite = circuit.isfinite().all(dim=-1).all(dim=-1)
    eigenvalues = torch.linalg.eigvals(circuit.where(finite[..., None, None], 0.0))
    share = eigenvalues.real.sum(dim=-1) / eigenvalues.abs().sum(dim=-1).clamp_min(1e-30)
    return share.where(finite, torch.nan)
