"""One optimizer step for lanes of different recipes against a fused optimizer for each lane."""

import torch

from repeat_study.training.lane_optimizer import LaneAdamW

RECIPES = ((1e-3, 0.1), (3e-3, 1.0), (2e-2, 0.01), (5e-4, 0.0))  # learning rate, weight decay
BETAS = (0.9, 0.95)
LANES = len(RECIPES)


def test_every_lane_equals_a_fused_optimizer_of_its_own() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(64, 96), (512, 64), (64,)]  # the last one without weight decay
    parameters = [torch.randn(LANES, *shape, generator=generator) for shape in shapes]
    alone = [[parameter[lane : lane + 1].clone() for parameter in parameters] for lane in range(LANES)]
    separate = [
        torch.optim.AdamW(
            [{"params": tensors[:2], "weight_decay": decay}, {"params": tensors[2:], "weight_decay": 0.0}],
            lr=rate,
            betas=BETAS,
            fused=True,
        )
        for tensors, (rate, decay) in zip(alone, RECIPES, strict=True)
    ]
    decayed = [{"lr": rate, "weight_decay": decay} for rate, decay in RECIPES]
    undecayed = [{"lr": rate, "weight_decay": 0.0} for rate, _ in RECIPES]
    together = LaneAdamW(
        [{"params": parameters[:2], "lanes": decayed}, {"params": parameters[2:], "lanes": undecayed}], BETAS
    )
    for step in range(1, 31):
        factor = 1 / step  # a schedule
        for parameter in parameters:
            size = 10 ** float(torch.randn((), generator=generator))
            parameter.grad = torch.randn(parameter.shape, generator=generator) * size
        for lane, (optimizer, tensors) in enumerate(zip(separate, alone, strict=True)):
            for group in optimizer.param_groups:
                group["lr"] = RECIPES[lane][0] * factor
            for tensor, parameter in zip(tensors, parameters, strict=True):
                assert parameter.grad is not None
                tensor.grad = parameter.grad[lane : lane + 1].clone()
            optimizer.step()
        for group in together.param_groups:
            group["steps"] = step
            for lane, recipe in enumerate(group["lanes"]):
                recipe["lr"] = RECIPES[lane][0] * factor
        together.step()
        for number, parameter in enumerate(parameters):
            assert torch.equal(parameter, torch.cat([tensors[number] for tensors in alone])), (step, number)


def test_its_moments_are_those_of_the_fused_kernel() -> None:
    parameter = torch.ones(2, 8, 8)
    optimizer = LaneAdamW([{"params": [parameter], "lanes": [{"lr": 0.1, "weight_decay": 0.0}] * 2, "steps": 1}], BETAS)
    parameter.grad = torch.full_like(parameter, 2.0)
    optimizer.step()
    state = optimizer.state[parameter]
    assert torch.allclose(state["exp_avg"], torch.tensor(0.2)) and torch.allclose(
        state["exp_avg_sq"], torch.tensor(0.2)
    )
    assert torch.allclose(parameter, torch.tensor(0.9)), "the first step has the size of the learning rate"
