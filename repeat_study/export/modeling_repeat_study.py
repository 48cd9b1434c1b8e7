"""Models from Hernandez et al. (2022, arXiv:2205.10487) for transformers: remote code of models exported by repeat-study.

LayerNorm, GELU, untied unembedding, no biases, and sinusoidal positions that are added to the input of queries and keys only.
Attention-only models have an `intermediate_size` of 0.

This file is copied into every exported folder, so it imports only torch and transformers. License: Apache-2.0.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput


class RepeatStudyConfig(PretrainedConfig):
    """The dimensions of a model, with the same names as in Qwen3Config."""

    model_type = "repeat_study"

    def __init__(
        self,
        vocab_size: int = 1024,
        hidden_size: int = 64,
        intermediate_size: int = 256,
        num_hidden_layers: int = 2,
        num_attention_heads: int = 2,
        head_dim: int = 32,
        max_position_embeddings: int = 128,
        layer_norm_eps: float = 1e-5,
        initializer_range: float = 0.02,
        tie_word_embeddings: bool = False,
        use_cache: bool = False,  # the model has no key-value cache
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.head_dim = head_dim
        self.max_position_embeddings = max_position_embeddings
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range
        self.use_cache = use_cache
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)


class RepeatStudyAttention(nn.Module):
    """Causal self-attention. Positions are added to the input of queries and keys, but not to the input of values."""

    def __init__(self, config: RepeatStudyConfig) -> None:
        super().__init__()
        inner = config.num_attention_heads * config.head_dim
        self.head_dim = config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, inner, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, inner, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, inner, bias=False)
        self.o_proj = nn.Linear(inner, config.hidden_size, bias=False)

    def forward(self, hidden_states: Tensor, positions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The output, shape [batch, time, hidden_size], and the attention pattern, shape [batch, heads, time, time].

        positions: position embeddings, [batch or 1, time, hidden_size]. mask: where attention is allowed, [batch or 1, 1, time, time].
        """
        positioned = hidden_states + positions
        query, key, value = (
            projection(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for projection, x in (
                (self.q_proj, positioned),
                (self.k_proj, positioned),
                (self.v_proj, hidden_states),
            )
        )
        scores = (query @ key.transpose(2, 3)) * self.head_dim**-0.5
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        pattern = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
        return self.o_proj((pattern @ value).transpose(1, 2).flatten(2)), pattern


class RepeatStudyMLP(nn.Module):
    """Feed-forward layer with the exact GELU."""

    def __init__(self, config: RepeatStudyConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.act_fn = nn.GELU()
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Map [batch, time, hidden_size] to the same shape."""
        return self.down_proj(self.act_fn(self.up_proj(hidden_states)))


class RepeatStudyDecoderLayer(nn.Module):
    """Attention, followed by an MLP unless the model is attention-only."""

    def __init__(self, config: RepeatStudyConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps, bias=False)
        self.self_attn = RepeatStudyAttention(config)
        self.has_mlp = config.intermediate_size > 0
        if self.has_mlp:
            self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps, bias=False)
            self.mlp = RepeatStudyMLP(config)

    def forward(
        self, hidden_states: Tensor, positions: Tensor, mask: Tensor, patterns: list[Tensor] | None = None
    ) -> Tensor:
        """The residual stream after this layer. The attention pattern is appended to `patterns`.

        See RepeatStudyAttention for the shapes. As in other models of transformers, a layer returns only one tensor.
        """
        attention_output, pattern = self.self_attn(self.input_layernorm(hidden_states), positions, mask)
        if patterns is not None:
            patterns.append(pattern)
        hidden_states = hidden_states + attention_output
        if self.has_mlp:
            hidden_states = hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))
        return hidden_states


class RepeatStudyModel(nn.Module):
    """Embedding, layers and final norm, with names as in other models of transformers."""

    positions: Tensor

    def __init__(self, config: RepeatStudyConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(RepeatStudyDecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps, bias=False)
        # Saved with the weights, because transformers does not initialize other buffers when it loads a model.
        self.register_buffer("positions", sinusoid(config.max_position_embeddings, config.hidden_size))


def sinusoid(context: int, hidden_size: int) -> Tensor:
    """Sinusoidal position embeddings, shape [context, hidden_size]."""
    position = torch.arange(context, dtype=torch.float64)[:, None]
    rate = 10_000.0 ** (-torch.arange(0, hidden_size, 2, dtype=torch.float64) / hidden_size)
    return torch.stack([torch.sin(position * rate), torch.cos(position * rate)], dim=-1).flatten(1).float()


class RepeatStudyForCausalLM(PreTrainedModel, GenerationMixin):
    """The language model. It has no key-value cache, so generation recomputes all positions for every new token."""

    config_class = RepeatStudyConfig
    base_model_prefix = "model"
    _no_split_modules = ("RepeatStudyDecoderLayer",)

    def __init__(self, config: RepeatStudyConfig) -> None:
        super().__init__(config)
        self.model = RepeatStudyModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The token embedding."""
        return self.model.embed_tokens

    def get_output_embeddings(self) -> nn.Module:
        """The unembedding."""
        return self.lm_head

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> CausalLMOutput | tuple[Any, ...]:
        """Next-token logits, and the mean loss in nats if labels are given; -100 excludes a label.

        attention_mask: shape [batch, time]; 0 for padding. Positions are counted from the first token that is not padding.
        """
        hidden = self.model.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        time, context = hidden.shape[1], len(self.model.positions)
        if time > context:
            raise ValueError(f"{time} tokens given, but the model's context is {context} tokens")
        mask = torch.ones(time, time, dtype=torch.bool, device=hidden.device).tril()[None, None]
        if attention_mask is not None:
            if attention_mask.shape != hidden.shape[:2]:
                raise ValueError(f"attention_mask has shape {tuple(attention_mask.shape)}; expected [batch, time]")
            mask = mask & attention_mask[:, None, None, :].bool()
            if position_ids is None:
                position_ids = (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)
        if position_ids is None:
            position_ids = torch.arange(time, device=hidden.device)[None]
        positions = self.model.positions[position_ids].to(hidden.dtype)

        if output_attentions is None:
            output_attentions = self.config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        patterns: list[Tensor] = []
        residuals = [hidden]
        for layer in self.model.layers:
            hidden = layer(hidden, positions, mask, patterns)
            residuals.append(hidden)
        residuals[-1] = hidden = self.model.norm(hidden)
        logits = self.lm_head(hidden)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        output = CausalLMOutput(
            loss=loss,
            logits=logits,
            hidden_states=tuple(residuals) if output_hidden_states else None,
            attentions=tuple(patterns) if output_attentions else None,
        )
        return output.to_tuple() if return_dict is False else output

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """All tokens so far, because there is no cache."""
        return {"input_ids": input_ids, "attention_mask": attention_mask}
