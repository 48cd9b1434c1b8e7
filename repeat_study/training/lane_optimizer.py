"""AdamW for a bundle: one step updates all lanes, each with its own learning rate and weight decay."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import AdamW


class LaneAdamW(AdamW):
    """AdamW for parameters with a lane axis, [lanes, ...], where lanes differ in learning rate or weight decay.

    torch's fused kernel accepts a single learning rate. With a rate of 0, it updates the two moments and leaves the parameters
    unchanged. One call of that kernel therefore updates all lanes' moments, and the parameters are then updated using per-lane
    factors of shape [lanes]. The operations are in the same order as in the kernel, so on a CPU, every lane is bit-for-bit
    identical to a run that trains alone.

    In every parameter group, `lanes` lists each lane's `lr` and `weight_decay`, and `steps` is the number of the next step,
    counted from 1. The caller updates both before calling `step`.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], betas: tuple[float, float]) -> None:
        super().__init__([group | {"lr": 0.0, "weight_decay": 0.0} for group in groups], betas=betas, fused=True)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update all lanes. Returns the closure's value, as all torch optimizers do."""
        loss = super().step(closure)
        for group in self.param_groups:
            device = group["params"][0].device
            beta1, beta2 = group["betas"]
            rate_correction, root_correction = (
                1 - beta1 ** group["steps"],
                math.sqrt(1 - beta2 ** group["steps"]),
            )
            kept_l = _on(device, [1 - lane["lr"] * lane["weight_decay"] for lane in group["lanes"]])
            rate_l = _on(device, [-(lane["lr"] / rate_correction) for lane in group["lanes"]])
            for parameter in group["params"]:
                state = self.state[parameter]
                _update(parameter, state["exp_avg"], state["exp_avg_sq"], kept_l, rate_l, root_correction, group["eps"])
        return loss


def _on(device: torch.device, numbers: list[float]) -> Tensor:
    """Copy numbers into a float32 tensor on the device, without waiting for the device."""
    values = torch.tensor(numbers, dtype=torch.float64).float()
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values


def _update(
    parameter: Tensor, mean: Tensor, square: Tensor, kept_l: Tensor, rate_l: Tensor, root_correction: float, eps: float
) -> None:
    """parameter · kept + rate · mean / (√square / root_correction + eps), rounded after every operation as in the fused kernel."""
    lanes = (-1, *[1] * (parameter.dim() - 1))
    # On a CPU, torch's square root is off by one unit in the last place for a sixth of all values. NumPy and the kernel are exact.
    root = torch.from_numpy(np.sqrt(square.numpy())) if square.device.type == "cpu" else square.sqrt()
    change = (mean * rate_l.view(lanes)).div_(root.div_(root_correction).add_(eps))
    parameter.mul_(kept_l.view(lanes)).add_(change)
