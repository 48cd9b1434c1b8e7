import pytest
import torch
from built import induction_circuit, random_copies

from repeat_study.ladder import shape_of
from repeat_study.model import Decoder
from repeat_study.probes import ablation
from repeat_study.probes.ablation import ablated_losses
from repeat_study.probes.heads import attention_patterns

VOCABULARY = 50


def one_at_a_time(model: Decoder, sequences: torch.Tensor, layer: int, head: int) -> torch.Tensor:
    """What the probe means, written down plainly: patterns of a first pass, one head's mix zero in a second."""
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
def test_ablations_are_those_of_one_head_at_a_time(model: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation, "CHUNK_TOKENS", chunk)
    torch.manual_seed(0)
    decoder = Decoder(shape_of(model), VOCABULARY, 24, [0, 1])
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, float(parameter.dim() == 2), 0.1)
    sequences, positions = torch.randint(VOCABULARY, (3, 20)), torch.tensor([2, 5, 18])
    whole, ablated = ablated_losses(decoder, sequences, positions)
    layers, heads = decoder.shape.layers, decoder.shape.heads
    assert whole.shape == (2, 3, 3) and ablated.shape == (2, layers, heads, 3, 3)
    assert torch.allclose(whole, decoder.token_losses(sequences.expand(2, -1, -1))[..., positions], atol=1e-5)
    for layer in range(layers):
        for head in range(heads):
            expected = one_at_a_time(decoder, sequences.expand(2, -1, -1), layer, head)[..., positions]
            assert torch.allclose(ablated[:, layer, head], expected, atol=1e-5)
            assert not torch.allclose(ablated[:, layer, head], whole, atol=1e-3)


def test_ablating_a_built_induction_head_destroys_copying() -> None:
    sequences = random_copies(torch.Generator().manual_seed(0)).sequences[:4]
    whole, ablated = ablated_losses(induction_circuit(), sequences, torch.arange(26, 100))
    assert whole.max() < 1e-3
    assert ablated[0, 1, 0].mean() > 3.4, "ln 32, as good as a guess"
    # The head that notes the token before shapes a pattern alone, and patterns are preserved.
    assert ablated[0, :, 1].max() < 1e-3 and ablated[0, 0, 0].max() < 1e-3
