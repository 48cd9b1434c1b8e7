"""The life of a run directory: start, resume, finish."""

import logging
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import lightning
import torch

from data_prep.files import AlreadyLocked, exclusive_lock
from data_prep.token_store import TokenStore
from repeat_study.datamodule import MixtureBatches, MixtureDataModule
from repeat_study.evaluation import Evaluator, evaluator
from repeat_study.monitoring import Monitor
from repeat_study.records import RunDirectory
from repeat_study.study import Run
from repeat_study.training import LanguageModelling


class Outcome(StrEnum):
    """How a call of `train` ended."""

    DONE = "done"
    ALREADY_DONE = "already done"
    INTERRUPTED = "interrupted"  # asked to stop; the checkpoint holds every step made
    BUSY = "busy"  # another process is training this run
    FAILED = "failed"  # the run's own fault; failed.json says why


class Diverged(RuntimeError):
    """The loss is not a finite number."""


@dataclass(frozen=True)
class Progress:
    """Where a run is, sent at every evaluation."""

    run: str
    step: int
    steps: int
    test_loss: float
    resumed: bool = False


def train(
    run: Run,
    store: TokenStore,
    study_dir: Path,
    report: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train `run` in its directory below `study_dir`, from its checkpoint where it has one, to its end.

    `should_stop` is asked after every step; once it says yes the state is saved and the call returns.
    Raises InputError when the directory was made by another spec, and whatever training raises, after recording it.
    """
    directory = RunDirectory(study_dir / run.name)
    directory.make()
    try:
        with exclusive_lock(directory.lock):
            directory.claim(run, store)
            if directory.done.is_file():
                return Outcome.ALREADY_DONE
            directory.failed.unlink(missing_ok=True)
            try:
                return _train(run, store, directory, report, should_stop)
            except Exception as error:
                directory.fail(f"{type(error).__name__}: {error}")
                raise
    except AlreadyLocked:
        return Outcome.BUSY


def _train(
    run: Run,
    store: TokenStore,
    directory: RunDirectory,
    report: Callable[[Progress], None],
    should_stop: Callable[[], bool],
) -> Outcome:
    mixture = run.mixture(store.sequences_in("train", run.context))
    module = LanguageModelling(run, store.vocabulary)
    batches = MixtureBatches(store, [mixture], run.sequences_per_step, run.context)
    keeper = RunKeeper(run, directory, evaluator(run, store, mixture), report, should_stop)
    _quieten_lightning()
    trainer = lightning.Trainer(
        max_steps=run.steps,
        accelerator="auto",
        devices=1,
        callbacks=[keeper],
        default_root_dir=directory.path,
        logger=False,
        enable_checkpointing=False,  # RunKeeper writes them: atomically and only after the metrics they stand for
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        use_distributed_sampler=False,
    )
    try:
        if keeper.resume_step < run.steps:
            checkpoint = directory.checkpoint if directory.checkpoint.is_file() else None
            trainer.fit(module, MixtureDataModule(batches), ckpt_path=checkpoint, weights_only=True)
    finally:
        keeper.monitor.close()
    if keeper.step < run.steps:
        return Outcome.INTERRUPTED
    directory.finish(run.steps)
    return Outcome.DONE


class RunKeeper(lightning.Callback):
    """Evaluates on schedule, writes records and checkpoints, and stops at a step boundary when asked."""

    def __init__(
        self,
        run: Run,
        directory: RunDirectory,
        evaluate: Evaluator,
        report: Callable[[Progress], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self.run, self.directory, self.evaluate = run, directory, evaluate
        self.report, self.should_stop = report, should_stop
        self.evaluation_steps = frozenset(run.evaluation.steps(run.steps))
        self.step = self.resume_step = self._checkpointed_step()
        rows = directory.rewind(self.resume_step if self.resume_step else -1)
        clock = (directory.timings() or [{"train_seconds": 0.0, "evaluation_seconds": 0.0}])[-1]
        self.train_seconds, self.evaluation_seconds = clock["train_seconds"], clock["evaluation_seconds"]
        times = [timing["time"] for timing in directory.timings()]
        self.monitor = Monitor(
            directory.tensorboard, [row | {"time": at} for row, at in zip(rows, times, strict=False)]
        )
        self.last_tokens = rows[-1]["tokens"] if rows else 0

    def _checkpointed_step(self) -> int:
        if not self.directory.checkpoint.is_file():
            return 0
        return int(torch.load(self.directory.checkpoint, map_location="cpu", weights_only=True)["global_step"])

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Evaluate the untrained model: the null of every probe."""
        self.mark = time.perf_counter()
        if trainer.global_step == 0:
            self._evaluate(trainer, pl_module)
        else:
            self.report(
                Progress(self.run.name, self.step, self.run.steps, self.directory.rows()[-1]["test_loss"], True)
            )

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The step boundary: everything that is written, is written here."""
        self.step = trainer.global_step
        due = self.step in self.evaluation_steps
        if due:
            self._evaluate(trainer, pl_module)
        stop = self.should_stop() and self.step < self.run.steps
        if due or stop:
            self._save(trainer)
        if stop:
            trainer.should_stop = True

    def _evaluate(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        assert isinstance(module, LanguageModelling)
        begun = time.perf_counter()
        self.train_seconds += begun - self.mark
        tokens = self.step * self.run.sequences_per_step * self.run.context
        row: dict[str, Any] = {"step": self.step, "tokens": tokens, "train_loss": module.take_training_loss()}
        if row["train_loss"] is not None and not torch.isfinite(torch.tensor(row["train_loss"])):
            raise Diverged(f"training loss is {row['train_loss']} by step {self.step}")
        row |= {"learning_rate": trainer.optimizers[0].param_groups[0]["lr"], **self.evaluate(module.model, self.step)}
        rate = (tokens - self.last_tokens) / max(begun - self.mark, 1e-9)
        self.last_tokens = tokens
        self.mark = time.perf_counter()
        self.evaluation_seconds += self.mark - begun
        timing = {
            "step": self.step,
            "time": time.time(),
            "train_seconds": self.train_seconds,
            "evaluation_seconds": self.evaluation_seconds,
            "tokens_per_second": rate if self.step else None,
        }
        self.directory.append(row, timing)
        self.monitor.add(row | timing)
        self.report(Progress(self.run.name, self.step, self.run.steps, row["test_loss"]))

    def _save(self, trainer: lightning.Trainer) -> None:
        path = self.directory.checkpoint
        scratch = path.with_suffix(".tmp")
        trainer.save_checkpoint(scratch)
        with scratch.open("rb") as file:
            os.fsync(file.fileno())
        scratch.replace(path)


def _quieten_lightning() -> None:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
