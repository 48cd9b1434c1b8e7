"""The architecture adapter with which TransformerLens 4 hooks our own model family; see `transformer_lens.transformer_bridge`."""

from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge.architecture_adapter import ArchitectureAdapter
from transformer_lens.model_bridge.generalized_components import (
    AttentionBridge,
    BlockBridge,
    EmbeddingBridge,
    LinearBridge,
    NormalizationBridge,
    UnembeddingBridge,
)


class RepeatStudyAttentionBridge(AttentionBridge):
    """Attention with hooks on queries, keys, values, scores, patterns and head outputs. Changes made by hooks take effect.

    TransformerLens's own class would call the wrapped module, which computes scores and patterns where no hook can change them.
    """

    supports_split_qkv_fork = (
        False  # one hook point per input cannot represent positions that only queries and keys receive
    )

    def forward(self, hidden_states: Tensor, positions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Same as RepeatStudyAttention.forward in `modeling_repeat_study`."""
        hidden_states = self.hook_in(hidden_states)
        positioned = hidden_states + positions
        d_head = self.config.d_head
        query, key, value = (
            projected.unflatten(-1, (-1, d_head)).transpose(1, 2)
            for projected in (self.q(positioned), self.k(positioned), self.v(hidden_states))
        )
        scores = (query @ key.transpose(2, 3)) * d_head**-0.5
        scores = self.hook_attn_scores(scores.masked_fill(~mask, torch.finfo(scores.dtype).min))
        pattern = self.hook_pattern(scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype))
        output = self.o((pattern @ value).transpose(1, 2).flatten(2))
        return self.hook_out(output), pattern


class RepeatStudyAdapter(ArchitectureAdapter):
    """Maps the modules of RepeatStudyForCausalLM to the names of TransformerLens."""

    # A norm's gain cannot be folded into W_Q and W_K, because positions are added after the norm.
    supports_fold_ln = False
    supports_center_writing_weights = False  # would also center a module of position embeddings, and there is none
    supports_kv_cache = False

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        attention_only = not cfg.intermediate_size
        settings = {
            "normalization_type": "LN",
            "positional_embedding_type": "shortformer",
            "final_rms": False,
            "gated_mlp": False,
            "attn_only": attention_only,
            "act_fn": "gelu",
            "default_prepend_bos": False,
            "attn_implementation": "eager",
        }
        for name, value in settings.items():
            setattr(self.cfg, name, value)
        self.weight_processing_conversions = self._qkvo_weight_conversions()
        attention = RepeatStudyAttentionBridge(
            name="self_attn",
            config=self.cfg,
            submodules={letter: LinearBridge(name=f"{letter}_proj") for letter in "qkvo"},
        )
        submodules = {"ln1": self._norm("input_layernorm"), "attn": attention}
        if not attention_only:
            submodules |= {"ln2": self._norm("post_attention_layernorm"), "mlp": self._ungated_mlp()}
        blocks = BlockBridge(name="model.layers", config=self.cfg, submodules=submodules)
        missing = {"hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input"}
        if attention_only:
            missing |= {"hook_resid_mid", "hook_mlp_out"}
        blocks.hook_aliases = {name: target for name, target in blocks.hook_aliases.items() if name not in missing}
        self.component_mapping = {
            "embed": EmbeddingBridge(name="model.embed_tokens"),
            "blocks": blocks,
            "ln_final": self._norm("model.norm"),
            "unembed": UnembeddingBridge(name="lm_head"),
        }

    def _norm(self, name: str) -> NormalizationBridge:
        return NormalizationBridge(name=name, config=self.cfg, use_native_layernorm_autograd=True)
