"""The Lightning callback that keeps the records of runs in training: evaluates on schedule, saves, and stops at a step boundary."""

import math
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import lightning
import torch

from repeat_study.checkpoints.files import decoder_weights, keep_weights
from repeat_study.checkpoints.lanes import LaneCheckpointIO
from repeat_study.config.resources import Keep, Resources
from repeat_study.config.run import Run
from repeat_study.model.hardware import describe, peak_memory
from repeat_study.probes.evaluation import Evaluator, evaluate_lanes
from repeat_study.probes.probe import Evaluation
from repeat_study.records.evaluations import append_evaluation, heads_of
from repeat_study.records.outcome import Progress
from repeat_study.records.run_directory import RunDirectory
from repeat_study.records.tensorboard.run_writer import TensorBoardWriter
from repeat_study.training.distributed import ProcessGroup
from repeat_study.training.lightning_module import LanguageModelling, same_recipe


class Diverged(RuntimeError):
    """A loss that is no finite number, or above anything that training can mean."""

    def __init__(self, what: str, step: int) -> None:
        super().__init__(what)
        self.step = step


@dataclass
class Clock:
    """Where a run's seconds went, over all of its sessions."""

    train: float = 0.0
    evaluation: float = 0.0
    saving: float = 0.0

    def charge(self, account: str, spent: float) -> None:
        """Book seconds."""
        setattr(self, account, getattr(self, account) + spent)


@dataclass
class Lane:
    """One run of those in training, and what is written about it."""

    run: Run
    directory: RunDirectory
    evaluator: Evaluator
    started_from: str | None = None  # digest of the parent's weights that this session began with
    clock: Clock = field(default_factory=Clock)
    standing: list[dict[str, Any]] = field(default_factory=list)  # its evaluations up to where it goes on from
    tensorboard: TensorBoardWriter | None = None
    lost: Diverged | None = None  # since when nothing is written of it any more


class RunCallback(lightning.Callback):
    """Everything that is written about runs in training, is written here, at the boundary between two steps.

    Processes that share a run all evaluate; the lead alone writes. Of runs that share a process, one that diverges is marked
    failed and written about no more, and the others go on.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        step: int,
        until: int,
        resources: Resources,
        process_group: ProcessGroup,
        report: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        terminated: threading.Event,
    ) -> None:
        """`step`: where the checkpoints of all lanes stand; `until`: where training stops, saved, if it does not before;
        `terminated` is set by SIGTERM."""
        self.lanes, self.step, self.until = lanes, step, until
        self.run = lanes[0].run  # what all have in common is said by the first
        self.resources, self.process_group, self.report, self.should_stop = (
            resources,
            process_group,
            report,
            should_stop,
        )
        self.evaluation_steps = self.run.evaluation.steps(self.run.steps)
        kept = {Keep.LAST: [], Keep.LOG: self.run.evaluation.log_steps(self.run.steps), Keep.ALL: self.evaluation_steps}
        self._due, self._kept = frozenset(self.evaluation_steps), frozenset(kept[resources.keep_checkpoints])
        self.checkpoint_io = LaneCheckpointIO(
            [lane.directory for lane in lanes], same_recipe([lane.run for lane in lanes])
        )
        self._terminated = terminated
        self._handler = signal.getsignal(signal.SIGTERM)  # the caller's own, which is told too
        self._mark = 0.0  # when time was last booked
        for lane in lanes if process_group.is_lead else []:
            shown = [row | timing for row, timing in zip(lane.standing, lane.directory.timings(), strict=True)]
            heads = heads_of(lane.directory, lane.standing)
            lane.tensorboard = TensorBoardWriter(lane.directory.path, lane.run, zip(shown, heads, strict=True))

    @property
    def alive(self) -> list[Lane]:
        """Lanes that have not diverged."""
        return [lane for lane in self.lanes if not lane.lost]

    def _charge(self, account: str) -> float:
        """Book the time since the last booking, which all lanes spent together; returns it, in seconds."""
        now = time.perf_counter()
        spent, self._mark = now - self._mark, now
        for lane in self.lanes:
            lane.clock.charge(account, spent)
        return spent

    def state_dict(self) -> dict[str, Any]:
        """The clocks, kept with the checkpoint: seconds, or a list of each lane's."""
        self._charge("train")
        clocks = [vars(lane.clock) for lane in self.lanes]
        return dict(clocks[0]) if len(clocks) == 1 else {name: [clock[name] for clock in clocks] for name in clocks[0]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Set the clocks to where the checkpoints were written."""
        for number, lane in enumerate(self.lanes):
            several = len(self.lanes) > 1
            lane.clock = Clock(**{name: value[number] if several else value for name, value in state_dict.items()})

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Evaluate the untrained models, the null of every probe; or say from where the runs go on."""
        if threading.current_thread() is threading.main_thread():
            # Lightning's own handler, installed before this hook, would leave by SystemExit with nothing saved.
            signal.signal(signal.SIGTERM, self._terminate)
        machine = describe(pl_module.device, self.resources, self.process_group.world)
        self.peak_flops = machine["peak_flops"]
        self.check_each_step = (
            pl_module.device.type == "cpu" and self.process_group.world == 1
        )  # elsewhere that would wait
        self.mark_step, self._mark = trainer.global_step, time.perf_counter()
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)
        if self.process_group.is_lead:
            for lane in self.lanes:
                began = {"step": trainer.global_step, "time": time.time(), **machine, "lanes": len(self.lanes)}
                if lane.started_from:
                    began["parent_weights_sha256"] = lane.started_from
                lane.directory.add_session(began)
        if trainer.global_step == 0:
            self._evaluate(trainer, pl_module)
        else:
            for lane in self.lanes:
                loss = lane.directory.rows()[-1]["test_loss"]
                self.report(Progress(lane.run.name, self.step, self.run.steps, loss, resumed=True))

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        self._terminated.set()
        if callable(self._handler):
            self._handler(number, frame)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The step boundary."""
        self.step = trainer.global_step
        due = self.step in self._due
        asked = self.process_group.any(self.should_stop() or self._terminated.is_set()) or self.step >= self.until
        stop = asked and self.step < self.run.steps
        if due or stop or self.check_each_step:
            self._check(pl_module)
        if due:
            self._evaluate(trainer, pl_module)
        if due and len(self.alive) < len(self.lanes) and self.step < self.run.steps:
            self.until, stop = min(self.step, self.until), True  # the living go on without the lost ones
        if due or stop:
            self._save(trainer, pl_module)
        if stop:
            trainer.should_stop = True

    @property
    def was_stopped(self) -> bool:
        """Whether training ended because somebody asked it to."""
        return self.step < self.until

    def _lose(self, lane: Lane, why: Diverged) -> None:
        """Give a diverged run up; raises what became of it where it was the last."""
        lane.lost = why
        self.checkpoint_io.drop(self.lanes.index(lane))
        if self.process_group.is_lead:
            lane.directory.fail(f"{type(why).__name__}: {why}", why.step)
        if lane.tensorboard:
            lane.tensorboard.finish(succeeded=False)
        if not self.alive:
            raise why

    def _check(self, module: lightning.LightningModule) -> None:
        assert isinstance(module, LanguageModelling)
        left = module.left_range[:, 0] > 0
        if not self.process_group.any(bool(left.any())):
            return
        for lane, has_left, (step, loss, norm) in zip(
            self.lanes, left.tolist(), module.left_range.tolist(), strict=True
        ):
            if (has_left or len(self.lanes) == 1) and not lane.lost:
                what = f"training loss {loss:.4g} nats, gradient norm {norm:.3g}; accepted is a loss up to {module.largest_loss:.4g}"
                self._lose(lane, Diverged(what, int(step) or self.step))

    def _evaluate(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        assert isinstance(module, LanguageModelling)
        means = module.take_means()  # waits for a GPU to finish its steps, so that the clock counts them
        seconds = self._charge("train")
        trained = (self.step - self.mark_step) * self.run.tokens_per_step
        self.mark_step = self.step
        with trainer.precision_plugin.forward_context():
            found = evaluate_lanes([lane.evaluator for lane in self.lanes], module.model, self.step)
        rows = []
        for number, lane in enumerate(self.lanes):
            row: dict[str, Any] = {"step": self.step, "tokens": self.step * self.run.tokens_per_step}
            row |= means[number] | {"learning_rate": module.learning_rate(self.step, number)} | found[number].row
            rows.append(row)
            if not lane.lost and (why := self._out_of_range(row, module.largest_loss)):
                self._lose(lane, why)
        self._charge("evaluation")
        rate = trained / seconds if trained else None
        for lane, row, one in zip(self.lanes, rows, found, strict=True):
            if not lane.lost:
                self._record(lane, row, one, rate, module)

    def _out_of_range(self, row: dict[str, Any], largest_loss: float) -> Diverged | None:
        for key, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                return Diverged(f"{key} is {value}", self.step)
        # A model that memorises may know nothing else; one that knows neither is ruined, and must not be saved.
        if min(row["test_loss"], row["pool_loss"]) > largest_loss:
            what = f"test loss {row['test_loss']:.4g} and pool loss {row['pool_loss']:.4g} nats"
            return Diverged(f"{what}; accepted is up to {largest_loss:.4g}", self.step)
        return None

    def _record(
        self, lane: Lane, row: dict[str, Any], found: Evaluation, rate: float | None, module: LanguageModelling
    ) -> None:
        left = self._seconds_left(rate, lane.clock) if rate else None
        timing = {
            "step": self.step,
            "time": time.time(),
            "train_seconds": lane.clock.train,
            "evaluation_seconds": lane.clock.evaluation,
            "saving_seconds": lane.clock.saving,
            "tokens_per_second": rate,
            "utilisation": rate and rate * len(self.alive) * module.flops_per_token / self.peak_flops,
            "memory_bytes": peak_memory(module.device),
            "lanes": len(self.lanes),
            "seconds_left": left,
        }
        if lane.tensorboard:
            append_evaluation(lane.directory, row, timing, found.heads, found.paragraph)
            lane.tensorboard.add(row | timing, found.heads)
        self.report(Progress(lane.run.name, self.step, self.run.steps, row["test_loss"], False, rate, left))

    def _seconds_left(self, tokens_per_second: float, clock: Clock) -> float:
        """At the pace of the steps since the last evaluation, and with evaluations and saves as they were on average."""
        ahead = [step for step in self.evaluation_steps if step > self.step]
        behind = len(self.evaluation_steps) - len(ahead)
        training = (self.run.steps - self.step) * self.run.tokens_per_step / tokens_per_second
        return training + (clock.evaluation + clock.saving) / behind * len(ahead)

    def _save(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        assert isinstance(module, LanguageModelling)
        module.share_means()
        trainer.save_checkpoint(self.lanes[0].directory.checkpoint)  # and every other lane's
        if self.step in self._kept:
            weights = decoder_weights(trainer.strategy.lightning_module_state_dict())  # whole, also if they are sharded
            for number, lane in enumerate(self.lanes if self.process_group.is_lead else []):
                if not lane.lost:
                    own = {key: value[number : number + 1].clone() for key, value in weights.items()}
                    keep_weights(lane.directory, lane.run, self.step, own)
        self._charge("saving")
