"""A trained model in Hugging Face's format: its configuration and its weights, with the names that transformers expects.

Qwen-style models become a Qwen3ForCausalLM. Other models become a RepeatStudyForCausalLM, which `modeling_repeat_study.py` defines.
"""

from typing import Any

from torch import Tensor

from repeat_study.config.model_sizes import Style
from repeat_study.hugging_face.decoders import OWN, QWEN
from repeat_study.hugging_face.names import named_weights
from repeat_study.model.decoder import LAYER_NORM_EPSILON, Block, Decoder

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
            "model_type": QWEN,
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
        "model_type": OWN,
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
    tensors = named_weights(model)
    if model.shape.style is Style.SHORTFORMER:
        block = model.blocks[0]
        assert isinstance(block, Block)
        tensors["model.positions"] = block.attention.position  # equal in all layers
    return {name: tensor.detach().float().contiguous() for name, tensor in tensors.items()}
