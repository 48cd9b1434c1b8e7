"""The life of a run directory: start, resume, finish."""

import logging
import math
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

from data_prep.errors import InputError
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
    accelerator: str = "auto",
) -> Outcome:
    """Train `run` in its directory below `study_dir`, from its checkpoint where it has one, to its end.

    `should_stop` is asked after every step; once it says yes the state is saved and the call returns. `accelerator` is
    Lightning's.
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
                return _train(run, store, directory, report, should_stop, accelerator)
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
    accelerator: str,
) -> Outcome:
    module = LanguageModelling(run, store.vocabulary)
    batches = MixtureBatches([(run.mixture(), run.draw(store))], run.sequences_per_step)
    keeper = RunKeeper(run, directory, evaluator(run, store), report, should_stop)
    _quieten_lightning()
    trainer = lightning.Trainer(
        max_steps=run.steps,
        accelerator=accelerator,
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
    directory.finish(keeper.evaluation_steps)
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
        self.evaluation_steps = run.evaluation.steps(run.steps)
        self.step = self.resume_step = self._checkpointed_step()
        expected = [step for step in self.evaluation_steps if step <= self.step] if self.step else []
        rows = directory.rewind(self.step if self.step else -1, expected)
        timings = directory.timings()
        self.monitor = Monitor(directory.tensorboard, [row | timing for row, timing in zip(rows, timings, strict=True)])
        self.train_seconds = self.evaluation_seconds = 0.0

    def _checkpointed_step(self) -> int:
        path = self.directory.checkpoint
        if not path.is_file():
            return 0
        try:
            return int(torch.load(path, map_location="cpu", weights_only=True)["global_step"])
        except Exception as error:  # torch raises almost anything on a damaged file
            raise InputError(
                f"{path}: damaged ({type(error).__name__}); delete it to train the run from its start"
            ) from error

    def state_dict(self) -> dict[str, float]:
        """The clock, kept with the checkpoint."""
        now = time.perf_counter()
        return {"train_seconds": self.train_seconds + now - self.mark, "evaluation_seconds": self.evaluation_seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Set the clock to where the checkpoint was written."""
        self.train_seconds, self.evaluation_seconds = state_dict["train_seconds"], state_dict["evaluation_seconds"]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Evaluate the untrained model: the null of every probe."""
        self.mark, self.mark_step = time.perf_counter(), trainer.global_step
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
        tokens_per_step = self.run.sequences_per_step * self.run.context
        row: dict[str, Any] = {"step": self.step, "tokens": self.step * tokens_per_step}
        row |= {"train_loss": module.take_training_loss(), "learning_rate": trainer.optimizers[0].param_groups[0]["lr"]}
        row |= self.evaluate(module.model, self.step)
        for key, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise Diverged(f"{key} is {value} by step {self.step}")
        rate = (self.step - self.mark_step) * tokens_per_step / max(begun - self.mark, 1e-9)
        self.mark, self.mark_step = time.perf_counter(), self.step
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
