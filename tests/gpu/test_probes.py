"""On a GPU, probes and ablations measure the same numbers as on a CPU."""

import pytest
import torch

from data_prep.token_store import TokenStore
from repeat_study.config.run import Run
from repeat_study.model.decoder import Decoder
from repeat_study.probes.ablation import ablated_losses
from repeat_study.probes.evaluation import evaluate_lanes, evaluator
from tests.gpu.conftest import STEPS
from tests.gpu.records import assert_close_records

pytestmark = pytest.mark.gpu


def decoder(run: Run, store: TokenStore, seeds: list[int]) -> Decoder:
    """Models with large random weights, so that heads and ablations have effects that can be compared."""
    model = Decoder(run.shape, store.vocabulary, run.context, seeds)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(float(parameter.dim() == 2) + 0.1 * noise)
    return model


def lane_of(model: Decoder, lane: int) -> Decoder:
    """The model of one lane."""
    single = Decoder(model.shape, model.vocabulary, model.context, [0])
    single.load_state_dict({name: value[lane : lane + 1] for name, value in model.state_dict().items()})
    return single


@pytest.mark.parametrize("style", ["2x32", "2x32-qwen", "2x32-attn"])
def test_evaluations_equal_those_of_single_lanes_on_the_cpu(
    style: str, device: str, lanes: list[Run], store: TokenStore
) -> None:
    runs = [run.model_copy(update={"model": style}) for run in lanes[:2]]
    model = decoder(runs[0], store, [0, 1])
    evaluators = [evaluator(run, store) for run in runs]
    measured = evaluate_lanes(evaluators, model.to(device), STEPS)
    model.cpu()
    for lane, evaluate in enumerate(evaluators):
        expected = evaluate(lane_of(model, lane), STEPS)
        assert {"heads", "paragraph", "test_sequences", "pool_sequences"} <= expected.record().keys()
        assert expected.row["seen_unique_loss"] is not None
        assert_close_records(measured[lane].record(), expected.record(), 1e-3)


def test_ablations_equal_those_of_single_lanes_in_float64_on_the_cpu(
    device: str, lanes: list[Run], store: TokenStore
) -> None:
    model = decoder(lanes[0], store, [0, 1])
    sequences, positions = evaluator(lanes[0], store).texts.test[:6], torch.tensor([0, 5, 40, 62])
    expected = [ablated_losses(lane_of(model, lane).double(), sequences, positions) for lane in range(2)]
    intact, ablated = ablated_losses(model.to(device), sequences, positions)
    assert intact.device.type == ablated.device.type == device
    for lane, (expected_intact, expected_ablated) in enumerate(expected):
        assert torch.allclose(intact[lane].cpu(), expected_intact[0].float(), atol=1e-4)
        assert torch.allclose(ablated[lane].cpu(), expected_ablated[0].float(), atol=1e-4)
        assert (expected_ablated - expected_intact[:, None, None]).abs().amax(dim=(0, 3, 4)).min() > 0.01, (
            "ablating any head has an effect"
        )
