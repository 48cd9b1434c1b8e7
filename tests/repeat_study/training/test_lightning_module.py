from itertools import pairwise

import pytest
import torch

from repeat_study.config.run import Run
from repeat_study.training.lightning_module import LanguageModeling, clip_gradients_per_lane, learning_rate_factor


def test_learning_rate_has_a_linear_warm_up_and_a_cosine_decay() -> None:
    factors = [learning_rate_factor(step, 100, 10, 0.1) for step in range(101)]
    assert factors[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert factors[10] == 1.0 and factors[55] == pytest.approx(0.55) and factors[100] == pytest.approx(0.1)
    assert all(after <= before for before, after in pairwise(factors[10:]))
    assert learning_rate_factor(0, 100, 0, 0.0) == 1.0


def test_clipping_treats_each_lane_separately() -> None:
    gradients = [torch.tensor([[3.0, 0.0], [0.3, 0.0]]), torch.tensor([[[4.0]], [[0.4]]])]
    parameters = [torch.nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    norms = clip_gradients_per_lane(parameters, 1.0)
    assert norms.tolist() == pytest.approx([5.0, 0.5])
    for parameter, gradient in zip(parameters, gradients, strict=True):
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad[0], gradient[0] / 5, atol=1e-5), "the large lane is scaled to norm 1"
        assert torch.equal(parameter.grad[1], gradient[1]), "the small lane is unchanged"


def test_every_parameter_is_optimized_once_and_only_matrices_decay(runs: list[Run]) -> None:
    module = LanguageModeling([runs[0]], vocabulary=320)
    optimizer = module.configure_optimizers()
    grouped = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(map(id, grouped)) == sorted(map(id, module.model.parameters()))
    decayed = {
        id(parameter) for group in optimizer.param_groups if group["weight_decay"] for parameter in group["params"]
    }
    for name, parameter in module.model.named_parameters():
        assert (id(parameter) in decayed) == ("gain" not in name), name


def test_clipping_with_a_norm_for_each_lane_equals_clipping_single_runs_bit_for_bit(runs: list[Run]) -> None:
    """A lane must be clipped with the same rounding as a single run, for which torch divides a number by a tensor."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        gradient = torch.rand(3, 4, 5, generator=generator)
        parameters = [torch.nn.Parameter(torch.zeros(3, 4, 5)) for _ in range(2)]
        for parameter in parameters:
            parameter.grad = gradient.clone()
        norm_l = clip_gradients_per_lane(parameters[:1], torch.tensor([0.3, 1.0, 9.0]))
        for lane, largest in enumerate((0.3, 1.0, 9.0)):
            expected = gradient[lane] * (largest / (norm_l[lane : lane + 1] + 1e-6)).clamp(max=1.0)
            assert torch.equal(parameters[0].grad[lane], expected)  # type: ignore[index]
