"""The names of a decoder's weights in Hugging Face's format: Qwen3's names, which models of both styles use."""

from collections.abc import Iterator

from torch import Tensor

from repeat_study.config.model_sizes import Style
from repeat_study.model.decoder import MLP, Attention, Block, Decoder, Norm


def named_weights(model: Decoder) -> dict[str, Tensor]:
    """Views of the first lane's weights. A linear layer's weight has shape [outputs, inputs].

    Writing to a view changes the model.
    """
    views = {
        "model.embed_tokens.weight": model.embedding[0],
        "model.norm.weight": model.final_norm.gain[0],
        "lm_head.weight": model.unembedding.weight[0].T,
    }
    for layer, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        views |= {f"model.layers.{layer}.{name}.weight": weight for name, weight in _of_block(block)}
    return views


def _of_block(block: Block) -> Iterator[tuple[str, Tensor]]:
    yield "input_layernorm", block.attention_norm.gain[0]
    for name, weight in _of_attention(block.attention):
        yield f"self_attn.{name}", weight
    if block.mlp is not None:
        norm, mlp = block.mlp
        assert isinstance(norm, Norm) and isinstance(mlp, MLP)
        yield "post_attention_layernorm", norm.gain[0]
        into_oi = mlp.into.weight[0].T
        if mlp.style is Style.QWEN:
            gate_oi, into_oi = into_oi.chunk(2)
            yield "mlp.gate_proj", gate_oi
        yield "mlp.up_proj", into_oi
        yield "mlp.down_proj", mlp.out.weight[0].T


def _of_attention(attention: Attention) -> Iterator[tuple[str, Tensor]]:
    query_oi, key_oi = attention.query_key.weight[0].T.chunk(2)
    yield "q_proj", query_oi
    yield "k_proj", key_oi
    yield "v_proj", attention.value.weight[0].T
    yield "o_proj", attention.out.weight[0].T
    if attention.shape.style is Style.QWEN:
        yield "q_norm", attention.query_norm.gain[0]
        yield "k_norm", attention.key_norm.gain[0]
