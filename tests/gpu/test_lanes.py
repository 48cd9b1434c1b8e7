"""On a GPU, the lanes of a bundle have nearly the same results as the same runs trained alone."""

from pathlib import Path

import pytest
import torch

from data_prep.token_store import TokenStore
from repeat_study.config.resources import Resources
from repeat_study.config.run import Run
from repeat_study.records.outcome import Outcome
from repeat_study.records.run_directory import RunDirectory, Status
from repeat_study.training.divergence import Diverged
from repeat_study.training.lane_optimizer import LaneAdamW
from repeat_study.training.lightning_module import same_recipe
from repeat_study.training.trainer import train_bundle
from tests.gpu.records import CLOSE, CLOSE_SCORES, assert_close_heads, assert_close_losses, rows

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("count", [2, 4])
def test_lanes_have_nearly_the_same_results_as_single_runs(
    count: int, lanes: list[Run], singles: Path, store: TokenStore, resources: Resources, tmp_path: Path
) -> None:
    """Two lanes of one recipe, and four lanes of several recipes, which another optimizer updates."""
    assert same_recipe(lanes[:count]) == (count == 2)
    endings = train_bundle(lanes[:count], store, tmp_path, resources=resources)
    assert set(endings.values()) == {Outcome.DONE}
    for run in lanes[:count]:
        assert_close_losses(tmp_path, singles, run, CLOSE)
        assert_close_heads(tmp_path, singles, run, CLOSE_SCORES)
        assert [row["lanes"] for row in RunDirectory(tmp_path / run.name).session_rows()] == [count]


def test_a_lane_that_diverges_is_marked_as_failed_and_the_others_continue(
    lanes: list[Run], singles: Path, store: TokenStore, resources: Resources, tmp_path: Path
) -> None:
    ruined = lanes[1].model_copy(update={"learning_rate": 1e30, "gradient_clip": 1e30})
    others = [lanes[0], *lanes[2:]]
    endings = train_bundle([lanes[0], ruined, *lanes[2:]], store, tmp_path, resources=resources)
    assert isinstance(endings[ruined.name], Diverged)
    directory = RunDirectory(tmp_path / ruined.name)
    assert directory.status() is Status.FAILED and "Diverged: " in directory.failure()
    assert [row["step"] for row in directory.rows()] == [0], "nothing is written about a ruined model"
    for run in others:
        assert endings[run.name] is Outcome.DONE
        assert_close_losses(tmp_path, singles, run, CLOSE)
        sessions = RunDirectory(tmp_path / run.name).session_rows()
        assert [row["lanes"] for row in sessions] == [4, 3], "the diverged lane leaves at the next evaluation"


def test_one_optimizer_step_for_all_recipes_equals_an_optimizer_for_each_lane(device: str) -> None:
    recipes = ((1e-3, 0.1), (3e-3, 1.0), (2e-2, 0.01), (5e-4, 0.0))  # learning rate, weight decay
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.randn(4, *shape, generator=generator).to(device) for shape in [(64, 96), (64,)]]
    alone = [[parameter[lane : lane + 1].clone() for parameter in parameters] for lane in range(4)]
    separate = [
        torch.optim.AdamW(
            [{"params": [matrix], "weight_decay": decay}, {"params": [gain], "weight_decay": 0.0}],
            lr=rate,
            betas=(0.9, 0.95),
            fused=True,
        )
        for (matrix, gain), (rate, decay) in zip(alone, recipes, strict=True)
    ]
    decayed = [{"lr": rate, "weight_decay": decay} for rate, decay in recipes]
    undecayed = [recipe | {"weight_decay": 0.0} for recipe in decayed]
    groups = [{"params": parameters[:1], "lanes": decayed}, {"params": parameters[1:], "lanes": undecayed}]
    together = LaneAdamW(groups, (0.9, 0.95))
    for step in range(1, 11):
        for number, parameter in enumerate(parameters):
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(device)
            for lane in range(4):
                alone[lane][number].grad = parameter.grad[lane : lane + 1].clone()
        for optimizer in separate:
            optimizer.step()
        for group in together.param_groups:
            group["steps"] = step
        together.step()
    for number, parameter in enumerate(parameters):
        assert parameter.device.type == device
        expected = torch.cat([tensors[number] for tensors in alone])
        assert torch.allclose(parameter, expected, rtol=1e-5, atol=1e-6), number
        state, single = together.state[parameter], separate[2].state[alone[2][number]]
        for moment in ("exp_avg", "exp_avg_sq"):
            assert torch.allclose(state[moment][2:3], single[moment], rtol=1e-5, atol=1e-7), moment


def test_a_gpu_has_nearly_the_same_results_as_the_cpu(
    lanes: list[Run], singles: Path, store: TokenStore, resources: Resources, tmp_path: Path
) -> None:
    """The reference is a bundle, so the test does not compare a training with itself in CPU mode."""
    train_bundle(lanes[:2], store, tmp_path, resources=resources.model_copy(update={"accelerator": "cpu"}))
    for run in lanes[:2]:
        assert_close_losses(singles, tmp_path, run, 1e-3)
        assert rows(singles, run)[0]["test_loss"] == pytest.approx(rows(tmp_path, run)[0]["test_loss"], abs=1e-5)
