"""A trained model in Hugging Face's format: its configuration and its weights, with the names that transformers expects.

Qwen-style models become a Qwen3ForCausalLM. Other models become a RepeatStudyForCausalLM, which `modeling_repeat_study.py` defines.
"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from repeat_study.config.model_sizes import Style
from repeat_study.model.decoder import (
    LAYER_NORM_EPSILON,
    MLP,
    Attention,
    Block,
    Decoder,
    Norm,
)

MODELING = (
    "modeling_repeat_study"  # the module with the model's code, which is next to this file and in exported folders
)


def configuration(model: Decoder) -> dict[str, Any]:
    """The content of config.json, except for the end-of-text token."""
    shape = model.shape
    shared = {
        "vocab_size": model.vocabulary,
        "hidden_size": shape.d_model,
        "intermediate_size": shape.mlp_width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "head_dim": shape.d_head,
        "max_position_embeddings": model.context,
        "tie_word_embeddings": False,
        "dtype": "float32",
    }
    if shape.style is Style.QWEN:
        return {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            **shared,
            "num_key_value_heads": shape.heads,
            "hidden_act": "silu",
            "attention_bias": False,
            "rms_norm_eps": shape.norm_epsilon,
            "rope_theta": shape.rotary_base,  # for transformers 4
            "rope_parameters": {"rope_type": "default", "rope_theta": shape.rotary_base},
        }
    return {
        "architectures": ["RepeatStudyForCausalLM"],
        "model_type": "repeat_study",
        "auto_map": {
            "AutoConfig": f"{MODELING}.RepeatStudyConfig",
            "AutoModelForCausalLM": f"{MODELING}.RepeatStudyForCausalLM",
        },
        **shared,
        "layer_norm_eps": LAYER_NORM_EPSILON,
        "use_cache": False,
    }


def weights(model: Decoder) -> dict[str, Tensor]:
    """The first lane's weights, in float32. A linear layer's weight has shape [outputs, inputs]."""
    tensors = {
        "model.embed_tokens.weight": model.embedding[0],
        "model.norm.weight": model.final_norm.gain[0],
        "lm_head.weight": model.unembedding.weight[0].T,
    }
    for layer, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        tensors |= {f"model.layers.{layer}.{name}.weight": weight for name, weight in _of_block(block)}
        if model.shape.style is Style.SHORTFORMER:
            tensors["model.positions"] = block.attention.position  # equal in all layers
    return {name: tensor.detach().float().contiguous() for name, tensor in tensors.items()}


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
