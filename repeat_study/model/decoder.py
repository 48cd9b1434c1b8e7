"""The decoder-only transformer. Every weight has a leading lane axis, so one module can train several models of the same shape.

The suffix of a tensor's name encodes its shape: l = lanes, b = batch, t = time, d = d_model, h = heads, k = d_head,
n = lanes·batch, i = heads·d_head, v = vocabulary.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from repeat_study.config.model_sizes import Shape, Style
from repeat_study.model import loss

INIT_STD = 0.02  # [R19] [Q25]
LAYER_NORM_EPSILON = 1e-5

# A function that replaces causal attention. It maps (layer, queries, keys, values) to the head outputs. All tensors have
# shape [lanes·batch, heads, time, d_head]. Probes use it to record or change attention patterns.
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
LayerAttend = Callable[[Tensor, Tensor, Tensor], Tensor]

CHUNK_TOKENS = 1 << 12  # tokens per lane in a forward pass without gradients on a CPU
CHUNK_TOKENS_CUDA = 1 << 16  # tokens of all lanes in a forward pass without gradients on a GPU


def sequences_per_pass(tokens_lbt: Tensor) -> int:
    """Number of sequences per lane in one forward pass without gradients.

    On a CPU, this number does not depend on the number of lanes, so a lane's losses are rounded as if its run were trained
    alone.
    """
    lanes, _, time = tokens_lbt.shape
    return max(1, (CHUNK_TOKENS_CUDA // lanes if tokens_lbt.is_cuda else CHUNK_TOKENS) // time)


def sinusoid(context: int, d_model: int) -> Tensor:
    """Sinusoidal position embeddings, shape [context, d_model] [V17]."""
    position = torch.arange(context, dtype=torch.float64)[:, None]
    rate = 10_000.0 ** (-torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
    return torch.stack([torch.sin(position * rate), torch.cos(position * rate)], dim=-1).flatten(1).float()


def rotation(context: int, d_head: int, base: float) -> Tensor:
    """Cosine and sine of the rotary angles, shape [2, context, d_head / 2] [S21]."""
    position = torch.arange(context, dtype=torch.float64)[:, None]
    angle = position * base ** (-torch.arange(0, d_head, 2, dtype=torch.float64) / d_head)
    return torch.stack([torch.cos(angle), torch.sin(angle)]).float()


def rotate(x_nhtk: Tensor, rotation_2tc: Tensor) -> Tensor:
    """Apply rotary position embeddings: rotate each pair of a head's dimensions (i, i + d_head/2)."""
    cosine, sine = rotation_2tc.to(x_nhtk.dtype)
    first, second = x_nhtk.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


class Linear(nn.Module):
    """A linear layer with one matrix per lane and no bias: x_lbtd @ weight_ldo."""

    def __init__(self, lanes: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(lanes, inputs, outputs))

    def forward(self, x_lbtd: Tensor) -> Tensor:
        """Map [lanes, batch, time, inputs] to [lanes, batch, time, outputs] with one batched matrix product."""
        lanes, batch, time, _ = x_lbtd.shape
        return torch.bmm(x_lbtd.reshape(lanes, batch * time, -1), self.weight).view(lanes, batch, time, -1)


class Norm(nn.Module):
    """LayerNorm, or RMSNorm in Qwen-style models, with one gain vector per lane and no bias."""

    def __init__(self, lanes: int, width: int, shape: Shape) -> None:
        super().__init__()
        self.style, self.epsilon = shape.style, shape.norm_epsilon
        self.gain = nn.Parameter(torch.ones(lanes, width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last axis of [lanes, ..., width], then scale by the lane's gain."""
        if len(self.gain) == 1:
            return self._normalize(x, self.gain[0])
        if self.style is Style.SHORTFORMER and not x.is_cuda:
            # Normalizing each lane separately gives the same rounding as training its run alone. On a GPU, this would need
            # one kernel launch per lane.
            return torch.cat([self._normalize(*lane) for lane in zip(x.split(1), self.gain, strict=True)])
        return self._normalize(x, None) * self.gain.view(len(self.gain), *[1] * (x.dim() - 2), -1)

    def _normalize(self, x: Tensor, gain_d: Tensor | None) -> Tensor:
        """Call the fused kernel, which accepts the gain of only one lane."""
        if self.style is Style.SHORTFORMER:
            return F.layer_norm(x, x.shape[-1:], gain_d, eps=LAYER_NORM_EPSILON)
        # The kernel requires the gain to have the same dtype as the input.
        return F.rms_norm(x, x.shape[-1:], gain_d if gain_d is None else gain_d.to(x.dtype), eps=self.epsilon)


def causal_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute the head outputs. All tensors have shape [lanes·batch, heads, time, d_head]."""
    return F.scaled_dot_product_attention(query, key, value, is_causal=True)


class Attention(nn.Module):
    """Causal self-attention.

    Only queries and keys receive position information, either through added sinusoids [P21] [H22] or through a rotation
    [S21] [C26].
    """

    position: Tensor

    def __init__(self, lanes: int, shape: Shape, context: int) -> None:
        super().__init__()
        self.shape, inner = shape, shape.heads * shape.d_head
        self.query_key = Linear(lanes, shape.d_model, 2 * inner)
        self.value = Linear(lanes, shape.d_model, inner)
        self.out = Linear(lanes, inner, shape.d_model)
        if shape.style is Style.QWEN:
            self.query_norm, self.key_norm = (Norm(lanes, shape.d_head, shape) for _ in range(2))
            self.register_buffer("position", rotation(context, shape.d_head, shape.rotary_base), persistent=False)
        else:
            self.register_buffer("position", sinusoid(context, shape.d_model), persistent=False)

    def queries_keys_values(self, x_lbtd: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each of shape [lanes·batch, heads, time, d_head]."""
        lanes, batch, time, _ = x_lbtd.shape
        heads, d_head = self.shape.heads, self.shape.d_head
        positioned = x_lbtd + self.position[:time] if self.shape.style is Style.SHORTFORMER else x_lbtd
        query, key = self.query_key(positioned).chunk(2, dim=-1)
        value = self.value(x_lbtd)
        query, key, value = (x.view(lanes, batch, time, heads, d_head) for x in (query, key, value))
        if self.shape.style is Style.QWEN:
            query, key = self.query_norm(query), self.key_norm(key)
        query, key, value = (x.flatten(0, 1).transpose(1, 2) for x in (query, key, value))
        if self.shape.style is Style.QWEN:
            query, key = (rotate(x, self.position[:, :time]) for x in (query, key))
        return query, key, value

    def head_outputs(self, x_lbtd: Tensor, attend: LayerAttend | None = None) -> Tensor:
        """Concatenate the head outputs, before W_O: [lanes, batch, time, d_model] to [lanes, batch, time, heads·d_head].

        Lanes are folded into the batch, so one kernel call computes the attention of all lanes.
        """
        lanes, batch, time, _ = x_lbtd.shape
        query, key, value = self.queries_keys_values(x_lbtd)
        outputs_nhtk = (attend or causal_attention)(query, key, value)
        return outputs_nhtk.transpose(1, 2).reshape(lanes, batch, time, -1)


class MLP(nn.Module):
    """Feed-forward layer with GELU, or with SwiGLU in Qwen-style models."""

    def __init__(self, lanes: int, shape: Shape) -> None:
        super().__init__()
        self.style = shape.style
        self.into = Linear(lanes, shape.d_model, shape.mlp_width * (2 if self.style is Style.QWEN else 1))
        self.out = Linear(lanes, shape.mlp_width, shape.d_model)

    def forward(self, x_lbtd: Tensor) -> Tensor:
        """Map [lanes, batch, time, d_model] to the same shape."""
        hidden = self.into(x_lbtd)
        if self.style is Style.QWEN:
            gate, hidden = hidden.chunk(2, dim=-1)
            return self.out(F.silu(gate) * hidden)
        return self.out(F.gelu(hidden))


class Block(nn.Module):
    """Attention, followed by an MLP unless the model is attention-only.

    The attention layer and the MLP each normalize their input and add their output to the residual stream.
    """

    def __init__(self, lanes: int, shape: Shape, context: int) -> None:
        super().__init__()
        self.attention_norm = Norm(lanes, shape.d_model, shape)
        self.attention = Attention(lanes, shape, context)
        self.mlp = nn.Sequential(Norm(lanes, shape.d_model, shape), MLP(lanes, shape)) if shape.mlp_width else None

    def forward(self, x_lbtd: Tensor, attend: LayerAttend | None = None) -> Tensor:
        """Map [lanes, batch, time, d_model] to the same shape."""
        return self._output(x_lbtd, self.attention.head_outputs(self.attention_norm(x_lbtd), attend))

    def after_attention(self, x_lbtd: Tensor, head_outputs_lbti: Tensor) -> Tensor:
        """The block's output, given its input and its concatenated head outputs; shape [lanes, batch, time, d_model].

        With FSDP, this method collects the block's weights and frees them again, so `forward` must not call it.
        """
        return self._output(x_lbtd, head_outputs_lbti)

    def _output(self, x_lbtd: Tensor, head_outputs_lbti: Tensor) -> Tensor:
        x_lbtd = x_lbtd + self.attention.out(head_outputs_lbti)
        return x_lbtd if self.mlp is None else x_lbtd + self.mlp(x_lbtd)


class Decoder(nn.Module):
    """One decoder-only transformer per lane."""

    def __init__(
        self,
        shape: Shape,
        vocabulary: int,
        context: int,
        seeds: Sequence[int],
        checkpoint_activations: bool = False,
    ) -> None:
        """Initialize the models.

        seeds: one seed per lane. A lane's initial weights depend only on its own seed.
        checkpoint_activations: save only each block's input for the backward pass, and recompute the rest.
        """
        super().__init__()
        lanes = len(seeds)
        self.shape, self.vocabulary, self.context = shape, vocabulary, context
        self.checkpoint_activations = checkpoint_activations
        self.compiled = False
        self.embedding = nn.Parameter(torch.empty(lanes, vocabulary, shape.d_model))
        self.blocks = nn.ModuleList(Block(lanes, shape, context) for _ in range(shape.layers))
        self.final_norm = Norm(lanes, shape.d_model, shape)
        self.unembedding = Linear(lanes, shape.d_model, vocabulary)
        self._initialize(seeds)

    def compile_parts(self, mode: str | None = None) -> None:
        """Compile the loss and every block. The blocks are compiled separately so that they can share one graph.

        mode: torch.compile's mode for the blocks; None is torch's default.
        """
        self.compiled = True
        torch.compiler.reset()  # otherwise, graphs of earlier runs would count towards torch's recompile limit
        for block in self.blocks:
            block.compile(dynamic=False, mode=mode)

    @torch.no_grad()
    def _initialize(self, seeds: Sequence[int]) -> None:
        for lane, seed in enumerate(seeds):
            generator = torch.Generator().manual_seed(seed)
            for name, parameter in self.named_parameters():
                if not name.endswith("gain"):
                    # The weights of layers that write to the residual stream are divided by sqrt(2·layers) [R19], except in
                    # Qwen-style models [Q25].
                    scaled = name.endswith("out.weight") and self.shape.style is Style.SHORTFORMER
                    std = INIT_STD / (2 * self.shape.layers) ** 0.5 if scaled else INIT_STD
                    parameter[lane].normal_(0, std, generator=generator)

    def embedded(self, tokens_lbt: Tensor) -> Tensor:
        """The token embeddings, shape [lanes, batch, time, d_model]."""
        offset_l11 = torch.arange(len(tokens_lbt), device=tokens_lbt.device)[:, None, None] * self.vocabulary
        return F.embedding(tokens_lbt + offset_l11, self.embedding.flatten(0, 1))

    def residual(self, tokens_lbt: Tensor, attend: Attend | None = None) -> Tensor:
        """The input to the unembedding: the residual stream after the final norm, shape [lanes, batch, time, d_model]."""
        return self.residual_from(0, self.embedded(tokens_lbt), attend)

    def residual_from(self, first: int, x_lbtd: Tensor, attend: Attend | None = None) -> Tensor:
        """The residual stream after the final norm, computed from the input to block `first`."""
        for layer, block in enumerate(self.blocks[first:], first):
            if attend:
                x_lbtd = block(x_lbtd, partial(attend, layer))
            elif self.checkpoint_activations and torch.is_grad_enabled():
                # Blocks use no random numbers, so there is no need to restore the state of their generators.
                x_lbtd = checkpoint(block, x_lbtd, use_reentrant=False, preserve_rng_state=False)
            else:
                x_lbtd = block(x_lbtd)
        normalized: Tensor = self.final_norm(x_lbtd)
        return normalized

    def forward(self, tokens_lbt: Tensor, targets_lbt: Tensor | None = None) -> Tensor:
        """Next-token logits, shape [lanes, batch, time, vocabulary], for int64 tokens of shape [lanes, batch, time].

        If targets are given, returns each lane's mean loss in nats instead, shape [lanes]. The logits are then computed in
        chunks to save memory.
        """
        x_lbtd = self.residual_from(0, self.embedded(tokens_lbt))  # as in `Block`, not a method that FSDP wraps
        if targets_lbt is None:
            logits_lbtv: Tensor = self.unembedding(x_lbtd)
            return logits_lbtv
        return loss.mean_loss_per_lane(x_lbtd, self.unembedding.weight, targets_lbt, self.compiled)

    @torch.no_grad()
    def token_losses(self, sequences_lbs: Tensor) -> Tensor:
        """Loss in nats of every token except the first, shape [lanes, batch, time].

        sequences_lbs: int64 tokens, shape [lanes, batch, time + 1].
        """
        chunks = sequences_lbs.split(sequences_per_pass(sequences_lbs), dim=1)
        losses = [
            loss.token_losses(self.residual(chunk[..., :-1]), self.unembedding.weight, chunk[..., 1:])
            for chunk in chunks
        ]
        return torch.cat(losses, dim=1)
