"""Train a bundle's runs in lockstep, one lane each, from one step to another with Lightning's trainer."""

import logging
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

from repeat_study.checkpoints.lanes import LaneCheckpointIO
from repeat_study.checkpoints.parents import load_parent_weights
from repeat_study.config.resources import Resources, Sharing
from repeat_study.config.run import Run
from repeat_study.model.hardware import matmul_dtype, uses_cuda
from repeat_study.records.completion import AlteredRecord
from repeat_study.records.outcome import Outcome, reason_of
from repeat_study.training.callback import RunCallback
from repeat_study.training.datamodule import MixtureDataModule
from repeat_study.training.dataset import MixtureDataset, tokens_on_device
from repeat_study.training.distributed import ProcessGroup
from repeat_study.training.divergence import Diverged
from repeat_study.training.lane import Lane
from repeat_study.training.lightning_module import LanguageModeling, same_recipe
from repeat_study.training.session import Session

CORPUS_MEMORY_SHARE = 1 / 8  # maximum share of a GPU's free memory that the training split may use

Ending = Outcome | Exception


def train_lanes(lanes: Sequence[Lane], start: int, until: int, session: Session) -> dict[str, Ending]:
    """Train lanes, all of which are at step `start`, up to step `until`. Returns the outcomes of runs that have ended, by name.

    A run that reaches `until` before its own last step has not ended. It is saved and will continue together with other runs.
    """
    resources, runs = session.resources, [lane.run for lane in lanes]
    steps = runs[0].steps
    module = LanguageModeling(runs, session.store.vocabulary, resources, session.process_group)
    if not start:
        for number, lane in enumerate(lanes):
            if lane.parent:
                lane.parent_sha256 = load_parent_weights(module.model, lane.parent, number)
    dataset = _dataset(runs, session)
    checkpoint_io = LaneCheckpointIO([lane.directory for lane in lanes], same_recipe(runs))
    callback = RunCallback(lanes, start, until, session, checkpoint_io)
    try:
        if session.process_group.is_lead:
            for lane in lanes:
                lane.open_tensorboard()
        if start < steps:
            trainer = _lightning_trainer(lanes[0], callback, session)
            data = MixtureDataModule(dataset, pin_memory=uses_cuda(resources) and not dataset.on_device)
            checkpoint = lanes[0].directory.checkpoint if start else None
            with suppress(Diverged, AlteredRecord):  # raised if no lane is left; the error is in `lane.failure`
                trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
        for lane in callback.running:
            if lane.tensorboard and callback.step == steps:
                lane.tensorboard.finish()
    finally:
        dataset.release()  # Lightning's objects keep it alive until Python collects reference cycles
        for lane in lanes:
            if lane.tensorboard:
                lane.tensorboard.close()
    return _record_endings(lanes, callback)


def _record_endings(lanes: Sequence[Lane], callback: RunCallback) -> dict[str, Ending]:
    """Mark complete runs as done. Returns the outcomes of the runs that have ended, by name."""
    endings: dict[str, Ending] = {}
    for lane in lanes:
        if lane.failure:
            endings[lane.run.name] = lane.failure
        elif callback.step == lane.run.steps:
            endings[lane.run.name] = _finish(lane, callback.evaluation_steps)
        elif callback.was_stopped:
            endings[lane.run.name] = Outcome.INTERRUPTED
    return endings


def _finish(lane: Lane, evaluated: list[int]) -> Ending:
    """Mark a run as done, or as failed if its records were altered."""
    if not lane.watch:  # not on the lead process
        return Outcome.DONE
    try:
        lane.watch.check()
        lane.directory.finish(evaluated)
    except AlteredRecord as error:
        lane.directory.fail(reason_of(error), lane.run.steps)
        return error
    return Outcome.DONE


def _dataset(runs: Sequence[Run], session: Session) -> MixtureDataset:
    """Make the dataset for all lanes. If the tokens fit on the GPU, batches are assembled there and no step waits for the host."""
    group, tokens = session.process_group, None
    mixtures = [(run.mixture(), run.draw(session.store)) for run in runs]
    if uses_cuda(session.resources) and group.world == 1:
        device = torch.device("cuda")
        max_bytes = int(CORPUS_MEMORY_SHARE * torch.cuda.mem_get_info(device)[0])
        tokens = tokens_on_device([draw for _, draw in mixtures], device, max_bytes)
    return MixtureDataset(mixtures, runs[0].sequences_per_step, group.rank, group.world, tokens)


def _lightning_trainer(lane: Lane, callback: RunCallback, session: Session) -> lightning.Trainer:
    resources, group = session.resources, session.process_group
    _quieten_lightning()
    return lightning.Trainer(
        max_steps=lane.run.steps,
        accelerator="cuda" if uses_cuda(resources) else "cpu",
        precision="bf16-mixed" if matmul_dtype(resources) is torch.bfloat16 else "32-true",
        callbacks=[callback],
        default_root_dir=lane.directory.path,
        logger=False,
        enable_checkpointing=False,  # RunCallback saves checkpoints, atomically and after the metrics of the same step
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        use_distributed_sampler=False,
        # Without an explicit environment, Lightning would detect a SLURM job and requeue and resume it on its own.
        plugins=[callback.checkpoint_io, TorchElasticEnvironment() if group.world > 1 else LightningEnvironment()],
        **_placement(resources, group),
    )


def _placement(resources: Resources, process_group: ProcessGroup) -> dict[str, Any]:
    """Arguments that tell Lightning's trainer how the processes share a run."""
    if process_group.world == 1:
        return {"devices": 1}
    if resources.sharing is Sharing.FSDP:
        strategy: DDPStrategy | ModelParallelStrategy = ModelParallelStrategy(
            data_parallel_size=process_group.world, tensor_parallel_size=1, save_distributed_checkpoint=False
        )
    else:
        # gradient_as_bucket_view: gradients are views of the communication buffers, which avoids copying them.
        # broadcast_buffers: not needed, because buffers are constants or sums that each process keeps for itself.
        strategy = DDPStrategy(gradient_as_bucket_view=True, broadcast_buffers=False)
    return {"devices": process_group.local_world, "num_nodes": process_group.nodes, "strategy": strategy}


def _quieten_lightning() -> None:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
