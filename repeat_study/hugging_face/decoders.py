"""Convert a folder's weights to our own decoder, which gives every score: Qwen3-style models and models that `export` wrote."""

from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from data_prep.errors import InputError
from data_prep.validation import key_path, problem
from repeat_study.config.model_sizes import Shape, Style
from repeat_study.hugging_face.folder import CONFIG, ModelFolder
from repeat_study.hugging_face.headers import check_complete, check_shape, check_used
from repeat_study.hugging_face.names import named_weights
from repeat_study.model.decoder import LAYER_NORM_EPSILON, Decoder

Count = Annotated[int, Field(gt=0, lt=2**31)]
QWEN, OWN = "qwen3", "repeat_study"  # model types


class DecoderConfig(BaseModel):
    """The entries of config.json that both families have."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)
    vocab_size: Count
    hidden_size: Count
    intermediate_size: Annotated[int, Field(ge=0, lt=2**31)]
    num_hidden_layers: Count
    num_attention_heads: Count
    head_dim: Count = 128
    max_position_embeddings: Count = 32_768
    tie_word_embeddings: bool = False

    @property
    def key_value_heads(self) -> int:
        """Number of heads with keys and values of their own."""
        return self.num_attention_heads

    @property
    def shape(self) -> Shape:
        """The shape of the decoder that the weights are converted to, in which every head has its own keys and values."""
        return Shape(
            self.num_hidden_layers, self.hidden_size, self.num_attention_heads, self.head_dim, self.intermediate_size
        )


class OwnConfig(DecoderConfig):
    """config.json of a model from [H22] that `export` wrote."""

    tie_word_embeddings: Literal[False] = False
    layer_norm_eps: float = Field(LAYER_NORM_EPSILON, ge=LAYER_NORM_EPSILON, le=LAYER_NORM_EPSILON)


class RotaryParameters(BaseModel):
    """The positions of a Qwen3-style model."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)
    rope_type: str = "default"
    rope_theta: float | None = Field(None, gt=1)
    partial_rotary_factor: float = 1.0


class QwenConfig(DecoderConfig):
    """config.json of a Qwen3-style model [Q25]. The defaults are those of transformers."""

    num_key_value_heads: Count | None = None
    rms_norm_eps: float = Field(1e-6, gt=0)
    rope_theta: float = Field(10_000.0, gt=1)
    rope_parameters: RotaryParameters | None = None
    rope_scaling: dict[str, Any] | None = None
    use_sliding_window: bool = False
    layer_types: list[str] | None = None
    attention_bias: bool = False
    hidden_act: str = "silu"

    @property
    def key_value_heads(self) -> int:
        """Number of heads with keys and values of their own; each serves a group of attention heads."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def shape(self) -> Shape:
        """The shape with the model's own rotary base and norm epsilon."""
        base = (self.rope_parameters and self.rope_parameters.rope_theta) or self.rope_theta
        sizes = super().shape
        return Shape(
            sizes.layers, sizes.d_model, sizes.heads, sizes.d_head, sizes.mlp_width, Style.QWEN, base, self.rms_norm_eps
        )

    def unsupported(self) -> str:
        """The first setting that our decoder lacks; empty if it has all."""
        scaling, rotary = self.rope_scaling or {}, self.rope_parameters or RotaryParameters()
        if (scaling.get("rope_type") or scaling.get("type") or rotary.rope_type) != "default":
            return "rope_scaling"
        if rotary.partial_rotary_factor != 1:
            return "partial_rotary_factor"
        if self.use_sliding_window or any(kind != "full_attention" for kind in self.layer_types or ()):
            return "sliding windows"
        if self.attention_bias:
            return "attention_bias"
        return "" if self.hidden_act == "silu" else f"hidden_act {self.hidden_act!r}"


def decoder_config(folder: ModelFolder) -> DecoderConfig | None:
    """The configuration of a model that can be converted; None for another architecture.

    Raises InputError if an entry is invalid, or if a Qwen3-style model has a feature that our decoder lacks.
    """
    if folder.model_type not in (QWEN, OWN):
        return None
    path = folder.path / CONFIG
    try:
        config = (QwenConfig if folder.model_type == QWEN else OwnConfig).model_validate(folder.config)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{path}: {key_path(first['loc'])}: {problem(first)}") from error
    if isinstance(config, QwenConfig) and (feature := config.unsupported()):
        raise InputError(f"{path}: Qwen3-style models with {feature} are not supported")
    if config.num_attention_heads % config.key_value_heads:
        raise InputError(
            f"{path}: num_key_value_heads: {config.key_value_heads} found; expected a divisor of the"
            f" {config.num_attention_heads} attention heads"
        )
    if isinstance(config, QwenConfig) and config.head_dim % 2:
        raise InputError(f"{path}: head_dim: {config.head_dim} found; expected an even number")
    _check_headers(folder, config)
    return config


def _check_headers(folder: ModelFolder, config: DecoderConfig) -> None:
    """Raise InputError if a tensor is missing or unknown, or does not have the shape that config.json implies.

    Uses no memory for weights.
    """
    last, inner = f"model.layers.{config.num_hidden_layers - 1}", config.num_attention_heads * config.head_dim
    # If the file has these shapes, it limits the size of the decoder below.
    limits = {
        "model.embed_tokens.weight": (config.vocab_size, config.hidden_size),
        f"{last}.self_attn.q_proj.weight": (inner, config.hidden_size),
    }
    if config.intermediate_size:
        limits[f"{last}.mlp.up_proj.weight"] = (config.intermediate_size, config.hidden_size)
    for name, shape in limits.items():
        _check_header(folder, name, shape)
    with torch.device("meta"):
        views = named_weights(Decoder(config.shape, config.vocab_size, 1, [0]))
    for name, view in views.items():
        _check_header(
            folder, _source(folder, config, name), (_rows_in_file(config, name, view.shape[0]), *view.shape[1:])
        )
    check_used(folder, folder.shapes.keys() - views.keys() - {"model.positions"})


def _check_header(folder: ModelFolder, name: str, expected: tuple[int, ...]) -> None:
    check_complete(folder, {name} - folder.shapes.keys())
    check_shape(folder, name, folder.shapes[name], expected)


def _source(folder: ModelFolder, config: DecoderConfig, name: str) -> str:
    """The name of the tensor that a weight is read from.

    A model with tied embeddings needs no lm_head.weight. If the folder contains one, it is used, as in transformers 5.
    """
    tied = name == "lm_head.weight" and name not in folder.shapes and config.tie_word_embeddings
    return "model.embed_tokens.weight" if tied else name


def _rows_in_file(config: DecoderConfig, name: str, rows: int) -> int:
    return config.key_value_heads * config.head_dim if _is_shared(name) else rows


def _is_shared(name: str) -> bool:
    """Whether heads of a group share this weight."""
    return name.endswith(("k_proj.weight", "v_proj.weight"))


def untrained_decoder(config: DecoderConfig, context: int, seed: int) -> Decoder:
    """A decoder with random weights [Q25]. Heads share keys, values and embeddings as in the folder's model."""
    model = Decoder(config.shape, config.vocab_size, context, [seed])
    group = config.num_attention_heads // config.key_value_heads
    with torch.no_grad():
        for name, weight in named_weights(model).items():
            if _is_shared(name) and group > 1:
                weight.copy_(_for_every_head(weight.unflatten(0, (-1, config.head_dim))[::group].flatten(0, 1), config))
        if config.tie_word_embeddings:
            model.unembedding.weight.copy_(model.embedding.transpose(1, 2))
    return model


def trained_decoder(folder: ModelFolder, config: DecoderConfig, context: int) -> Decoder:
    """The folder's model in float32, for sequences of up to `context` tokens."""
    model = Decoder(config.shape, config.vocab_size, context, [0])
    with torch.no_grad():
        for name, weight in named_weights(model).items():
            tensor = folder.read(_source(folder, config, name))
            weight.copy_(_for_every_head(tensor, config) if _is_shared(name) else tensor)
    return model


def _for_every_head(tensor_oi: Tensor, config: DecoderConfig) -> Tensor:
    """Repeat the key or value weights of each group for every head in it, [key_value_heads·d_head, d_model] to [heads·d_head, d_model]."""
    group = config.num_attention_heads // config.key_value_heads
    return tensor_oi.unflatten(0, (-1, config.head_dim)).repeat_interleave(group, dim=0).flatten(0, 1)
