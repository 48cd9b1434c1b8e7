"""The LightningModule: loss, accumulation, clipping, optimiser, schedule."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import lightning
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard
from torch.optim import AdamW

from repeat_study.checkpoints.lanes import GROUPS_PER_RECIPE
from repeat_study.config.resources import Resources, Sharing
from repeat_study.config.run import Run
from repeat_study.model.decoder import Decoder
from repeat_study.model.hardware import uses_cuda
from repeat_study.training.distributed import ProcessGroup

# A training loss above this many times log(vocabulary), the loss of guessing blindly, has left the range.
LARGEST_LOSS = 2.0


def learning_rate_factor(step: int, steps: int, warmup: int, final: float) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then a cosine down to `final` at the last step."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


@torch.no_grad()
def clip_gradients_per_lane(parameters: Sequence[Tensor], largest_norm: float | Tensor) -> Tensor:
    """Scale each lane's gradient down to `largest_norm`, one for all or [lanes]; returns the norms before, shape [lanes].

    A lane's norm is taken over all of its parameters and of nobody else's, so lanes stay independent.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    local = [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]
    # Rows of [lanes, parameters], so that a lane's are summed in the order in which one lane alone sums them.
    per_parameter = torch.stack([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in local], dim=1)
    norm_l = torch.linalg.vector_norm(per_parameter, dim=1)
    if isinstance(gradients[0], DTensor):
        squared_l = norm_l.square()
        dist.all_reduce(squared_l)
        norm_l = squared_l.sqrt()
    scale_l = ((norm_l + 1e-6).reciprocal() * largest_norm).clamp(max=1.0)  # as torch divides a number by a tensor
    for gradient in local:
        gradient.mul_(scale_l.view(-1, *[1] * (gradient.dim() - 1)))
    return norm_l


def same_recipe(runs: Sequence[Run]) -> bool:
    """Whether the optimiser does the same with all of these runs at every step, so that their tensors may be one in it."""
    recipes = {
        (run.learning_rate, run.warmup_fraction, run.final_learning_rate_fraction, run.weight_decay) for run in runs
    }
    return len(recipes) == 1


class LanguageModelling(lightning.LightningModule):
    """Next-token prediction on a bundle of lanes, a run each; the loss is the sum over lanes of the mean over tokens.

    Optimisation is manual in Lightning's sense: a training step is an optimiser step, whatever it is accumulated from,
    so that the trainer's count of steps is the runs' on every machine.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        vocabulary: int,
        resources: Resources | None = None,
        process_group: ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.runs, self.run, lanes = runs, runs[0], len(runs)  # what all have in common is said by the first
        self.resources, self.process_group = resources or Resources(), process_group or ProcessGroup()
        self.model = Decoder(
            self.run.shape,
            self.run.model_vocabulary(vocabulary),
            self.run.context,
            [run.seed for run in runs],
            self.resources.checkpoint_activations,
        )
        # Sums since the last evaluation, kept on the device: reading them each step would stall a GPU.
        self.register_buffer("loss_sum_l", torch.zeros(lanes, dtype=torch.float64))
        self.register_buffer("norm_sum_l", torch.zeros(lanes, dtype=torch.float64))
        self.register_buffer("summed_steps", torch.zeros((), dtype=torch.int64))
        # Of each lane: step, loss and norm of the gradient when they first left the range; zeros while all is well.
        self.register_buffer("left_range", torch.zeros(lanes, 3, dtype=torch.float64))
        self.register_buffer("largest_norm_l", torch.tensor([run.gradient_clip for run in runs]), persistent=False)
        self.loss_sum_l: Tensor
        self.norm_sum_l: Tensor
        self.summed_steps: Tensor
        self.left_range: Tensor
        self.largest_norm_l: Tensor
        self._of_lanes: list[list[Tensor]] = []  # the optimiser's tensors, where lanes have recipes of their own

    @property
    def largest_loss(self) -> float:
        """The training loss in nats above which a run has diverged."""
        return LARGEST_LOSS * math.log(self.model.vocabulary)

    @property
    def flops_per_token(self) -> int:
        """Forward and backward, of one lane."""
        return self.run.shape.training_flops_per_token(self.model.vocabulary, self.run.context)

    def configure_model(self) -> None:
        """Shard and compile, once the device is known."""
        if (
            self.resources.sharing is Sharing.FSDP
            and self.process_group.world > 1
            and not isinstance(self.model, FSDPModule)
        ):
            assert self.device_mesh is not None
            mesh = self.device_mesh["data_parallel"]
            for module in (*self.model.blocks, self.model):
                # The first axis is lanes, of which there may be one: the second is split.
                fully_shard(module, mesh=mesh, shard_placement_fn=lambda parameter: Shard(1))
            register_fsdp_forward_method(self.model, "residual")
            for block in self.model.blocks:
                register_fsdp_forward_method(block, "after_mixing")
        if self.resources.compile if self.resources.compile is not None else uses_cuda(self.resources):
            self.model.compile_parts()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say whose weights these are."""
        checkpoint["run"] = [run.identity for run in self.runs] if len(self.runs) > 1 else self.run.identity

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        """One optimiser step on a batch [lanes, sequences, context + 1]."""
        step = self.trainer.global_step
        optimizer: Any = self.optimizers()
        for number, group in enumerate(optimizer.param_groups):
            group["lr"] = self.learning_rate(step, number // GROUPS_PER_RECIPE if self._of_lanes else 0)
        loss_l = self._accumulate(batch)
        parameters = self._decayed_first()
        norm_l = clip_gradients_per_lane(parameters, self.largest_norm_l)
        for lane, tensors in enumerate(self._of_lanes):
            for tensor, parameter in zip(tensors, parameters, strict=True):
                assert parameter.grad is not None
                tensor.grad = parameter.grad[lane : lane + 1]
        optimizer.step()
        for parameter in parameters:
            parameter.grad = None
        # In place: assigning a buffer, as += does, costs more than adding to it.
        self.loss_sum_l.add_(loss_l)
        self.norm_sum_l.add_(norm_l)
        self.summed_steps.add_(1)
        # Written so that NaN, of which every comparison is false, counts as out of range too.
        left_l = torch.logical_not((loss_l <= self.largest_loss) & (norm_l < math.inf))
        now = torch.stack([torch.full_like(loss_l, step + 1), loss_l, norm_l], dim=1)
        first_l = left_l & (self.left_range[:, 0] == 0)
        self.left_range.copy_(torch.where(first_l[:, None], now, self.left_range))

    def _accumulate(self, batch: Tensor) -> Tensor:
        """Gradients of the batch's loss, a few sequences at a time; returns each lane's mean loss, shape [lanes]."""
        parts = torch.split(batch, self.resources.micro_sequences or batch.shape[1], dim=1)
        losses_l = []
        for number, part in enumerate(parts):
            share = part.shape[1] / batch.shape[1]
            with self._exchange_gradients(number == len(parts) - 1):
                loss_l = self.model(part[..., :-1], part[..., 1:]) * share
                self.manual_backward(loss_l.sum())
            losses_l.append(loss_l.detach())
        return sum(losses_l[1:], losses_l[0])

    def _exchange_gradients(self, last: bool) -> Any:
        """Processes exchange gradients once per step, after its last part."""
        if isinstance(self.model, FSDPModule):
            self.model.set_requires_gradient_sync(last)
        elif isinstance(strategy := self.trainer.strategy, DDPStrategy) and not last:
            return strategy.block_backward_sync()
        return nullcontext()

    def learning_rate(self, step: int, lane: int = 0) -> float:
        """Of a lane's optimiser step after `step` others."""
        run = self.runs[lane]
        warmup = round(run.warmup_fraction * run.steps)
        return run.learning_rate * learning_rate_factor(step, run.steps, warmup, run.final_learning_rate_fraction)

    def share_means(self) -> None:
        """Give every process the process_group's sums, so that any of them can write the checkpoint."""
        self.loss_sum_l.copy_(self.process_group.mean(self.loss_sum_l.clone()))

    def take_means(self) -> list[dict[str, float | None]]:
        """Training loss in nats and gradient norm of every lane, means over the steps since this was last asked; None where no
        step was taken. Processes that share the run take them together."""
        if not self.summed_steps:
            return [{"train_loss": None, "gradient_norm": None} for _ in self.runs]
        loss_l = self.process_group.mean(self.loss_sum_l / self.summed_steps).tolist()
        norm_l = (self.norm_sum_l / self.summed_steps).tolist()
        for buffer in (self.loss_sum_l, self.norm_sum_l, self.summed_steps):
            buffer.zero_()
        return [{"train_loss": loss, "gradient_norm": norm} for loss, norm in zip(loss_l, norm_l, strict=True)]

    def configure_optimizers(self) -> AdamW:
        """AdamW with decay on matrices and embeddings only; `training_step` sets the learning rate.

        Lanes of several recipes have tensors of their own in it, parts of the parameters. A GPU pays for these: it is given them
        group by group.
        """
        whole = self._decayed_first()
        if same_recipe(self.runs):
            self._of_lanes = []
        else:
            self._of_lanes = [[each.detach()[lane : lane + 1] for each in whole] for lane in range(len(self.runs))]
        groups = []
        of_runs: list[list[Any]] = [*self._of_lanes] or [[*whole]]
        for run, tensors in zip(self.runs, of_runs, strict=False):
            decayed, gains = ([tensor for tensor in tensors if tensor.dim() == dim] for dim in (3, 2))
            groups.append({"params": decayed, "weight_decay": run.weight_decay})
            groups.append({"params": gains, "weight_decay": 0.0})
        return AdamW(groups, lr=self.learning_rate(0), betas=(self.run.beta1, self.run.beta2), fused=True)

    def _decayed_first(self) -> list[nn.Parameter]:
        """All parameters, in the order of the optimiser's groups."""
        parameters = list(self.model.parameters())
        decayed = [parameter for parameter in parameters if parameter.dim() == 3]  # [lanes, in, out]
        gains = [parameter for parameter in parameters if parameter.dim() == 2]  # [lanes, width]
        assert len(decayed) + len(gains) == len(parameters)
        return decayed + gains
