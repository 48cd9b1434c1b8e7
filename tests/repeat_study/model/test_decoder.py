import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from repeat_study.config.model_sizes import Shape, Style, shape_of
from repeat_study.model import loss
from repeat_study.model.decoder import Attention, Block, Decoder, sinusoid
from repeat_study.model.loss import mean_loss_per_lane, token_losses

VOCABULARY, CONTEXT = 50, 12


def decoder(seeds: list[int], name: str = "2x32") -> Decoder:
    return decoder_of(shape_of(name), seeds)


def decoder_of(shape: Shape, seeds: list[int]) -> Decoder:
    model = Decoder(shape, VOCABULARY, CONTEXT, seeds)
    generator = torch.Generator().manual_seed(99)
    with torch.no_grad():  # larger weights than at initialization, so attention is not uniform and gains are not one
        for name_, parameter in model.named_parameters():
            parameter.mul_(torch.rand(parameter.shape[1:], generator=generator) + 0.5 if "gain" in name_ else 8.0)
    return model


def reference_logits(model: Decoder, tokens: list[int]) -> np.ndarray:
    """The logits of one lane for one sequence, computed position by position and head by head in float64 numpy."""
    weights = {name: parameter.detach().double().numpy()[0] for name, parameter in model.named_parameters()}
    shape, qwen = model.shape, model.shape.style is Style.QWEN
    steps = np.arange(len(tokens))

    def norm(x: np.ndarray, gain: np.ndarray) -> np.ndarray:
        if qwen:
            return x / np.sqrt((x**2).mean(-1, keepdims=True) + shape.norm_epsilon) * gain
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * gain

    def positioned(head: np.ndarray) -> np.ndarray:
        """Rotary positions as products of complex numbers; dimension i is paired with i + d_head/2."""
        half = shape.d_head // 2
        turned = (head[:, :half] + 1j * head[:, half:]) * np.exp(
            1j * np.outer(steps, shape.rotary_base ** (-np.arange(half) / half))
        )
        return np.concatenate([turned.real, turned.imag], axis=1)

    rate = [10000 ** (-2 * (column // 2) / shape.d_model) for column in range(shape.d_model)]
    sinusoids = np.array(
        [[(math.cos if c % 2 else math.sin)(t * rate[c]) for c in range(shape.d_model)] for t in steps]
    )
    x = weights["embedding"][tokens]
    for layer in range(shape.layers):
        block = {name.split(".", 2)[2]: w for name, w in weights.items() if name.startswith(f"blocks.{layer}.")}
        h = norm(x, block["attention_norm.gain"])
        w_query, w_key = np.split(block["attention.query_key.weight"], 2, axis=1)
        source = h if qwen else h + sinusoids
        query, key, value = source @ w_query, source @ w_key, h @ block["attention.value.weight"]
        outputs = np.zeros_like(value)
        for head in range(shape.heads):
            columns = slice(head * shape.d_head, (head + 1) * shape.d_head)
            q, k = query[:, columns], key[:, columns]
            if qwen:
                q = positioned(norm(q, block["attention.query_norm.gain"]))
                k = positioned(norm(k, block["attention.key_norm.gain"]))
            for t in steps:
                scores = k[: t + 1] @ q[t] / math.sqrt(shape.d_head)
                pattern = np.exp(scores - scores.max())
                outputs[t, columns] = pattern / pattern.sum() @ value[: t + 1, columns]
        x = x + outputs @ block["attention.out.weight"]
        if shape.mlp_width:
            h = norm(x, block["mlp.0.gain"]) @ block["mlp.1.into.weight"]
            if qwen:
                gate, h = np.split(h, 2, axis=1)
                h = gate / (1 + np.exp(-gate)) * h
            else:
                h = h * 0.5 * (1 + np.vectorize(math.erf)(h / math.sqrt(2)))
            x = x + h @ block["mlp.1.out.weight"]
    return norm(x, weights["final_norm.gain"]) @ weights["unembedding.weight"]


@pytest.mark.parametrize("name", ["2x32", "2x32-attn", "1L-attn", "2x64-qwen", "34M"])
def test_logits_and_losses_equal_an_independent_float64_reference(name: str) -> None:
    assert_equals_reference(decoder([0], name))


def test_qwen_style_models_may_choose_their_rotary_base_and_norm_epsilon() -> None:
    assert_equals_reference(decoder_of(replace(shape_of("2x64-qwen"), rotary_base=50.0, norm_epsilon=0.3), [0]))


def assert_equals_reference(model: Decoder) -> None:
    tokens = torch.randint(0, VOCABULARY, (1, 3, CONTEXT + 1), generator=torch.Generator().manual_seed(1))
    logits = model(tokens[..., :-1])[0].detach().numpy()
    mean = float(model(tokens[..., :-1], tokens[..., 1:]).detach())
    losses = model.token_losses(tokens)[0].numpy()
    references = []
    for sequence in range(3):
        expected = reference_logits(model, tokens[0, sequence, :-1].tolist())
        assert np.abs(expected).max() > 1, "a reference of zeros would test nothing"
        assert np.abs(logits[sequence] - expected).max() < 5e-5 * np.abs(expected).max()
        log_p = expected - np.log(np.exp(expected).sum(-1, keepdims=True))
        references.append(-log_p[np.arange(CONTEXT), tokens[0, sequence, 1:].numpy()])
        assert abs(losses[sequence].mean() - references[-1].mean()) < 1e-5
    assert abs(mean - np.mean(references)) < 1e-5


@pytest.mark.parametrize("rows", [1, 5, 36])
def test_the_chunked_loss_has_the_gradients_of_plain_cross_entropy(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "_chunks", lambda x, w: [slice(at, at + rows) for at in range(0, x.shape[1], rows)])
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, CONTEXT, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 8, VOCABULARY, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, VOCABULARY, (2, 3, CONTEXT), generator=generator)
    scale = torch.tensor([2.0, 3.0])  # different for the two lanes, so mixing up their gradients fails the test
    plain = torch.nn.functional.cross_entropy(
        torch.einsum("lbtd,ldv->lbtv", x, weight).flatten(0, 2), targets.flatten(), reduction="none"
    ).view_as(targets)
    expected_gradients = torch.autograd.grad((plain.mean(dim=(1, 2)) * scale).sum(), (x, weight))
    chunked = mean_loss_per_lane(x, weight, targets)
    gradients = torch.autograd.grad((chunked * scale).sum(), (x, weight))
    assert torch.allclose(chunked.double(), plain.mean(dim=(1, 2)), atol=1e-6)
    assert torch.allclose(token_losses(x, weight, targets).double(), plain, atol=1e-6)
    for gradient, expected in zip(gradients, expected_gradients, strict=True):
        assert torch.allclose(gradient, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["2x32", "2x32-attn", "2x64-qwen"])
def test_checkpointing_activations_changes_no_gradient(name: str) -> None:
    tokens = torch.randint(0, VOCABULARY, (1, 2, CONTEXT + 1), generator=torch.Generator().manual_seed(1))
    gradients = []
    for checkpointed in (False, True):
        model = Decoder(shape_of(name), VOCABULARY, CONTEXT, [0], checkpointed)
        model(tokens[..., :-1], tokens[..., 1:]).sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(kept, recomputed) for kept, recomputed in zip(*gradients, strict=True))


@pytest.mark.parametrize("name", ["2x32", "2x64-qwen"])
def test_explicit_attention_patterns_give_the_residual_of_the_fused_kernel(name: str) -> None:
    model = decoder([0, 1], name)
    tokens = torch.randint(0, VOCABULARY, (2, 3, CONTEXT), generator=torch.Generator().manual_seed(1))
    layers = []

    def explicit(layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        layers.append(layer)
        scores = query @ key.transpose(-1, -2) / model.shape.d_head**0.5
        later = torch.ones(CONTEXT, CONTEXT, dtype=torch.bool).triu(1)
        return scores.masked_fill(later, -torch.inf).softmax(dim=-1) @ value

    assert torch.allclose(model.residual(tokens, explicit), model.residual(tokens), atol=1e-4)
    assert layers == [0, 1]


def test_no_position_depends_on_later_tokens() -> None:
    model = decoder([0])
    tokens = torch.randint(0, VOCABULARY, (1, 1, CONTEXT))
    changed = tokens.clone()
    changed[..., 7:] = (changed[..., 7:] + 1) % VOCABULARY
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :, :7], after[:, :, :7])
    assert not torch.allclose(before[:, :, 7:], after[:, :, 7:])


def test_positions_reach_queries_and_keys_but_not_values() -> None:
    attention = Attention(1, shape_of("2x32"), CONTEXT)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    same = torch.randn(1, 1, 1, 32).expand(1, 1, CONTEXT, 32)  # the same vector at every position
    query, key, value = attention.queries_keys_values(same)
    assert torch.allclose(value, value[:, :, :1].expand_as(value), atol=1e-6)
    for positioned in (query, key):
        assert (positioned[:, :, 1:] - positioned[:, :, :1]).abs().amax(dim=-1).min() > 1e-2


def test_sinusoid_equals_the_published_formula() -> None:
    table = sinusoid(20, 8)
    for t in (0, 3, 19):
        for column in range(8):
            angle = t / 10000 ** (2 * (column // 2) / 8)
            assert table[t, column] == pytest.approx(math.cos(angle) if column % 2 else math.sin(angle), abs=1e-6)


@pytest.mark.parametrize("name", ["2x32", "2x32-attn", "2x64-qwen"])
def test_a_lane_equals_the_single_model_of_its_seed(name: str) -> None:
    bundle, alone = decoder([3, 5], name), [decoder([3], name), decoder([5], name)]
    tokens = torch.randint(0, VOCABULARY, (2, 4, CONTEXT + 1))
    losses = bundle(tokens[..., :-1], tokens[..., 1:])
    losses.sum().backward()
    for lane, model in enumerate(alone):
        lane_tokens = tokens[lane : lane + 1]
        alone_loss = model(lane_tokens[..., :-1], lane_tokens[..., 1:])
        alone_loss.sum().backward()
        assert torch.allclose(losses[lane], alone_loss[0], atol=1e-6)
        for ours, theirs in zip(bundle.parameters(), model.parameters(), strict=True):
            assert torch.equal(ours[lane], theirs[0])
            assert ours.grad is not None and theirs.grad is not None
            assert torch.allclose(ours.grad[lane], theirs.grad[0], atol=1e-6)


def test_an_untrained_model_has_the_loss_of_uniform_guessing() -> None:
    model = Decoder(shape_of("2x32"), VOCABULARY, CONTEXT, [0])
    tokens = torch.randint(0, VOCABULARY, (1, 64, CONTEXT + 1))
    assert float(model.token_losses(tokens).mean()) == pytest.approx(math.log(VOCABULARY), abs=0.02)


def test_forward_calls_no_method_that_collects_weights_with_fsdp(monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch 2.11, such a method would free the weights before the backward pass."""

    def collecting(*arguments: object) -> None:
        raise AssertionError("called by forward")

    monkeypatch.setattr(Block, "after_attention", collecting)
    monkeypatch.setattr(Decoder, "residual", collecting)
    model = Decoder(shape_of("2x16"), 17, 8, [0])
    tokens = torch.zeros(1, 2, 9, dtype=torch.int64)
    assert model(tokens[..., :-1], tokens[..., 1:]).isfinite().all()
