"""The Lightning module, which computes losses, accumulates and clips gradients, and sets up the optimizer and learning rate."""

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

from repeat_study.config.resources import REDUCE_OVERHEAD, Resources, Sharing
from repeat_study.config.run import Run
from repeat_study.model.decoder import Decoder
from repeat_study.model.hardware import uses_cuda
from repeat_study.training.distributed import ProcessGroup
from repeat_study.training.divergence import max_loss
from repeat_study.training.lane_optimizer import LaneAdamW


def learning_rate_factor(step: int, steps: int, warmup: int, final: float) -> float:
    """Learning rate at a step as a fraction of its peak: linear warm-up, then cosine decay to `final` at the last step."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


@torch.no_grad()
def clip_gradients_per_lane(parameters: Sequence[Tensor], max_norm: float | Tensor) -> Tensor:
    """Clip each lane's gradient to a norm of at most `max_norm`. Returns the norms before clipping, shape [lanes].

    max_norm: one number for all lanes, or a tensor of shape [lanes]. A lane's norm includes only its own parameters, so the
    lanes stay independent.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    local = [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]
    # Shape [lanes, parameters], so that each lane's squares are summed in the same order as in a run that trains alone.
    per_parameter = torch.stack([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in local], dim=1)
    norm_l = torch.linalg.vector_norm(per_parameter, dim=1)
    if isinstance(gradients[0], DTensor):
        squared_l = norm_l.square()
        dist.all_reduce(squared_l)
        norm_l = squared_l.sqrt()
    # torch computes number / tensor as number · (1 / tensor). This product rounds a tensor `max_norm` in the same way.
    scale_l = ((norm_l + 1e-6).reciprocal() * max_norm).clamp(max=1.0)
    for gradient in local:
        gradient.mul_(scale_l.view(-1, *[1] * (gradient.dim() - 1)))
    return norm_l


def same_recipe(runs: Sequence[Run]) -> bool:
    """Whether all runs have the same learning rate, schedule and weight decay, so one parameter group can update all lanes."""
    recipes = {
        (run.learning_rate, run.warmup_fraction, run.final_learning_rate_fraction, run.weight_decay) for run in runs
    }
    return len(recipes) == 1


class LanguageModeling(lightning.LightningModule):
    """Next-token prediction for a bundle of runs, with one lane each. The loss is the mean over tokens, summed over lanes.

    The module uses Lightning's manual optimization, so one training step is one optimizer step, however many passes are
    accumulated. The trainer's step count therefore equals the runs' step count on every machine.
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
        self.runs, self.run, lanes = runs, runs[0], len(runs)  # `run` is used for the fields that all runs share
        self.resources, self.process_group = resources or Resources(), process_group or ProcessGroup()
        self.model = Decoder(
            self.run.shape,
            self.run.model_vocabulary(vocabulary),
            self.run.context,
            [run.seed for run in runs],
            self.resources.checkpoint_activations,
        )
        # Sums since the last evaluation. They stay on the device, because reading them at every step would stall a GPU.
        self.register_buffer("loss_sum_l", torch.zeros(lanes, dtype=torch.float64))
        self.register_buffer("norm_sum_l", torch.zeros(lanes, dtype=torch.float64))
        self.register_buffer("summed_steps", torch.zeros((), dtype=torch.int64))
        # For each lane, the first step whose loss or gradient norm was out of range, that loss, and that norm.
        # All three are zero if there is no such step.
        self.register_buffer("left_range", torch.zeros(lanes, 3, dtype=torch.float64))
        self.register_buffer("max_norm_l", torch.tensor([run.gradient_clip for run in runs]), persistent=False)
        self.loss_sum_l: Tensor
        self.norm_sum_l: Tensor
        self.summed_steps: Tensor
        self.left_range: Tensor
        self.max_norm_l: Tensor

    @property
    def largest_loss(self) -> float:
        """The loss in nats above which a run counts as diverged."""
        return max_loss(self.model.vocabulary)

    @property
    def flops_per_token(self) -> int:
        """FLOPs per token for the forward and backward pass of one lane."""
        return self.run.shape.training_flops_per_token(self.model.vocabulary, self.run.context)

    def configure_model(self) -> None:
        """Shard and compile the model. Lightning calls this method once the device is known."""
        if (
            self.resources.sharing is Sharing.FSDP
            and self.process_group.world > 1
            and not isinstance(self.model, FSDPModule)
        ):
            assert self.device_mesh is not None
            mesh = self.device_mesh["data_parallel"]
            for module in (*self.model.blocks, self.model):
                # Split along the second axis, because the first one is the lane axis and may have length 1.
                fully_shard(module, mesh=mesh, shard_placement_fn=lambda parameter: Shard(1))
            register_fsdp_forward_method(self.model, "residual")
            for block in self.model.blocks:
                register_fsdp_forward_method(block, "after_attention")
        compiling = self.resources.compile
        if uses_cuda(self.resources) if compiling is None else compiling:
            self.model.compile_parts(REDUCE_OVERHEAD if compiling == REDUCE_OVERHEAD else None)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the identity of the run, or of every run in the bundle, to the checkpoint."""
        checkpoint["run"] = [run.identity for run in self.runs] if len(self.runs) > 1 else self.run.identity

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        """Take one optimizer step on a batch [lanes, sequences, context + 1]."""
        step = self.trainer.global_step
        optimizer: Any = self.optimizers()
        for group in optimizer.param_groups:
            if "lanes" in group:
                group["steps"] = step + 1
                for lane, recipe in enumerate(group["lanes"]):
                    recipe["lr"] = self.learning_rate(step, lane)
            else:
                group["lr"] = self.learning_rate(step)
        if self.resources.compile == REDUCE_OVERHEAD:
            torch.compiler.cudagraph_mark_step_begin()  # graphs may overwrite the tensors of the step before
        loss_l = self._accumulate(batch)
        parameters = self._decayed_first()
        norm_l = clip_gradients_per_lane(parameters, self.max_norm_l)
        optimizer.step()
        for parameter in parameters:
            parameter.grad = None
        # Added in place: += would also reassign the buffer, which takes longer than the addition.
        self.loss_sum_l.add_(loss_l)
        self.norm_sum_l.add_(norm_l)
        self.summed_steps.add_(1)
        # Every comparison with NaN is false, so this negated condition treats NaN as out of range.
        out_l = torch.logical_not((loss_l <= self.largest_loss) & (norm_l < math.inf))
        now = torch.stack([torch.full_like(loss_l, step + 1), loss_l, norm_l], dim=1)
        first_l = out_l & (self.left_range[:, 0] == 0)
        self.left_range.copy_(torch.where(first_l[:, None], now, self.left_range))

    def _accumulate(self, batch: Tensor) -> Tensor:
        """Accumulate gradients over passes of a few sequences each. Returns each lane's mean loss, shape [lanes]."""
        passes = torch.split(batch, self.resources.micro_sequences or batch.shape[1], dim=1)
        losses_l = []
        for number, sequences in enumerate(passes):
            share = sequences.shape[1] / batch.shape[1]
            with self._exchange_gradients(last=number == len(passes) - 1):
                loss_l = self.model(sequences[..., :-1], sequences[..., 1:]) * share
                self.manual_backward(loss_l.sum())
            losses_l.append(loss_l.detach())
        return sum(losses_l[1:], losses_l[0])

    def _exchange_gradients(self, last: bool) -> Any:
        """Context manager for one backward pass. Processes exchange gradients only in the last pass of a step."""
        if isinstance(self.model, FSDPModule):
            self.model.set_requires_gradient_sync(last)
        elif isinstance(strategy := self.trainer.strategy, DDPStrategy) and not last:
            return strategy.block_backward_sync()
        return nullcontext()

    def learning_rate(self, step: int, lane: int = 0) -> float:
        """A lane's learning rate at optimizer step `step`, counted from 0."""
        run = self.runs[lane]
        warmup = round(run.warmup_fraction * run.steps)
        return run.learning_rate * learning_rate_factor(step, run.steps, warmup, run.final_learning_rate_fraction)

    def share_means(self) -> None:
        """Average the loss sums over the processes, so that any process can write the checkpoint."""
        self.loss_sum_l.copy_(self.process_group.mean(self.loss_sum_l.clone()))

    def pop_means(self) -> list[dict[str, float | None]]:
        """Each lane's mean training loss in nats and mean gradient norm since the last call; None if no step was taken.

        All processes that share the run must call this method together.
        """
        if not self.summed_steps:
            return [{"train_loss": None, "gradient_norm": None} for _ in self.runs]
        loss_l = self.process_group.mean(self.loss_sum_l / self.summed_steps).tolist()
        norm_l = (self.norm_sum_l / self.summed_steps).tolist()
        for buffer in (self.loss_sum_l, self.norm_sum_l, self.summed_steps):
            buffer.zero_()
        return [{"train_loss": loss, "gradient_norm": norm} for loss, norm in zip(loss_l, norm_l, strict=True)]

    def configure_optimizers(self) -> AdamW:
        """Make AdamW with weight decay on matrices and embeddings only. `training_step` sets the learning rate."""
        parameters = self._decayed_first()
        decayed, gains = ([tensor for tensor in parameters if tensor.dim() == dim] for dim in (3, 2))
        betas = self.run.beta1, self.run.beta2
        if same_recipe(self.runs):
            groups = [
                {"params": decayed, "weight_decay": self.run.weight_decay},
                {"params": gains, "weight_decay": 0.0},
            ]
            return AdamW(groups, lr=self.learning_rate(0), betas=betas, fused=True)
        recipes = [
            {"lr": self.learning_rate(0, lane), "weight_decay": run.weight_decay} for lane, run in enumerate(self.runs)
        ]
        undecayed = [recipe | {"weight_decay": 0.0} for recipe in recipes]
        return LaneAdamW([{"params": decayed, "lanes": recipes}, {"params": gains, "lanes": undecayed}], betas)

    def _decayed_first(self) -> list[nn.Parameter]:
        """All parameters in the order of the optimizer's groups: first those with weight decay, then the others."""
        parameters = list(self.model.parameters())
        decayed = [parameter for parameter in parameters if parameter.dim() == 3]  # [lanes, in, out]
        gains = [parameter for parameter in parameters if parameter.dim() == 2]  # [lanes, width]
        assert len(decayed) + len(gains) == len(parameters)
        return decayed + gains
