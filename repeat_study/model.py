"""The decoder. Every weight carries a leading lanes axis: a bundle of models of one shape, trained side by side.

Letters in names: l lanes, b batch, t time, d d_model, h heads, k d_head, f MLP width, v vocabulary.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repeat_study.ladder import MLP_RATIO, Shape

INIT_STD = 0.02  # [GPT-2]; layers that write to the residual stream are scaled down by sqrt(2·L)


def sinusoid(context: int, d_model: int) -> Tensor:
    """Sinusoidal positions, shape [context, d_model] [Vaswani et al. 2017]."""
    position = torch.arange(context, dtype=torch.float64)[:, None]
    rate = torch.exp(
        torch.arange(0, d_model, 2, dtype=torch.float64) * (-torch.log(torch.tensor(10000.0).double()) / d_model)
    )
    return torch.stack([torch.sin(position * rate), torch.cos(position * rate)], dim=-1).flatten(1).float()


class Linear(nn.Module):
    """A matrix per lane, no bias: x_lbtd @ weight_ldo."""

    def __init__(self, lanes: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(lanes, inputs, outputs))

    def forward(self, x_lbtd: Tensor) -> Tensor:
        """[lanes, batch, time, inputs] to [lanes, batch, time, outputs]: one batched product, lanes never meet."""
        lanes, batch, time, _ = x_lbtd.shape
        return torch.bmm(x_lbtd.reshape(lanes, batch * time, -1), self.weight).view(lanes, batch, time, -1)


class Norm(nn.Module):
    """LayerNorm with a gain per lane and no bias."""

    def __init__(self, lanes: int, d_model: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(lanes, d_model))

    def forward(self, x_lbtd: Tensor) -> Tensor:
        """Normalise the last axis, then scale by the lane's gain."""
        if len(self.gain) == 1:  # the fused kernel takes one gain
            return F.layer_norm(x_lbtd, x_lbtd.shape[-1:], self.gain[0])
        return F.layer_norm(x_lbtd, x_lbtd.shape[-1:]) * self.gain[:, None, None, :]


class Attention(nn.Module):
    """Causal self-attention in which positions reach queries and keys only [H22 section 2]."""

    position_td: Tensor

    def __init__(self, lanes: int, shape: Shape, context: int) -> None:
        super().__init__()
        self.heads, self.d_head = shape.heads, shape.d_head
        self.query_key_value = Linear(lanes, shape.d_model, 3 * shape.d_model)
        self.out = Linear(lanes, shape.d_model, shape.d_model)
        self.register_buffer("position_td", sinusoid(context, shape.d_model), persistent=False)

    def queries_keys_values(self, x_lbtd: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Three tensors of shape [lanes·batch, heads, time, d_head].

        (x + position) @ W is computed as x @ W + position @ W: one product makes all three, and the second term is
        small, having no batch.
        """
        lanes, batch, time, d_model = x_lbtd.shape
        qkv = self.query_key_value(x_lbtd)
        position_ltd = self.position_td[:time] @ self.query_key_value.weight[:, :, : 2 * d_model]
        query_key = qkv[..., : 2 * d_model] + position_ltd[:, None]
        query, key = query_key.split(d_model, dim=-1)
        value = qkv[..., 2 * d_model :]
        query, key, value = (
            part.reshape(lanes * batch, time, self.heads, self.d_head).transpose(1, 2) for part in (query, key, value)
        )
        return query, key, value

    def forward(self, x_lbtd: Tensor) -> Tensor:
        """[lanes, batch, time, d_model] to the same; lanes fold into the batch, so one kernel serves them all."""
        query, key, value = self.queries_keys_values(x_lbtd)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(x_lbtd.shape))


class Block(nn.Module):
    """Attention, then an MLP, each reading a normalised residual stream and adding to it."""

    def __init__(self, lanes: int, shape: Shape, context: int) -> None:
        super().__init__()
        self.attention_norm = Norm(lanes, shape.d_model)
        self.attention = Attention(lanes, shape, context)
        self.mlp_norm = Norm(lanes, shape.d_model)
        self.mlp_in = Linear(lanes, shape.d_model, MLP_RATIO * shape.d_model)
        self.mlp_out = Linear(lanes, MLP_RATIO * shape.d_model, shape.d_model)

    def forward(self, x_lbtd: Tensor) -> Tensor:
        """[lanes, batch, time, d_model] to the same."""
        x_lbtd = x_lbtd + self.attention(self.attention_norm(x_lbtd))
        return x_lbtd + self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x_lbtd)), approximate="tanh"))


class Decoder(nn.Module):
    """A decoder-only transformer per lane: tokens_lbt of int64 to logits_lbtv."""

    def __init__(self, shape: Shape, vocabulary: int, context: int, seeds: Sequence[int]) -> None:
        """`seeds`: one per lane; a lane's weights at the start depend on its own seed and on nothing else."""
        super().__init__()
        lanes = len(seeds)
        self.shape, self.vocabulary, self.context = shape, vocabulary, context
        self.embedding = nn.Parameter(torch.empty(lanes, vocabulary, shape.d_model))
        self.blocks = nn.ModuleList(Block(lanes, shape, context) for _ in range(shape.layers))
        self.final_norm = Norm(lanes, shape.d_model)
        self.unembedding = Linear(lanes, shape.d_model, vocabulary)
        self._initialise(seeds)

    @torch.no_grad()
    def _initialise(self, seeds: Sequence[int]) -> None:
        for lane, seed in enumerate(seeds):
            generator = torch.Generator().manual_seed(seed)
            for name, parameter in self.named_parameters():
                if not name.endswith("gain"):
                    writes_residual = name.endswith(("attention.out.weight", "mlp_out.weight"))
                    std = INIT_STD / (2 * self.shape.layers) ** 0.5 if writes_residual else INIT_STD
                    parameter[lane].normal_(0, std, generator=generator)

    def forward(self, tokens_lbt: Tensor) -> Tensor:
        """Logits for the token after each position, shape [lanes, batch, time, vocabulary]."""
        lanes = len(tokens_lbt)
        offset_l11 = torch.arange(lanes, device=tokens_lbt.device)[:, None, None] * self.vocabulary
        x_lbtd = F.embedding(tokens_lbt + offset_l11, self.embedding.flatten(0, 1))
        for block in self.blocks:
            x_lbtd = block(x_lbtd)
        logits: Tensor = self.unembedding(self.final_norm(x_lbtd))
        return logits


def token_losses(logits_lbtv: Tensor, targets_lbt: Tensor) -> Tensor:
    """Cross-entropy of every token in nats, float32, shape [lanes, batch, time]."""
    return F.cross_entropy(logits_lbtv.flatten(0, 2).float(), targets_lbt.flatten(), reduction="none").view_as(
        targets_lbt
    )
