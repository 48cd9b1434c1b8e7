"""Convert a trained model to a HookedTransformer of TransformerLens, without folding or centering its weights."""

import torch
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig

from data_prep.errors import InputError
from repeat_study.config.model_sizes import Style
from repeat_study.model.decoder import MLP, Block, Decoder


def hooked(model: Decoder) -> HookedTransformer:
    """Convert the first lane. Raises InputError for a model in Qwen's style, which TransformerLens supports only in part."""
    shape = model.shape
    if shape.style is not Style.SHORTFORMER:
        raise InputError("the run uses Qwen's style; expected a size such as 2L, 2x64 or 2x64-attn")
    lens = HookedTransformer(
        HookedTransformerConfig(
            n_layers=shape.layers,
            d_model=shape.d_model,
            n_ctx=model.context,
            d_head=shape.d_head,
            n_heads=shape.heads,
            d_mlp=shape.mlp_width or None,
            d_vocab=model.vocabulary,
            attn_only=not shape.mlp_width,
            act_fn="gelu",  # the exact GELU, not gelu_new
            normalization_type="LN",
            eps=1e-5,
            positional_embedding_type="shortformer",  # positions are added after the norm, to the input of queries and keys only
            device="cpu",
        )
    )
    weights = {
        "embed.W_E": model.embedding[0],
        "ln_final.w": model.final_norm.gain[0],
        "unembed.W_U": model.unembedding.weight[0],
    }
    for layer, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        weights["pos_embed.W_pos"] = block.attention.position
        weights |= {f"blocks.{layer}.{name}": weight for name, weight in _of_block(block).items()}
    parameters = dict(lens.named_parameters())
    biases = {name: torch.zeros_like(value) for name, value in parameters.items() if name not in weights}
    assert weights.keys() <= parameters.keys() and all(".b" in name for name in biases), (
        "every weight must have a counterpart"
    )
    lens.load_state_dict(weights | biases, strict=False)  # not strict, because the causal mask is not a weight
    return lens.eval()


def _of_block(block: Block) -> dict[str, Tensor]:
    attention, heads = block.attention, block.attention.shape.heads
    inner = attention.value.weight[0].shape[1]
    query_dhk, key_dhk = attention.query_key.weight[0].split(inner, dim=1)
    reading = {"W_Q": query_dhk, "W_K": key_dhk, "W_V": attention.value.weight[0]}
    weights = {f"attn.{name}": weight.unflatten(1, (heads, -1)).movedim(1, 0) for name, weight in reading.items()}
    weights |= {"ln1.w": block.attention_norm.gain[0], "attn.W_O": attention.out.weight[0].unflatten(0, (heads, -1))}
    if block.mlp is not None:
        norm, mlp = block.mlp
        assert isinstance(mlp, MLP)
        weights |= {"ln2.w": norm.gain[0], "mlp.W_in": mlp.into.weight[0], "mlp.W_out": mlp.out.weight[0]}
    return weights
