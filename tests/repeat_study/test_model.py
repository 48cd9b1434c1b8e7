import math

import numpy as np
import pytest
import torch

from repeat_study.ladder import shape_of
from repeat_study.model import Attention, Decoder, sinusoid, token_losses

VOCABULARY, CONTEXT = 50, 12


def decoder(seeds: list[int], name: str = "2x32") -> Decoder:
    model = Decoder(shape_of(name), VOCABULARY, CONTEXT, seeds)
    generator = torch.Generator().manual_seed(99)
    with torch.no_grad():  # larger weights than at the start: attention far from uniform, gains far from one
        for name_, parameter in model.named_parameters():
            parameter.mul_(torch.rand(parameter.shape[1:], generator=generator) + 0.5 if "gain" in name_ else 8.0)
    return model


def reference_logits(model: Decoder, tokens: list[int]) -> np.ndarray:
    """The decoder of one lane and one sequence written out in float64 numpy, position by position, head by head."""
    weights = {name: parameter.detach().double().numpy()[0] for name, parameter in model.named_parameters()}
    shape = model.shape
    d_head = shape.d_model // shape.heads
    rate = [10000 ** (-2 * (column // 2) / shape.d_model) for column in range(shape.d_model)]
    position = np.array(
        [[(math.cos if c % 2 else math.sin)(t * rate[c]) for c in range(shape.d_model)] for t in range(len(tokens))]
    )

    def norm(x: np.ndarray, gain: np.ndarray) -> np.ndarray:
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * gain

    x = weights["embedding"][tokens]
    for layer in range(shape.layers):
        block = {name.split(".", 2)[2]: w for name, w in weights.items() if name.startswith(f"blocks.{layer}.")}
        h = norm(x, block["attention_norm.gain"])
        w_query, w_key, w_value = np.split(block["attention.query_key_value.weight"], 3, axis=1)
        query, key, value = (h + position) @ w_query, (h + position) @ w_key, h @ w_value
        mixed = np.zeros_like(x)
        for head in range(shape.heads):
            part = slice(head * d_head, (head + 1) * d_head)
            for t in range(len(tokens)):
                scores = key[: t + 1, part] @ query[t, part] / math.sqrt(d_head)
                pattern = np.exp(scores - scores.max())
                mixed[t, part] = pattern / pattern.sum() @ value[: t + 1, part]
        x = x + mixed @ block["attention.out.weight"]
        h = norm(x, block["mlp_norm.gain"]) @ block["mlp_in.weight"]
        gelu = 0.5 * h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
        x = x + gelu @ block["mlp_out.weight"]
    return norm(x, weights["final_norm.gain"]) @ weights["unembedding.weight"]


def test_logits_and_loss_equal_an_independent_float64_reference() -> None:
    model = decoder([0])
    tokens = torch.randint(0, VOCABULARY, (1, 3, CONTEXT + 1), generator=torch.Generator().manual_seed(1))
    logits = model(tokens[..., :-1])[0].detach().numpy()
    losses = token_losses(model(tokens[..., :-1]), tokens[..., 1:])[0].detach().numpy()
    for sequence in range(3):
        expected = reference_logits(model, tokens[0, sequence, :-1].tolist())
        assert np.abs(expected).max() > 1, "a reference of zeros would test nothing"
        assert np.abs(logits[sequence] - expected).max() < 2e-4
        log_p = expected - np.log(np.exp(expected).sum(-1, keepdims=True))
        target = tokens[0, sequence, 1:].numpy()
        assert abs(losses[sequence].mean() + log_p[np.arange(CONTEXT), target].mean()) < 1e-5


def test_no_position_sees_what_comes_after_it() -> None:
    model = decoder([0])
    tokens = torch.randint(0, VOCABULARY, (1, 1, CONTEXT))
    changed = tokens.clone()
    changed[..., 7:] = (changed[..., 7:] + 1) % VOCABULARY
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :, :7], after[:, :, :7])
    assert not torch.allclose(before[:, :, 7:], after[:, :, 7:])


def test_positions_reach_queries_and_keys_but_not_values() -> None:
    attention = Attention(1, shape_of("2x32"), CONTEXT)
    torch.nn.init.normal_(attention.query_key_value.weight, std=0.2)
    same = torch.randn(1, 1, 1, 32).expand(1, 1, CONTEXT, 32)  # the same vector at every position
    query, key, value = attention.queries_keys_values(same)
    assert torch.allclose(value, value[:, :, :1].expand_as(value), atol=1e-6)
    for moved in (query, key):
        assert (moved[:, :, 1:] - moved[:, :, :1]).abs().amax(dim=-1).min() > 1e-2


def test_sinusoid_is_the_published_one() -> None:
    table = sinusoid(20, 8)
    for t in (0, 3, 19):
        for column in range(8):
            angle = t / 10000 ** (2 * (column // 2) / 8)
            assert table[t, column] == pytest.approx(math.cos(angle) if column % 2 else math.sin(angle), abs=1e-6)


def test_lanes_are_the_models_of_their_seeds_and_never_meet() -> None:
    bundle, alone = decoder([3, 5]), [decoder([3]), decoder([5])]
    tokens = torch.randint(0, VOCABULARY, (2, 4, CONTEXT + 1))
    losses = token_losses(bundle(tokens[..., :-1]), tokens[..., 1:]).mean(dim=(1, 2))
    losses.sum().backward()
    for lane, model in enumerate(alone):
        loss = token_losses(model(tokens[lane : lane + 1, :, :-1]), tokens[lane : lane + 1, :, 1:]).mean()
        loss.backward()
        assert torch.allclose(losses[lane], loss, atol=1e-6)
        for ours, theirs in zip(bundle.parameters(), model.parameters(), strict=True):
            assert torch.equal(ours[lane], theirs[0])
            assert ours.grad is not None and theirs.grad is not None
            assert torch.allclose(ours.grad[lane], theirs.grad[0], atol=1e-6)


def test_an_untrained_model_knows_nothing() -> None:
    model = Decoder(shape_of("2x32"), VOCABULARY, CONTEXT, [0])
    tokens = torch.randint(0, VOCABULARY, (1, 64, CONTEXT + 1))
    loss = token_losses(model(tokens[..., :-1]), tokens[..., 1:]).mean()
    assert float(loss.detach()) == pytest.approx(math.log(VOCABULARY), abs=0.02)
