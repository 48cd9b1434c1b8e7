"""The Lightning callback that keeps a run's records: evaluates on schedule, saves, and stops at a step boundary."""

import math
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import lightning
import torch

from data_prep.errors import InputError
from data_prep.files import settle
from repeat_study.distributed import Team
from repeat_study.evaluation import Evaluator
from repeat_study.hardware import describe, peak_memory
from repeat_study.monitoring import Monitor
from repeat_study.outcome import Progress
from repeat_study.records import RunDirectory
from repeat_study.resources import Keep, Resources
from repeat_study.run import Run
from repeat_study.training import LanguageModelling


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
    mark: float = 0.0

    def charge(self, account: str) -> float:
        """Book the time since the last booking; returns it, in seconds."""
        now = time.perf_counter()
        spent, self.mark = now - self.mark, now
        setattr(self, account, getattr(self, account) + spent)
        return spent


class RunKeeper(lightning.Callback):
    """Everything that is written about a run in training, is written here, at the boundary between two steps.

    Processes that share the run all evaluate; the lead alone writes.
    """

    def __init__(
        self,
        run: Run,
        directory: RunDirectory,
        evaluate: Evaluator,
        resources: Resources,
        team: Team,
        report: Callable[[Progress], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self.run, self.directory, self.evaluate = run, directory, evaluate
        self.resources, self.team, self.report, self.should_stop = resources, team, report, should_stop
        self.evaluation_steps = run.evaluation.steps(run.steps)
        kept = {Keep.LAST: [], Keep.LOG: run.evaluation.log_steps(run.steps), Keep.ALL: self.evaluation_steps}
        self._due, self._kept = frozenset(self.evaluation_steps), frozenset(kept[resources.keep_checkpoints])
        self.step = self.resume_step = self._checkpointed_step()
        if (leads := team.told(self.step)) != self.step:  # of nodes whose view of a shared folder lags
            raise InputError(
                f"{directory.checkpoint}: step {self.step} here and {leads} where the lead process is; start the run again"
            )
        self._terminated = threading.Event()
        self._handler = signal.getsignal(signal.SIGTERM)  # the caller's own, which is told too
        self.clock = Clock()
        self.started_from: str | None = None  # digest of the parent's weights that this session began with
        self.monitor: Monitor | None = None
        if team.leads:
            expected = [step for step in self.evaluation_steps if step <= self.step] if self.step else []
            rows = directory.rewind(self.step if self.step else -1, expected)
            shown = [row | timing for row, timing in zip(rows, directory.timings(), strict=True)]
            self.monitor = Monitor(directory.path, run, zip(shown, directory.heads_of(rows), strict=True))

    def _checkpointed_step(self) -> int:
        path = self.directory.checkpoint
        if not path.is_file():
            return 0
        mend = "delete it to train the run from its start"
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            step, identity = int(content["global_step"]), content["run"]
        except Exception as error:  # torch raises almost anything on a damaged file
            raise InputError(f"{path}: damaged ({type(error).__name__}); {mend}") from error
        if identity != self.run.identity:
            raise InputError(f"{path}: a checkpoint of another spec ({identity[:8]}); {mend}")
        return step

    def state_dict(self) -> dict[str, float]:
        """The clock, kept with the checkpoint."""
        self.clock.charge("train")
        return {"train": self.clock.train, "evaluation": self.clock.evaluation, "saving": self.clock.saving}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Set the clock to where the checkpoint was written."""
        self.clock = Clock(**state_dict)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Evaluate the untrained model, the null of every probe; or say from where the run goes on."""
        if threading.current_thread() is threading.main_thread():
            # Lightning's own handler, installed before this hook, would leave by SystemExit with nothing saved.
            signal.signal(signal.SIGTERM, self._terminate)
        machine = describe(pl_module.device, self.resources, self.team.world)
        self.peak_flops = machine["peak_flops"]
        self.check_each_step = pl_module.device.type == "cpu" and self.team.world == 1  # elsewhere that would wait
        self.mark_step, self.clock.mark = trainer.global_step, time.perf_counter()
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)
        if self.team.leads:
            began = {"step": trainer.global_step, "time": time.time(), **machine}
            if self.started_from:
                began["parent_weights_sha256"] = self.started_from
            self.directory.begin(began)
        if trainer.global_step == 0:
            self._evaluate(trainer, pl_module)
        else:
            loss = self.directory.rows()[-1]["test_loss"]
            self.report(Progress(self.run.name, self.step, self.run.steps, loss, resumed=True))

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
        stop = self.team.any(self.should_stop() or self._terminated.is_set()) and self.step < self.run.steps
        if due or stop or self.check_each_step:
            self._check(pl_module)
        if due:
            self._evaluate(trainer, pl_module)
        if due or stop:
            self._save(trainer, pl_module)
        if stop:
            trainer.should_stop = True

    def _check(self, module: lightning.LightningModule) -> None:
        assert isinstance(module, LanguageModelling)
        if self.team.any(bool(module.left_range[0] > 0)):
            step, loss, norm = module.left_range.tolist()
            what = f"training loss {loss:.4g} nats, gradient norm {norm:.3g}; accepted is a loss up to {module.largest_loss:.4g}"
            raise Diverged(what, int(step) or self.step)

    def _evaluate(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        assert isinstance(module, LanguageModelling)
        means = module.take_means()  # waits for a GPU to finish its steps, so that the clock counts them
        seconds = self.clock.charge("train")
        trained = (self.step - self.mark_step) * self.run.tokens_per_step
        self.mark_step = self.step
        row: dict[str, Any] = {"step": self.step, "tokens": self.step * self.run.tokens_per_step}
        row |= means
        row |= {"learning_rate": module.learning_rate(self.step)}
        with trainer.precision_plugin.forward_context():
            found = self.evaluate(module.model, self.step)
        row |= found.row
        for key, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise Diverged(f"{key} is {value}", self.step)
        # A model that memorises may know nothing else; one that knows neither is ruined, and must not be saved.
        if min(row["test_loss"], row["pool_loss"]) > module.largest_loss:
            what = f"test loss {row['test_loss']:.4g} and pool loss {row['pool_loss']:.4g} nats"
            raise Diverged(f"{what}; accepted is up to {module.largest_loss:.4g}", self.step)
        self.clock.charge("evaluation")
        rate = trained / seconds if trained else None
        left = self._seconds_left(rate) if rate else None
        timing = {
            "step": self.step,
            "time": time.time(),
            "train_seconds": self.clock.train,
            "evaluation_seconds": self.clock.evaluation,
            "saving_seconds": self.clock.saving,
            "tokens_per_second": rate,
            "utilisation": rate and rate * module.flops_per_token / self.peak_flops,
            "memory_bytes": peak_memory(module.device),
            "seconds_left": left,
        }
        if self.monitor:
            self.directory.append(row, timing, found.heads, found.paragraph)
            self.monitor.add(row | timing, found.heads)
        self.report(Progress(self.run.name, self.step, self.run.steps, row["test_loss"], False, rate, left))

    def _seconds_left(self, tokens_per_second: float) -> float:
        """At the pace of the steps since the last evaluation, and with evaluations and saves as they were on average."""
        ahead = [step for step in self.evaluation_steps if step > self.step]
        behind = len(self.evaluation_steps) - len(ahead)
        training = (self.run.steps - self.step) * self.run.tokens_per_step / tokens_per_second
        return training + (self.clock.evaluation + self.clock.saving) / behind * len(ahead)

    def _save(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        assert isinstance(module, LanguageModelling)
        module.share_means()
        path = self.directory.checkpoint
        scratch = path.with_suffix(".tmp")
        trainer.save_checkpoint(scratch)
        if self.team.leads:
            settle(scratch, path)
        if self.step in self._kept:
            weights = trainer.strategy.lightning_module_state_dict()  # whole, also where they are sharded
            if self.team.leads:
                model = {
                    key.removeprefix("model."): value for key, value in weights.items() if key.startswith("model.")
                }
                torch.save({"step": self.step, "run": self.run.identity, "model": model}, scratch)
                settle(scratch, self.directory.weights_at(self.step))
        self.clock.charge("saving")
