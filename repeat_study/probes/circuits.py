"""Direct paths from attention heads to the logits [E21], and the copying scores read off them [O22].

Letters in tensor names beside the model's: n sequences, s tokens of a sequence's sample, z a head's output before W_O.
"""

import torch
from torch import Tensor

from repeat_study.config.model_sizes import Style
from repeat_study.model.decoder import Attention, Block, Decoder


def logit_directions(model: Decoder) -> Tensor:
    """The residual-stream direction that each token's logit reads: W_U with the final norm's gain folded in, its scale left
    out, shape [lanes, d_model, vocabulary].

    LayerNorm's subtraction of the mean is folded in too, so a direct path to the logits is a single product.
    """
    read_ldv = model.final_norm.gain[:, :, None] * model.unembedding.weight
    return read_ldv - read_ldv.mean(dim=1, keepdim=True) if model.shape.style is Style.SHORTFORMER else read_ldv


def final_norm_scale(model: Decoder, stream_lntd: Tensor) -> Tensor:
    """What the final norm divides the residual stream by, [lanes, n, time]."""
    x = stream_lntd.float()
    if model.shape.style is Style.SHORTFORMER:
        return (x.var(dim=-1, correction=0) + 1e-5).sqrt()
    return (x.square().mean(dim=-1) + 1e-6).sqrt()


def direct_contributions(attention: Attention, z_nhtk: Tensor, read_lntd: Tensor) -> Tensor:
    """Each head's output along one direction per token, [lanes, n, heads, time]. Divided by `final_norm_scale`, it is the
    head's direct contribution to the logit that the direction reads.

    z: head outputs before W_O, [lanes·n, heads, time, d_head]; read: the directions.
    """
    lanes, heads, d_head = len(read_lntd), z_nhtk.shape[1], z_nhtk.shape[-1]
    out_lid = attention.out.weight.float()
    along_lnthk = (read_lntd.flatten(1, 2).float() @ out_lid.transpose(1, 2)).view(*read_lntd.shape[:3], heads, d_head)
    z_lnhtk = z_nhtk.unflatten(0, (lanes, -1)).float()
    return (along_lnthk.transpose(2, 3) * z_lnhtk).sum(dim=-1)


def copying_scores(
    attention: Attention, value_lnhtk: Tensor, sample_lnds: Tensor, length: int
) -> tuple[Tensor, Tensor]:
    """Copying scores [O22] and their null, [lanes, n, heads] each, -1 to 1.

    For every token of the first copy: what the head would write if it attended to that token alone, read out on the
    logits of the sample's tokens. The score is the token's own share of the raised logits; the null is the share of the
    next token of the sample.
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
    # Shares from 0 to 0.5 become scores from -1 to 1 [O22]: a share of one half is already perfect copying.
    return 4 * own.clamp_max(0.5) - 1, 4 * next_.clamp_max(0.5) - 1


def ov_circuit(model: Decoder, block: Block) -> Tensor:
    """Each head's path from the embedding through its values to the logits, in d_head dimensions, shape
    [lanes, heads, d_head, d_head] [E21].

    It has the same nonzero eigenvalues as W_E·W_V·W_O·W_U over the vocabulary. The scales of norms are left out, their gains
    are not.
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
    """Sum of a circuit's eigenvalues over the sum of their absolute values, -1 to 1, [..., d_head, d_head] to [...]: 1 if
    every direction is written back as itself [E21]. Untrained heads are its null."""
    circuit = circuit.cpu().double()
    # A diverged run has non-finite weights; it is reported elsewhere, so its score is NaN here.
    finite = circuit.isfinite().all(dim=-1).all(dim=-1)
    eigenvalues = torch.linalg.eigvals(circuit.where(finite[..., None, None], 0.0))
    share = eigenvalues.real.sum(dim=-1) / eigenvalues.abs().sum(dim=-1).clamp_min(1e-30)
    return share.where(finite, torch.nan)
