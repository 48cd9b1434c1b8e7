import numpy as np
import pytest
import torch

from data_prep.token_store import TokenStore
from repeat_study.ladder import shape_of
from repeat_study.model import Decoder
from repeat_study.probes.prefix_matching import COPIES, SEQUENCES, attention_patterns, prefix_matching_probe


def test_copies_are_of_tokens_that_are_neither_common_nor_rare(store: TokenStore) -> None:
    probe = prefix_matching_probe(store, 128)
    assert probe and probe.sequences.shape == (2 * SEQUENCES, 1 + 25 * COPIES) and probe.length == 25
    copies = probe.sequences[:, 1:].view(2, SEQUENCES, COPIES, 25)
    assert (copies[0] == copies[0, :, :1]).all() and not (copies[1] == copies[1, :, :1]).all(-1)[:, 1:].any()
    assert all(len(set(copy.tolist())) == 25 for copy in copies.flatten(0, 2)), "drawn without replacement"
    counts = np.bincount(store.train, minlength=store.vocabulary)
    seen = np.sort(counts[counts > 0])
    drawn = counts[np.unique(copies.numpy())]
    assert seen[len(seen) // 8] < drawn.min() and drawn.max() < seen[-len(seen) // 8]


@pytest.mark.parametrize(("context", "length"), [(1000, 25), (101, 25), (32, 7), (9, 2), (8, None)])
def test_copies_are_shortened_to_fit_the_context(store: TokenStore, context: int, length: int | None) -> None:
    probe = prefix_matching_probe(store, context)
    assert (probe.length if probe else None) == length
    assert probe is None or probe.sequences.shape[1] <= context


def test_the_target_is_right_after_every_earlier_occurrence(store: TokenStore) -> None:
    probe = prefix_matching_probe(store, 32)
    assert probe
    sequence, target = probe.sequences[0].tolist(), probe.target()
    for query in range(len(sequence)):
        for key in range(len(sequence)):
            follows = 0 < key <= query and sequence[key - 1] == sequence[query]
            assert target[query, key] == follows, (query, key)


class Attending(Decoder):
    """Hands a probe queries and keys whose pattern is known."""

    def pattern_of(self, tokens: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def residual(self, tokens_lbt, mix=None):  # type: ignore[no-untyped-def]
        time = tokens_lbt.shape[-1]
        wanted = self.pattern_of(tokens_lbt[0])  # [sequences, time, time], each row a choice
        key = torch.eye(time).expand(len(wanted), 1, time, time)
        mix(0, 1e4 * wanted[:, None], key, torch.zeros_like(key))


class Induction(Attending):
    def pattern_of(self, tokens: torch.Tensor) -> torch.Tensor:
        after_same = torch.nn.functional.pad(tokens[:, :, None] == tokens[:, None, :], (1, -1))
        return after_same.tril().float()


class Backwards(Attending):
    """Looks a fixed distance back, whatever stands there."""

    def pattern_of(self, tokens: torch.Tensor) -> torch.Tensor:
        time = tokens.shape[-1]
        return torch.eye(time).roll(-24, dims=1).tril().expand(len(tokens), time, time)


def test_a_perfect_induction_head_scores_one_and_nothing_on_the_null(store: TokenStore) -> None:
    probe = prefix_matching_probe(store, 128)
    assert probe
    numbers = probe(Induction(shape_of("1x16"), store.vocabulary, 128, [0]))
    assert numbers["prefix_matching"] == pytest.approx(1.0) and numbers["prefix_matching_null"] < 0.2


def test_a_head_that_goes_by_distance_scores_as_much_on_the_null(store: TokenStore) -> None:
    probe = prefix_matching_probe(store, 128)
    assert probe
    numbers = probe(Backwards(shape_of("1x16"), store.vocabulary, 128, [0]))
    assert numbers["prefix_matching"] == numbers["prefix_matching_null"] == pytest.approx(1.0)


def test_an_untrained_model_scores_what_uniform_attention_does(store: TokenStore) -> None:
    probe = prefix_matching_probe(store, 128)
    assert probe
    scores = probe.scores(Decoder(shape_of("2x64"), store.vocabulary, 128, [0, 1]))
    assert scores.shape == (2, 2, 2, 2)
    target = probe.target()
    queries = target.any(dim=1)
    uniform = (target.sum(dim=1) / torch.arange(1, len(target) + 1))[queries].mean()
    assert torch.allclose(scores, uniform.expand_as(scores), atol=5e-3)


def test_patterns_are_those_of_the_fused_kernel() -> None:
    query, key, value = torch.randn(3, 2, 4, 9, 8, generator=torch.Generator().manual_seed(0))
    fused = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    assert torch.allclose(attention_patterns(query, key) @ value, fused, atol=1e-5)
