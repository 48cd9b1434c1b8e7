import pytest
import torch

from repeat_study.config.model_sizes import shape_of
from repeat_study.model import decoder as model_module
from repeat_study.model.decoder import Decoder
from repeat_study.probes.ablation import ablated_losses
from repeat_study.probes.copying import CopyingProbe
from repeat_study.probes.head_table import HeadTable, head_table
from repeat_study.probes.heads import COPIES, NULL_SEQUENCES, SEQUENCES, HeadProbe, attention_patterns
from repeat_study.probes.in_context import in_context_scores
from tests.repeat_study.built import LENGTH, induction_circuit, random_copies

VOCABULARY = 50


def one_at_a_time(model: Decoder, sequences: torch.Tensor, layer: int, head: int) -> torch.Tensor:
    """The definition of ablation: a first pass records the patterns, and a second pass sets one head's output to zero."""
    frozen: dict[int, torch.Tensor] = {}

    def first(at: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        frozen[at] = attention_patterns(query, key)
        return frozen[at] @ value

    def second(at: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        mixed = frozen[at] @ value
        if at == layer:
            mixed[:, head] = 0
        return mixed

    with torch.no_grad():
        model.residual(sequences[..., :-1], first)
        logits = model.unembedding(model.residual(sequences[..., :-1], second))
        targets = sequences[..., 1:]
        return torch.nn.functional.cross_entropy(logits.movedim(-1, 1), targets, reduction="none")


@pytest.mark.parametrize("model", ["2x64", "3x32-attn", "2x64-qwen"])
@pytest.mark.parametrize("chunk", [1 << 12, 1])
def test_batched_ablations_equal_ablating_one_head_at_a_time(
    model: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_module, "CHUNK_TOKENS", chunk)
    torch.manual_seed(0)
    decoder = Decoder(shape_of(model), VOCABULARY, 24, [0, 1])
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, float(parameter.dim() == 2), 0.1)
    sequences, positions = torch.randint(VOCABULARY, (3, 20)), torch.tensor([2, 5, 18])
    intact, ablated = ablated_losses(decoder, sequences, positions)
    layers, heads = decoder.shape.layers, decoder.shape.heads
    assert intact.shape == (2, 3, 3) and ablated.shape == (2, layers, heads, 3, 3)
    assert torch.allclose(intact, decoder.token_losses(sequences.expand(2, -1, -1))[..., positions], atol=1e-5)
    for layer in range(layers):
        for head in range(heads):
            expected = one_at_a_time(decoder, sequences.expand(2, -1, -1), layer, head)[..., positions]
            assert torch.allclose(ablated[:, layer, head], expected, atol=1e-5)
            assert not torch.allclose(ablated[:, layer, head], intact, atol=1e-3)


def test_ablating_a_built_induction_head_destroys_copying() -> None:
    sequences = random_copies(torch.Generator().manual_seed(0)).sequences[:4]
    intact, ablated = ablated_losses(induction_circuit(), sequences, torch.arange(26, 100))
    assert intact.max() < 1e-3
    assert ablated[0, 1, 0].mean() > 3.4, "ln 32: no better than guessing"
    # The previous-token head only affects the pattern of a later layer, and patterns stay fixed.
    assert ablated[0, :, 1].max() < 1e-3 and ablated[0, 0, 0].max() < 1e-3


@pytest.fixture(scope="module")
def table() -> HeadTable:
    """The table of the hand-built circuit, for two paragraphs of 25 random tokens each."""
    generator = torch.Generator().manual_seed(1)
    probe = random_copies(generator)
    paragraphs = probe.sequences[:2]
    shuffles = [
        torch.cat(
            [torch.zeros(1, dtype=torch.int64), *(row[torch.randperm(LENGTH, generator=generator)] for _ in range(4))]
        )
        for row in paragraphs[:, 1 : 1 + LENGTH]
    ]
    copying = CopyingProbe(torch.cat([paragraphs, torch.stack(shuffles)]), 4, LENGTH)
    # Test text that repeats 30 random tokens, which only in-context learning can predict.
    test = torch.nn.functional.pad(
        torch.stack([1 + torch.randperm(31, generator=generator)[:30].repeat(5)[:128] for _ in range(4)]), (1, 0)
    )
    return head_table(induction_circuit(), probe(induction_circuit()), copying, test)


def test_ablating_the_induction_head_is_costly_and_ablating_other_heads_is_not(table: HeadTable) -> None:
    induction, others = (1, 0), [(0, 0), (0, 1), (1, 1)]
    loss, gain = (table.columns[f"ablation_copying_{quantity}"] for quantity in ("loss", "gain"))
    # Ablation costs ln 32 on every token of the later copies, except on the first token of copy 2, which the circuit cannot predict.
    # On copy 1, the head predicts wrong tokens, so ablating it lowers the loss.
    assert 3.2 < loss[induction] < 3.5 and gain[induction] > loss[induction] + 5
    assert all(abs(loss[head]) < 0.1 and abs(gain[head]) < 0.1 for head in others)
    score = table.columns["ablation_in_context_score"]
    assert score[induction] > 3 and all(abs(score[head]) < 0.1 for head in others)
    assert abs(table.columns["ablation_copying_gain_null"][induction]) < gain[induction] / 3, (
        "shuffled copies have no order to lose"
    )
    assert 0 < table.columns["ablation_copying_gain_ci"][induction] < gain[induction]


def test_metrics_contain_the_numbers_of_the_best_head(table: HeadTable) -> None:
    row, columns = table.best_heads(), table.columns
    assert (
        row["prefix_matching"] == columns["prefix_matching"][1, 0]
        and row["previous_token"] == columns["previous_token"][0, 0]
    )
    assert row["copying_score"] == 1.0 and row["ablation_copying_gain"] == columns["ablation_copying_gain"][1, 0]
    assert row["ablation_copying_gain_ci"] == columns["ablation_copying_gain_ci"][1, 0]
    assert row["prefix_matching_null"] == columns["prefix_matching_null"].max()
    flat = table.flat()
    assert list(zip(flat["layer"], flat["head"], strict=True)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert flat["prefix_matching"] == columns["prefix_matching"].flatten().tolist()


def test_attribution_is_the_heads_direct_contribution_to_the_logit() -> None:
    """In the hand-built circuit, only the induction head writes along the unembedding, so its direct path is the entire logit."""
    model, probe = induction_circuit(), random_copies(torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model(probe.sequences[None, :, :-1])[0]
    sample = probe.sequences[:, 1 : 1 + LENGTH]
    own = logits.gather(2, probe.sequences[:, 1:, None])[..., 0]
    over_mean = own - logits.gather(2, sample[:, None].expand(-1, logits.shape[1], -1)).mean(dim=-1)
    queries = probe.target().any(dim=1)
    scores = probe(model)
    expected = over_mean[:, queries].mean(dim=-1)
    assert torch.allclose(
        torch.cat([scores.attribution, scores.attribution_null], dim=-1)[0, 1, 0], expected, atol=1e-4
    )
    assert scores.attribution[0, 1, 0].std() > 0, "the sequences differ"


def test_the_table_uses_the_same_copies_and_windows_as_the_losses() -> None:
    torch.manual_seed(0)
    decoder = Decoder(shape_of("2x32"), VOCABULARY, 64, [0])
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, float(parameter.dim() == 2), 0.1)
    copying = CopyingProbe(torch.randint(VOCABULARY, (2 * 5, 1 + 5 * 12)), 5, 12)  # heads are ablated on 4 of each
    test = torch.randint(VOCABULARY, (6, 65))
    probe = HeadProbe(torch.randint(VOCABULARY, (SEQUENCES + NULL_SEQUENCES, 1 + COPIES * 16)), 16)
    columns = head_table(decoder, probe(decoder), copying, test).columns

    def change(sequences: torch.Tensor) -> torch.Tensor:
        """Rise in loss from ablating each head, [layers, heads, sequences, time]."""
        intact, ablated = ablated_losses(decoder, sequences, torch.arange(sequences.shape[1] - 1))
        return (ablated - intact[:, None, None])[0].double()

    of_score = in_context_scores(change(test[:4]))
    assert torch.allclose(columns["ablation_in_context_score"], of_score.mean(dim=-1), atol=1e-5)
    halves = {"": copying.sequences[:4, :49], "_null": copying.sequences[5:9, :49]}
    for name, sequences in halves.items():
        by_copy = change(sequences).unflatten(-1, (4, 12)).mean(dim=-1)
        gain = by_copy[..., 1:].mean(dim=-1) - by_copy[..., 0]
        assert torch.allclose(columns[f"ablation_copying_gain{name}"], gain.mean(dim=-1), atol=1e-5)
    rise = change(halves[""])[..., 12:].mean(dim=(-1, -2))
    assert torch.allclose(columns["ablation_copying_loss"], rise, atol=1e-5) and rise.abs().max() > 1e-3
