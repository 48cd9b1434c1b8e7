"""The LightningModule: loss, optimiser, schedule, clipping."""

import math
from collections.abc import Sequence
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from repeat_study.model import Decoder, token_losses
from repeat_study.study import Run


def learning_rate_factor(step: int, steps: int, warmup: int, final: float) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then a cosine down to `final` at the last step."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


@torch.no_grad()
def clip_gradients_per_lane(parameters: Sequence[Tensor], largest_norm: float) -> Tensor:
    """Scale each lane's gradient down to `largest_norm`; returns the norms before, shape [lanes].

    A lane's norm is taken over all of its parameters and of nobody else's, so lanes stay independent.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    per_parameter = torch.stack([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients])
    norm_l = torch.linalg.vector_norm(per_parameter, dim=0)
    scale_l = (largest_norm / (norm_l + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale_l.view(-1, *[1] * (gradient.dim() - 1)))
    return norm_l


class LanguageModelling(lightning.LightningModule):
    """Next-token prediction on a bundle of lanes; the loss is the sum over lanes of the mean over tokens."""

    def __init__(self, run: Run, vocabulary: int) -> None:
        super().__init__()
        self.run = run
        self.model = Decoder(run.shape, vocabulary, run.context, [run.seed])
        # Training loss since the last evaluation, kept on the device: reading it each step would stall a GPU.
        self.register_buffer("loss_sum_l", torch.zeros(1, dtype=torch.float64))
        self.register_buffer("loss_steps", torch.zeros((), dtype=torch.int64))
        self.loss_sum_l: Tensor
        self.loss_steps: Tensor

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Loss of a batch [lanes, sequences, context + 1], in nats, summed over lanes."""
        loss_l = token_losses(self.model(batch[..., :-1]), batch[..., 1:]).mean(dim=(1, 2))
        self.loss_sum_l += loss_l.detach()
        self.loss_steps += 1
        return loss_l.sum()

    def take_training_loss(self) -> float | None:
        """Mean training loss per token since it was last taken, None before the first step."""
        if not self.loss_steps:
            return None
        mean = float(self.loss_sum_l[0] / self.loss_steps)
        self.loss_sum_l.zero_()
        self.loss_steps.zero_()
        return mean

    def configure_optimizers(self) -> Any:
        """AdamW with decay on matrices and embeddings only; steps come from the spec, never from the trainer."""
        run = self.run
        parameters = list(self.model.parameters())
        decayed = [parameter for parameter in parameters if parameter.dim() == 3]  # [lanes, in, out]
        gains = [parameter for parameter in parameters if parameter.dim() == 2]  # [lanes, d_model]
        assert len(decayed) + len(gains) == len(parameters)
        groups = [{"params": decayed, "weight_decay": run.weight_decay}, {"params": gains, "weight_decay": 0.0}]
        optimizer = AdamW(groups, lr=run.learning_rate, betas=(run.beta1, run.beta2), fused=True)
        warmup = round(run.warmup_fraction * run.steps)
        final = run.final_learning_rate_fraction
        schedule = LambdaLR(optimizer, lambda step: learning_rate_factor(step, run.steps, warmup, final))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer: Optimizer, *_: Any, **__: Any) -> None:
        """Clip by hand: Lightning's own clipping would take one norm over all lanes."""
        clip_gradients_per_lane(list(self.model.parameters()), self.run.gradient_clip)
