"""Load exported models into TransformerLens, without folding or centering their weights.

    from repeat_study.export.transformer_lens import hooked_transformer, transformer_bridge

    model = hooked_transformer("exported/step-1000")  # TransformerLens 3.9 and earlier: a HookedTransformer
    model = transformer_bridge("exported/step-1000")  # TransformerLens 4: a TransformerBridge
    logits, cache = model.run_with_cache("Some text")
    cache["blocks.0.attn.hook_pattern"]  # [batch, heads, time, time]

Text is encoded as in training, without a token at its start. TransformerLens is imported only when a function is called.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from data_prep.errors import InputError
from data_prep.files import read_record
from data_prep.token_store import TOKENIZER

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer
    from transformer_lens.model_bridge import TransformerBridge

Weights = dict[str, Tensor]


def hooked_transformer(folder: str | Path) -> "HookedTransformer":
    """Load a folder written by `repeat-study export`. Needs TransformerLens 3.9 or earlier.

    Raises InputError if the folder is not an exported model.
    """
    path, config = Path(folder), exported_config(Path(folder))
    return to_hooked_transformer(config, load_file(path / "model.safetensors"), _tokenizer(path))


def transformer_bridge(folder: str | Path) -> "TransformerBridge":
    """Load a folder written by `repeat-study export`. Needs TransformerLens 4.

    Raises InputError if the folder is not an exported model.
    """
    from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
    from transformer_lens.model_bridge.sources import build_bridge_from_module
    from transformers import AutoModelForCausalLM

    from repeat_study.export.transformer_lens_adapter import RepeatStudyAdapter

    path, config = Path(folder), exported_config(Path(folder))
    (architecture,) = config["architectures"]
    ArchitectureAdapterFactory.register_adapter("RepeatStudyForCausalLM", RepeatStudyAdapter)
    model = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True, attn_implementation="eager")
    name = f"{config['repeat_study']['run']}, step {config['repeat_study']['step']}"
    return build_bridge_from_module(
        model.eval(), architecture, hf_config=model.config, tokenizer=_tokenizer(path), model_name=name
    )


def exported_config(folder: Path) -> dict[str, Any]:
    """The content of config.json in an exported folder. Raises InputError if the folder is not an exported model."""
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"{folder}: no config.json here; expected a folder like DIR/step-N from `repeat-study export`")
    config = read_record(path)
    if "repeat_study" not in config:
        raise InputError(
            f"{path}: not from `repeat-study export`, because it has no key 'repeat_study'; expected DIR/step-N"
        )
    return config


def _tokenizer(folder: Path) -> Any:
    """The folder's tokenizer; None if it has none."""
    from transformers import PreTrainedTokenizerFast

    # AutoTokenizer would ask for permission to run the modeling file.
    return PreTrainedTokenizerFast.from_pretrained(folder) if (folder / TOKENIZER).is_file() else None


def to_hooked_transformer(config: dict[str, Any], weights: Weights, tokenizer: Any = None) -> "HookedTransformer":
    """Convert a model to a HookedTransformer, given its config.json and its weights in Hugging Face's format."""
    try:
        from transformer_lens import HookedTransformer, HookedTransformerConfig
    except ImportError as error:
        raise ImportError(
            "a HookedTransformer needs TransformerLens 3.9 or earlier (pip install 'transformer-lens<4'); with TransformerLens 4,"
            " use transformer_bridge"
        ) from error

    is_qwen = config["model_type"] == "qwen3"
    style = {
        # Positions are added after the norm, to the input of queries and keys only.
        "positional_embedding_type": "shortformer",
        "normalization_type": "LN",
        "act_fn": "gelu",  # the exact GELU, not gelu_new
        "attn_only": not config["intermediate_size"],
        "eps": config.get("layer_norm_eps"),
    }
    if is_qwen:
        style = {
            "positional_embedding_type": "rotary",
            "rotary_dim": config["head_dim"],
            "rotary_base": config["rope_theta"],
            "normalization_type": "RMS",
            "final_rms": True,
            "use_qk_norm": True,
            "act_fn": "silu",
            "gated_mlp": True,
            "eps": config["rms_norm_eps"],
        }
    model = HookedTransformer(
        HookedTransformerConfig(
            n_layers=config["num_hidden_layers"],
            d_model=config["hidden_size"],
            n_ctx=config["max_position_embeddings"],
            d_head=config["head_dim"],
            n_heads=config["num_attention_heads"],
            d_mlp=config["intermediate_size"] or None,
            d_vocab=config["vocab_size"],
            default_prepend_bos=False,
            device="cpu",
            **style,
        ),
        tokenizer,
    )
    renamed = dict(_renamed(config, weights))
    parameters = dict(model.named_parameters())
    biases = {name: torch.zeros_like(value) for name, value in parameters.items() if name not in renamed}
    assert renamed.keys() <= parameters.keys() and all(".b" in name.removeprefix("blocks") for name in biases), (
        "every weight must have a counterpart"
    )
    model.load_state_dict(
        renamed | biases, strict=False
    )  # not strict, because causal masks and rotary tables are not weights
    return model.eval()


def _renamed(config: dict[str, Any], weights: Weights) -> Iterator[tuple[str, Tensor]]:
    """The weights with the names and shapes that HookedTransformer expects."""
    yield "embed.W_E", weights["model.embed_tokens.weight"]
    yield "ln_final.w", weights["model.norm.weight"]
    yield "unembed.W_U", weights["lm_head.weight"].T
    if "model.positions" in weights:
        yield "pos_embed.W_pos", weights["model.positions"]
    heads, d_head = config["num_attention_heads"], config["head_dim"]
    for layer in range(config["num_hidden_layers"]):
        names = {name: f"model.layers.{layer}.{theirs}.weight" for name, theirs in LAYER.items()}
        for name, theirs in names.items():
            if (
                theirs not in weights
            ):  # attention-only models have no MLPs, and only Qwen-style models normalize queries and keys
                continue
            weight = weights[theirs]
            if name in ("attn.W_Q", "attn.W_K", "attn.W_V"):
                weight = weight.unflatten(0, (heads, d_head)).mT  # [heads, d_model, d_head]
            elif name == "attn.W_O":
                weight = weight.T.unflatten(0, (heads, d_head))  # [heads, d_head, d_model]
            elif weight.dim() == 2:
                weight = weight.T
            yield f"blocks.{layer}.{name}", weight


# The weights of a layer: their names in TransformerLens and in Hugging Face's format
LAYER = {
    "ln1.w": "input_layernorm",
    "attn.W_Q": "self_attn.q_proj",
    "attn.W_K": "self_attn.k_proj",
    "attn.W_V": "self_attn.v_proj",
    "attn.W_O": "self_attn.o_proj",
    "attn.q_norm.w": "self_attn.q_norm",
    "attn.k_norm.w": "self_attn.k_norm",
    "ln2.w": "post_attention_layernorm",
    "mlp.W_gate": "mlp.gate_proj",
    "mlp.W_in": "mlp.up_proj",
    "mlp.W_out": "mlp.down_proj",
}
