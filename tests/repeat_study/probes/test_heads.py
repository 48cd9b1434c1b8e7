import numpy as np
import pytest
import torch

from data_prep.token_store import TokenStore
from repeat_study.config.model_sizes import shape_of
from repeat_study.model.decoder import Decoder
from repeat_study.probes.circuits import (
    direct_contributions,
    eigenvalue_copying,
    final_norm_scale,
    logit_directions,
    ov_circuit,
)
from repeat_study.probes.heads import (
    COPIES,
    NULL_SEQUENCES,
    SEQUENCES,
    HeadProbe,
    HeadScores,
    attention_patterns,
    head_probe,
)
from tests.repeat_study.built import LENGTH, TOKENS, induction_circuit, random_copies


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def built() -> HeadScores:
    return random_copies(generator())(induction_circuit())


def scores_of(model: Decoder) -> HeadScores:
    return random_copies(generator())(model)


def test_copies_consist_of_tokens_of_medium_frequency(store: TokenStore) -> None:
    probe = head_probe(store, 128)
    assert probe and probe.sequences.shape == (SEQUENCES + NULL_SEQUENCES, 1 + 25 * COPIES) and probe.length == 25
    copied, fresh = probe.sequences[:, 1:].view(-1, COPIES, 25).split([SEQUENCES, NULL_SEQUENCES])
    assert (copied == copied[:, :1]).all()
    assert all(len(set(copy.tolist())) == 25 for copy in copied.flatten(0, 1)), "sampled without replacement"
    places = [sorted(fresh[:, copy].flatten().tolist()) for copy in range(COPIES)]
    assert all(place == places[0] for place in places), "every copy of the null has the same tokens"
    counts = np.bincount(store.train, minlength=store.vocabulary)
    seen = np.sort(counts[counts > 0])
    drawn = counts[np.unique(torch.cat([copied, fresh]).numpy())]
    assert seen[len(seen) // 8] < drawn.min() and drawn.max() < seen[-len(seen) // 8]


def test_no_token_occurs_twice_in_the_null_if_the_vocabulary_is_large_enough(store: TokenStore) -> None:
    probe = head_probe(store, 64)  # 4 copies of 16 tokens
    assert probe
    assert all(len(set(sequence.tolist())) == 65 for sequence in probe.sequences[SEQUENCES:])
    assert len(probe.sequences) == SEQUENCES + NULL_SEQUENCES


@pytest.mark.parametrize(("context", "length"), [(1000, 25), (100, 25), (32, 8), (8, 2), (7, None)])
def test_copies_are_shortened_to_fit_the_context(store: TokenStore, context: int, length: int | None) -> None:
    probe = head_probe(store, context)
    assert (probe.length if probe else None) == length
    assert probe is None or probe.sequences.shape[1] <= context + 1


def test_the_target_follows_every_earlier_occurrence(store: TokenStore) -> None:
    probe = head_probe(store, 32)
    assert probe
    sequence, target = probe.sequences[0].tolist(), probe.target()
    assert len(target) == len(sequence) - 1, "the last token of a sequence is not a query"
    for query in range(len(target)):
        for key in range(len(target)):
            follows = 0 < key <= query and sequence[key - 1] == sequence[query]
            assert target[query, key] == follows, (query, key)


def test_only_the_hand_built_induction_head_is_found(built: HeadScores) -> None:
    matching = built.prefix_matching[0].mean(dim=-1)
    assert matching[1, 0] > 0.95 and matching.flatten()[[0, 1, 3]].max() < 0.05
    assert built.prefix_matching_null[0].mean(dim=-1).max() < 0.05, "the null has nothing to match"
    copying = built.copying[0].mean(dim=-1)
    assert copying[1, 0] > 0.95 and copying.flatten()[[0, 1, 3]].max() < 0 and built.copying_null.max() < 0
    assert built.ov_copying[0, 1, 0] > 0.95 and built.ov_copying[0].flatten()[[0, 1, 3]].max() < 0.1
    pushed = built.attribution[0].mean(dim=-1)
    assert pushed[1, 0] > 10 and pushed.flatten()[[0, 1, 3]].abs().max() < 0.1
    assert built.attribution_null[0].mean(dim=-1).abs().max() < 1


def test_only_the_hand_built_previous_token_head_is_found(built: HeadScores) -> None:
    previous = built.previous_token[0].mean(dim=-1)
    assert previous[0, 0] > 0.95 and previous.flatten()[1:].max() < 0.06
    assert built.previous_token_null[0].mean(dim=-1).max() < 0.06, "it attends exactly one token back"


def test_the_hand_built_circuit_copies_random_tokens(built: HeadScores) -> None:
    row = built.random_copying().row("random_copying")
    # The first token of the second copy is unpredictable, because nothing has followed the last token of the first copy before.
    assert row["random_copying_loss"] < 0.15 and row["random_copying_gain"] > 9
    assert row["random_copying_loss_per_copy"][2] < 1e-3
    assert row["random_copying_gain_null"] < 0 and row["random_copying_gain_null_ci"] > 0


class DistanceHead(Decoder):
    """Attends a fixed distance back, regardless of the token there."""

    def residual(self, tokens_lbt, mix=None):  # type: ignore[no-untyped-def]
        time, sequences = tokens_lbt.shape[-1], tokens_lbt.shape[1]
        back = torch.eye(time).roll(1 - LENGTH, dims=1).tril().expand(sequences, 1, time, time)
        key = torch.eye(time).expand(sequences, 1, time, time)
        values = torch.zeros(sequences, 1, time, self.shape.d_head)
        mix(0, 1e4 * back, key, values)
        return self.final_norm(self.embedded(tokens_lbt))


def test_a_head_that_attends_by_distance_scores_the_same_on_the_null() -> None:
    scores = scores_of(DistanceHead(shape_of("1x16"), TOKENS, 128, [0]))
    assert scores.prefix_matching.mean() == scores.prefix_matching_null.mean() == pytest.approx(1.0)


@pytest.mark.parametrize("model", ["2x64", "2x64-attn", "2x64-qwen"])
def test_an_untrained_model_scores_the_same_as_the_null(model: str) -> None:
    scores = scores_of(Decoder(shape_of(model), TOKENS, 128, [0, 1]))
    target = random_copies(generator()).target()
    uniform = (target.sum(dim=1) / torch.arange(1, len(target) + 1))[target.any(dim=1)].mean()
    assert scores.prefix_matching.shape == (2, 2, 2, SEQUENCES)
    # With normalized queries and keys, even untrained attention is slightly uneven, and differently for every sequence.
    of_heads = scores.prefix_matching.mean(dim=-1), scores.prefix_matching_null.mean(dim=-1)
    assert all(torch.allclose(scores_yh, uniform, atol=5e-3) for scores_yh in of_heads)
    before = scores.previous_token.mean(dim=-1) - scores.previous_token_null.mean(dim=-1)
    assert before.abs().max() < 0.01, "uniform attention prefers the previous token only slightly"
    assert (scores.copying.mean(dim=-1) - (4 / LENGTH - 1)).abs().max() < 0.15, "one of 25 equal shares"
    assert scores.attribution.mean(dim=-1).abs().max() < 0.01 and scores.ov_copying.abs().max() < 0.6
    gain = scores.random_copying().row("g")["g_gain"]
    assert abs(gain) < 0.05


@pytest.mark.parametrize("model", ["1x64-attn", "2x64-attn", "3x32-attn"])
def test_attention_only_logits_are_the_sum_of_their_paths(model: str) -> None:
    torch.manual_seed(0)
    decoder = Decoder(shape_of(model), 23, 16, [0, 1])
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, 0.3 if parameter.dim() == 2 else 0.0, 0.3)
    tokens = torch.randint(23, (2, 3, 16))
    mixed_by_layer: list[torch.Tensor] = []

    def keep(layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        mixed_by_layer.append(attention_patterns(query, key) @ value)
        return mixed_by_layer[-1]

    streams: list[torch.Tensor] = []
    decoder.final_norm.register_forward_pre_hook(lambda norm, arguments: streams.append(arguments[0]))
    with torch.no_grad():
        logits = decoder.unembedding(decoder.residual(tokens, keep))
        scale = final_norm_scale(decoder, streams[0])
        for token in range(23):
            read = logit_directions(decoder)[:, None, None, :, token].expand(-1, 3, 16, -1)
            total = (decoder.embedded(tokens) * read).sum(dim=-1)
            for block, mixed in zip(decoder.blocks, mixed_by_layer, strict=True):
                total = total + direct_contributions(block.attention, mixed, read).sum(dim=2)
            assert torch.allclose(total / scale, logits[..., token], atol=1e-5)


@torch.no_grad()
def test_the_reduced_ov_circuit_has_the_eigenvalues_of_the_full_circuit() -> None:
    decoder = Decoder(shape_of("2x32"), 40, 16, [3])
    for name, parameter in decoder.named_parameters():
        if name.endswith("gain"):
            parameter.normal_(1.0, 0.5, generator=generator())
    for block in decoder.blocks:
        small = ov_circuit(decoder, block)[0]
        normalized = torch.nn.functional.layer_norm(decoder.embedding[0], (32,), eps=1e12) * 1e6  # without its scale
        values = normalized * block.attention_norm.gain[0]
        for head in range(decoder.shape.heads):
            inside = slice(16 * head, 16 * head + 16)
            value, out = block.attention.value.weight[0][:, inside], block.attention.out.weight[0][inside]
            over_vocabulary = (values @ value @ out @ logit_directions(decoder)[0]).double()
            eigenvalues = torch.linalg.eigvals(over_vocabulary)
            expected = eigenvalues.real.sum() / eigenvalues.abs().sum()
            assert eigenvalue_copying(small[head]) == pytest.approx(float(expected), abs=1e-3)


def test_patterns_match_the_fused_kernel() -> None:
    query, key, value = torch.randn(3, 2, 4, 9, 8, generator=generator())
    fused = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    assert torch.allclose(attention_patterns(query, key) @ value, fused, atol=1e-5)


@pytest.mark.parametrize("model", ["2x32", "2x32-attn", "2x32-qwen"])
def test_recording_attention_does_not_change_losses(model: str) -> None:
    decoder, probe = Decoder(shape_of(model), TOKENS, 128, [0]), random_copies(generator())
    losses = decoder.token_losses(probe.sequences[None])[0]
    assert torch.allclose(probe(decoder).random_losses[0].flatten(1), losses, atol=1e-5)


def test_lanes_are_scored_independently() -> None:
    """Each lane of a bundle has the same scores as the same model alone."""
    both = scores_of(Decoder(shape_of("2x32"), TOKENS, 128, [4, 5]))
    alone = scores_of(Decoder(shape_of("2x32"), TOKENS, 128, [5]))
    for name in ("prefix_matching", "copying", "attribution", "ov_copying", "random_losses"):
        assert torch.allclose(getattr(both, name)[1], getattr(alone, name)[0], atol=1e-5), name
    assert not torch.allclose(both.copying[0], both.copying[1])


def test_all_heads_are_scored_in_one_forward_pass() -> None:
    """The number of forward passes does not grow with the number of heads."""
    for model in ("2x32", "2x128"):
        decoder, passes = Decoder(shape_of(model), TOKENS, 128, [0]), []
        decoder.final_norm.register_forward_hook(lambda *_, passes=passes: passes.append(1))
        probe: HeadProbe = random_copies(generator())
        probe(decoder)
        assert len(passes) == 1
