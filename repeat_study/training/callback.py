"""The Lightning callback, which evaluates on schedule, saves checkpoints and stops on request, always between training steps."""

import signal
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

import lightning
import torch

from repeat_study.checkpoints.files import decoder_weights, keep_weights
from repeat_study.checkpoints.lanes import LaneCheckpointIO
from repeat_study.config.resources import Keep
from repeat_study.model.hardware import describe, peak_memory
from repeat_study.probes.evaluation import evaluate_lanes
from repeat_study.probes.probe import Evaluation
from repeat_study.records.completion import AlteredRecord
from repeat_study.records.digests import record_digests
from repeat_study.records.evaluations import append_evaluation
from repeat_study.records.outcome import Progress, reason_of
from repeat_study.training.divergence import Diverged, divergence_in_evaluation, divergence_in_training
from repeat_study.training.lane import Clock, Lane
from repeat_study.training.lightning_module import LanguageModeling
from repeat_study.training.session import Session


class RunCallback(lightning.Callback):
    """Evaluates runs and writes their records and checkpoints, always between steps.

    Metrics are written before the checkpoint of the same step, so every checkpoint has its evaluation. All processes that share a run
    evaluate it, but only the lead process writes. If a lane diverges or another process alters its records, its run is marked as
    failed and nothing more is written about it. The other lanes continue.
    """

    def __init__(
        self, lanes: Sequence[Lane], start: int, until: int, session: Session, checkpoint_io: LaneCheckpointIO
    ) -> None:
        """`start`: the step of all lanes' checkpoints, or 0 if there are none. `until`: the step at which to save and stop."""
        self.lanes, self.step, self.until = lanes, start, until
        self.session, self.checkpoint_io = session, checkpoint_io
        self.is_lead = session.process_group.is_lead
        self.run = lanes[0].run  # used for the fields that all runs in a bundle share
        schedule = self.run.evaluation
        self.evaluation_steps = schedule.steps(self.run.steps)
        keep = session.resources.keep_checkpoints
        kept = {Keep.LAST: [], Keep.LOG: schedule.log_steps(self.run.steps), Keep.ALL: self.evaluation_steps}[keep]
        self._due, self._kept = frozenset(self.evaluation_steps), frozenset(kept)
        self._caller_handler = signal.getsignal(signal.SIGTERM)
        self._clock_read = 0.0  # time at which the clocks were last updated
        self._evaluated_step = 0  # step of the last evaluation, or the first step of this session

    @property
    def running(self) -> list[Lane]:
        """Lanes that have not failed."""
        return [lane for lane in self.lanes if not lane.failure]

    @property
    def was_stopped(self) -> bool:
        """Whether training stopped before it reached `until`."""
        return self.step < self.until

    def state_dict(self) -> dict[str, Any]:
        """The clocks to save in the checkpoint. In a bundle, each entry lists every lane's seconds."""
        self._add_time("train")
        clocks = [vars(lane.clock) for lane in self.lanes]
        return dict(clocks[0]) if len(clocks) == 1 else {name: [clock[name] for clock in clocks] for name in clocks[0]}

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the checksums of the run's records, or of each lane's records."""
        digests = [lane.digests for lane in self.lanes]
        checkpoint["records"] = digests if len(digests) > 1 else digests[0]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the clocks from the checkpoints."""
        bundled = len(self.lanes) > 1
        for number, lane in enumerate(self.lanes):
            lane.clock = Clock(**{name: value[number] if bundled else value for name, value in state_dict.items()})

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Record the session. Then evaluate the untrained models, or report the step at which the runs resume."""
        if threading.current_thread() is threading.main_thread():
            # Replace the handler that Lightning has just installed, because it would raise SystemExit without saving anything.
            signal.signal(signal.SIGTERM, self._on_sigterm)
        group = self.session.process_group
        machine = describe(pl_module.device, self.session.resources, group.world)
        self.peak_flops = machine["peak_flops"]
        # On a GPU or with several processes, a check at every step would slow training down.
        self.check_each_step = pl_module.device.type == "cpu" and group.world == 1
        self._evaluated_step, self._clock_read = trainer.global_step, time.perf_counter()
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)
        for lane in self.lanes if self.is_lead else []:
            row = {"step": trainer.global_step, "time": time.time(), **machine, "lanes": len(self.lanes)}
            if lane.parent_sha256:
                row["parent_weights_sha256"] = lane.parent_sha256
            lane.directory.add_session(row)
        if trainer.global_step == 0:
            self._evaluate(trainer, pl_module)
        else:
            for lane in self.lanes:
                loss = lane.directory.rows()[-1]["test_loss"]
                self.session.report(Progress(lane.run.name, self.step, self.run.steps, loss, resumed=True))

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After a step, check for divergence, evaluate, save and stop, each only if it is due."""
        self.step = trainer.global_step
        due = self.step in self._due
        stop_requested = self.session.process_group.any(self.session.stop_requested())
        stop = (stop_requested or self.step >= self.until) and self.step < self.run.steps
        if due or stop:
            self.session.check_store()  # before writing anything about steps that may have used altered tokens
        if due or stop or self.check_each_step:
            self._check_training_loss(pl_module)
        if due:
            self._evaluate(trainer, pl_module)
        if due and len(self.running) < len(self.lanes) and self.step < self.run.steps:
            # Stop here, so that the other lanes continue in a bundle without the failed one.
            self.until, stop = min(self.step, self.until), True
        if due or stop:
            self._save(trainer, pl_module)
        if stop:
            trainer.should_stop = True

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        self.session.terminated.set()
        if callable(self._caller_handler):
            self._caller_handler(number, frame)

    def _add_time(self, account: str) -> float:
        """Add the seconds since the last call to every lane's clock, because all lanes run together. Returns these seconds."""
        now = time.perf_counter()
        seconds, self._clock_read = now - self._clock_read, now
        for lane in self.lanes:
            lane.clock.add(account, seconds)
        return seconds

    def _check_training_loss(self, module: lightning.LightningModule) -> None:
        assert isinstance(module, LanguageModeling)
        out_of_range = module.left_range[:, 0] > 0
        if not self.session.process_group.any(bool(out_of_range.any())):
            return
        for lane, diverged_here, (step, loss, norm) in zip(
            self.lanes, out_of_range.tolist(), module.left_range.tolist(), strict=True
        ):
            # If the only lane is in range on this process, it must be out of range on another one.
            if (diverged_here or len(self.lanes) == 1) and not lane.failure:
                self._give_up(lane, divergence_in_training(int(step) or self.step, loss, norm, module.largest_loss))

    def _give_up(self, lane: Lane, error: Diverged | AlteredRecord) -> None:
        """Mark a run as failed. Raises the error if no other lane is left."""
        lane.failure = error
        self.checkpoint_io.drop(self.lanes.index(lane))
        if self.is_lead:
            step = error.step if isinstance(error, Diverged) else self.step
            lane.directory.fail(reason_of(error), step)
        if lane.tensorboard:
            lane.tensorboard.finish(succeeded=False)
        if not self.running:
            raise error

    def _evaluate(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        assert isinstance(module, LanguageModeling)
        means = module.pop_means()  # waits until a GPU has finished its steps, so the clock includes them
        seconds = self._add_time("train")
        trained_tokens = (self.step - self._evaluated_step) * self.run.tokens_per_step
        self._evaluated_step = self.step
        with trainer.precision_plugin.forward_context():
            evaluations = evaluate_lanes([lane.evaluator for lane in self.lanes], module.model, self.step)
        rows = []
        for number, lane in enumerate(self.lanes):
            row: dict[str, Any] = {"step": self.step, "tokens": self.step * self.run.tokens_per_step}
            row |= means[number] | {"learning_rate": module.learning_rate(self.step, number)} | evaluations[number].row
            rows.append(row)
            if not lane.failure and (error := divergence_in_evaluation(row, self.step, module.largest_loss)):
                self._give_up(lane, error)
        self._add_time("evaluation")
        tokens_per_second = trained_tokens / seconds if trained_tokens else None
        for lane, row, evaluation in zip(self.lanes, rows, evaluations, strict=True):
            if not lane.failure:
                self._record(lane, row, evaluation, tokens_per_second, module)

    def _record(
        self, lane: Lane, row: dict[str, Any], evaluation: Evaluation, rate: float | None, module: LanguageModeling
    ) -> None:
        """Write and report one lane's evaluation. `rate`: the lane's training speed in tokens per second."""
        seconds_left = self._seconds_left(rate, lane.clock) if rate else None
        timing = {
            "step": self.step,
            "time": time.time(),
            "train_seconds": lane.clock.train,
            "evaluation_seconds": lane.clock.evaluation,
            "saving_seconds": lane.clock.saving,
            "tokens_per_second": rate,
            "utilisation": rate and rate * len(self.running) * module.flops_per_token / self.peak_flops,
            "memory_bytes": peak_memory(module.device),
            "lanes": len(self.lanes),
            "seconds_left": seconds_left,
        }
        if lane.tensorboard and lane.watch:
            try:
                lane.watch.check()
            except AlteredRecord as error:
                self._give_up(lane, error)
                return
            append_evaluation(lane.directory, row, timing, evaluation.tables)
            lane.watch.remember()
            lane.digests = record_digests(lane.directory, self.step)
            lane.tensorboard.add(row | timing, evaluation.tables.get("heads", {}))
        loss = row["test_loss"]
        self.session.report(Progress(lane.run.name, self.step, self.run.steps, loss, False, rate, seconds_left))

    def _seconds_left(self, tokens_per_second: float, clock: Clock) -> float:
        """Estimate the remaining time from the speed since the last evaluation and the mean time that evaluations and saves take."""
        remaining = sum(step > self.step for step in self.evaluation_steps)
        completed = len(self.evaluation_steps) - remaining
        training = (self.run.steps - self.step) * self.run.tokens_per_step / tokens_per_second
        return training + (clock.evaluation + clock.saving) / completed * remaining

    def _save(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        assert isinstance(module, LanguageModeling)
        module.share_means()
        trainer.save_checkpoint(self.lanes[0].directory.checkpoint)  # LaneCheckpointIO writes one checkpoint per lane
        if self.step in self._kept:
            weights = decoder_weights(trainer.strategy.lightning_module_state_dict())  # gathers sharded weights
            for number, lane in enumerate(self.lanes if self.is_lead else []):
                if not lane.failure:
                    lane_weights = {key: value[number : number + 1].clone() for key, value in weights.items()}
                    keep_weights(lane.directory, lane.run, self.step, lane_weights)
        self._add_time("saving")
