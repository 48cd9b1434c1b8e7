"""The life of a run directory: start, resume, finish."""

import logging
import warnings
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

from data_prep.errors import InputError
from data_prep.files import AlreadyLocked, exclusive_lock
from data_prep.token_store import TokenStore
from repeat_study.datamodule import MixtureBatches, MixtureDataModule
from repeat_study.distributed import Team
from repeat_study.evaluation import evaluator
from repeat_study.hardware import multiplies_in, precision_name, uses_cuda
from repeat_study.keeper import Diverged, RunKeeper
from repeat_study.outcome import Outcome, Progress
from repeat_study.records import RunDirectory
from repeat_study.resources import Resources, Sharing
from repeat_study.run import Run
from repeat_study.training import LanguageModelling
from repeat_study.weights import finished_parent, start_from


def train(
    run: Run,
    store: TokenStore,
    study_dir: Path,
    report: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    resources: Resources | None = None,
) -> Outcome:
    """Train `run` in its directory below `study_dir`, from its checkpoint where it has one, to its end.

    `should_stop` is asked after every step; once it says yes, or SIGTERM came, the state is saved and the call returns.
    Processes started with torchrun's environment variables share the run and all return the same.
    Raises InputError when the directory was made by another spec, and whatever training raises, after recording it.
    """
    resources = resources or Resources()
    directory = RunDirectory(study_dir / run.name)
    team = Team.from_environment()
    team.join(uses_cuda(resources))
    try:
        with ExitStack() as held:
            verdict: Outcome | None = Outcome.FAILED
            try:
                if team.leads:
                    verdict = _claim(directory, run, store, held)
            finally:
                verdict = team.told(verdict)
            if verdict:
                return verdict
            try:
                return _train(run, store, directory, report, should_stop, resources, team)
            except InputError:
                raise  # not the run's fault
            except Exception as error:
                if team.leads:
                    step = error.step if isinstance(error, Diverged) else None
                    with suppress(OSError):  # a full disk must not hide what it caused
                        directory.fail(f"{type(error).__name__}: {error}", step)
                raise
    finally:
        team.leave()


def _claim(directory: RunDirectory, run: Run, store: TokenStore, held: ExitStack) -> Outcome | None:
    """Make the directory this process's for as long as `held` is open, or say why there is nothing to do."""
    directory.make()
    try:
        held.enter_context(exclusive_lock(directory.lock))
    except AlreadyLocked:
        return Outcome.BUSY
    directory.claim(run, store)
    if directory.done.is_file():
        return Outcome.ALREADY_DONE
    directory.failed.unlink(missing_ok=True)
    return None


def _train(
    run: Run,
    store: TokenStore,
    directory: RunDirectory,
    report: Callable[[Progress], None],
    should_stop: Callable[[], bool],
    resources: Resources,
    team: Team,
) -> Outcome:
    if team.leads:
        directory.keep_precision(precision_name(resources))
    module = LanguageModelling(run, store.vocabulary, resources, team)
    batches = MixtureBatches([(run.mixture(), run.draw(store))], run.sequences_per_step, team.rank, team.world)
    origin = finished_parent(run, directory.path.parent)
    evaluate = evaluator(run, store, origin[1] if origin else None)
    keeper = RunKeeper(run, directory, evaluate, resources, team, report, should_stop)
    if origin and not keeper.resume_step:
        keeper.started_from = start_from(module.model, *origin)
    _quieten_lightning()
    trainer = lightning.Trainer(
        max_steps=run.steps,
        accelerator="cuda" if uses_cuda(resources) else "cpu",
        precision="bf16-mixed" if multiplies_in(resources) is torch.bfloat16 else "32-true",
        callbacks=[keeper],
        default_root_dir=directory.path,
        logger=False,
        enable_checkpointing=False,  # RunKeeper writes them: atomically and only after the metrics they stand for
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        use_distributed_sampler=False,
        # Named, or Lightning would find SLURM around a run and take it for one to requeue and to resume by itself.
        plugins=[WholeFiles(), TorchElasticEnvironment() if team.world > 1 else LightningEnvironment()],
        **_placement(resources, team),
    )
    try:
        if keeper.resume_step < run.steps:
            checkpoint = directory.checkpoint if keeper.resume_step else None
            trainer.fit(
                module, MixtureDataModule(batches, uses_cuda(resources)), ckpt_path=checkpoint, weights_only=True
            )
        if keeper.monitor and keeper.step == run.steps:
            keeper.monitor.finish()
    except Diverged:
        if keeper.monitor:
            keeper.monitor.finish(succeeded=False)
        raise
    finally:
        if keeper.monitor:
            keeper.monitor.close()
    if keeper.step < run.steps:
        return Outcome.INTERRUPTED
    if team.leads:
        directory.finish(keeper.evaluation_steps)
    return Outcome.DONE


class WholeFiles(TorchCheckpointIO):
    """Checkpoints straight to their file: Lightning's own way goes twice through memory and once through /tmp."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Not atomic: RunKeeper gives it a scratch file and renames that."""
        torch.save(checkpoint, path)


def _placement(resources: Resources, team: Team) -> dict[str, Any]:
    """The Trainer's arguments that say which processes train together, and how."""
    if team.world == 1:
        return {"devices": 1}
    # gradient_as_bucket_view: gradients live in the buffers that are exchanged, one copy less of them. Buffers are sums
    # that each process keeps of its own steps, or constants.
    strategy = (
        ModelParallelStrategy(data_parallel_size=team.world, tensor_parallel_size=1, save_distributed_checkpoint=False)
        if resources.sharing is Sharing.FSDP
        else DDPStrategy(gradient_as_bucket_view=True, broadcast_buffers=False)
    )
    return {
        "devices": team.local_world,
        "num_nodes": team.nodes,
        "strategy": strategy,
    }


def _quieten_lightning() -> None:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
