"""The life of run directories: start, resume, finish; of one run, or of several in lockstep."""

import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

from data_prep.errors import InputError
from data_prep.files import AlreadyLocked, exclusive_lock
from data_prep.token_store import TokenStore
from repeat_study.checkpoints.files import checkpointed_step
from repeat_study.checkpoints.parents import FinishedParent, finished_parent, load_parent_weights
from repeat_study.config.resources import Resources, Sharing
from repeat_study.config.run import Run
from repeat_study.model.hardware import multiplies_in, precision_name, uses_cuda
from repeat_study.probes.evaluation import evaluator
from repeat_study.records.evaluations import rewind
from repeat_study.records.outcome import Outcome, Progress
from repeat_study.records.run_directory import RunDirectory
from repeat_study.training.bundles import bundle_key
from repeat_study.training.callback import Diverged, Lane, RunCallback
from repeat_study.training.datamodule import MixtureDataModule
from repeat_study.training.dataset import MixtureDataset, tokens_on_device
from repeat_study.training.distributed import ProcessGroup
from repeat_study.training.lightning_module import LanguageModelling

LARGEST_SHARE = 8  # of a GPU's free memory, the part that a corpus may take there
Ending = Outcome | Exception


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
    ending = train_bundle([run], store, study_dir, report, should_stop, resources)[run.name]
    if isinstance(ending, Exception):
        raise ending
    return ending


def train_bundle(
    runs: Sequence[Run],
    store: TokenStore,
    study_dir: Path,
    report: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    resources: Resources | None = None,
) -> dict[str, Ending]:
    """Train runs of one shape (`bundles.bundle_key`) in lockstep, each in its own directory; says of each how it ended, by name.

    Runs that are done or in training elsewhere are left out. Where checkpoints stand at different steps, those behind go
    first and the others join them. A run that diverges is marked failed and given here as Diverged, one whose directory or
    parent cannot be used as the InputError that says why; the others go on.
    Raises what training raises for them all, after recording it for every run that was not finished.
    """
    resources = resources or Resources()
    directories = {run: RunDirectory(study_dir / run.name) for run in runs}
    process_group = ProcessGroup.from_environment()
    assert len(runs) == 1 or process_group.world == 1, "processes share a run alone"
    assert len({bundle_key(run) for run in runs}) == 1, "lanes are of one shape"
    terminated = threading.Event()  # by SIGTERM, in whichever part of the work it comes
    process_group.join(uses_cuda(resources))
    endings: dict[str, Ending] = {}
    try:
        with ExitStack() as held:
            verdicts: dict[str, Ending] = {run.name: Outcome.FAILED for run in runs}
            try:
                if process_group.is_lead:
                    verdicts = _claimed(directories, store, held)
            finally:
                verdicts = process_group.broadcast(verdicts)
            endings |= verdicts
            todo = [run for run in runs if run.name not in endings]
            try:
                while todo:
                    behind, step, until = furthest_behind(todo, directories, process_group, endings)
                    ready = {}
                    for run in behind:
                        with _of_this_run_alone(run, process_group, endings):
                            ready[run] = _lane(run, directories[run], step, store, resources, process_group)
                    if ready:
                        stop = (should_stop, terminated)
                        _train(
                            list(ready.values()), step, until, store, report, stop, resources, process_group, endings
                        )
                    todo = [run for run in todo if run.name not in endings]
                    if Outcome.INTERRUPTED in endings.values() or terminated.is_set():
                        endings |= dict.fromkeys((run.name for run in todo), Outcome.INTERRUPTED)
                        break
            except InputError:
                raise  # not the runs' fault
            except Exception as error:
                for run in todo if process_group.is_lead else []:
                    if run.name not in endings:
                        with suppress(OSError):  # a full disk must not hide what it caused
                            directories[run].fail(f"{type(error).__name__}: {error}")
                raise
    finally:
        process_group.leave()
    return {run.name: endings[run.name] for run in runs}


def _claimed(directories: dict[Run, RunDirectory], store: TokenStore, held: ExitStack) -> dict[str, Ending]:
    """Make the directories this process's for as long as `held` is open; says of which there is nothing to do, and why."""
    verdicts: dict[str, Ending] = {}
    for run, directory in directories.items():
        try:
            directory.make()
            held.enter_context(exclusive_lock(directory.lock))
            directory.claim(run, store)
        except AlreadyLocked:
            verdicts[run.name] = Outcome.BUSY
            continue
        except InputError as error:
            verdicts[run.name] = error
            continue
        if directory.done.is_file():
            verdicts[run.name] = Outcome.ALREADY_DONE
        else:
            directory.failed.unlink(missing_ok=True)
    return verdicts


def furthest_behind(
    runs: Sequence[Run], directories: dict[Run, RunDirectory], process_group: ProcessGroup, endings: dict[str, Ending]
) -> tuple[list[Run], int, int]:
    """The runs that are furthest behind, the step they stand at, and where the next ones wait for them, or all end; those whose
    checkpoint cannot be read are entered in `endings`."""
    steps: dict[Run, int] = {}
    for run in runs:
        with _of_this_run_alone(run, process_group, endings):
            steps[run] = checkpointed_step(run, directories[run])
    step = min(steps.values(), default=0)
    if (leads := process_group.broadcast(step)) != step:  # of nodes whose view of a shared folder lags
        raise InputError(
            f"{directories[runs[0]].checkpoint}: step {step} here and {leads} where the lead process is; start the run again"
        )
    until = min((ahead for ahead in steps.values() if ahead > step), default=runs[0].steps)
    return [run for run, stands in steps.items() if stands == step], step, until


@contextmanager
def _of_this_run_alone(run: Run, process_group: ProcessGroup, endings: dict[str, Ending]) -> Iterator[None]:
    """Bad input of one run ends that run, not its bundle."""
    try:
        yield
    except InputError as error:
        if process_group.world > 1:  # the others would wait
            raise
        endings[run.name] = error


def _lane(
    run: Run, directory: RunDirectory, step: int, store: TokenStore, resources: Resources, process_group: ProcessGroup
) -> tuple[Lane, FinishedParent | None]:
    """A run that is ready to go on from `step`, and its parent."""
    origin = finished_parent(run, directory.path.parent)
    lane = Lane(run, directory, evaluator(run, store, origin.run if origin else None))
    if process_group.is_lead:
        directory.check_precision(precision_name(resources))
        expected = [due for due in run.evaluation.steps(run.steps) if due <= step] if step else []
        lane.standing = rewind(directory, step or -1, expected)
    return lane, origin


def _train(
    ready: Sequence[tuple[Lane, FinishedParent | None]],
    step: int,
    until: int,
    store: TokenStore,
    report: Callable[[Progress], None],
    stop: tuple[Callable[[], bool], threading.Event],
    resources: Resources,
    process_group: ProcessGroup,
    endings: dict[str, Ending],
) -> None:
    """Train lanes from one step to another, and enter in `endings` what has ended by then."""
    lanes = [lane for lane, _ in ready]
    runs = [lane.run for lane in lanes]
    run = runs[0]
    module = LanguageModelling(runs, store.vocabulary, resources, process_group)
    mixtures = [(one.mixture(), one.draw(store)) for one in runs]
    tokens = None
    if (
        uses_cuda(resources) and process_group.world == 1
    ):  # batches are put together there, and no step waits for the host
        device = torch.device("cuda")
        tokens = tokens_on_device(
            [draw for _, draw in mixtures], device, torch.cuda.mem_get_info(device)[0] // LARGEST_SHARE
        )
    batches = MixtureDataset(mixtures, run.sequences_per_step, process_group.rank, process_group.world, tokens)
    callback = RunCallback(lanes, step, until, resources, process_group, report, *stop)
    for number, (lane, origin) in enumerate(ready if not step else []):
        if origin:
            lane.started_from = load_parent_weights(module.model, origin, number)
    _quieten_lightning()
    trainer = lightning.Trainer(
        max_steps=run.steps,
        accelerator="cuda" if uses_cuda(resources) else "cpu",
        precision="bf16-mixed" if multiplies_in(resources) is torch.bfloat16 else "32-true",
        callbacks=[callback],
        default_root_dir=lanes[0].directory.path,
        logger=False,
        enable_checkpointing=False,  # RunCallback writes them: atomically and only after the metrics they stand for
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        use_distributed_sampler=False,
        # Named, or Lightning would find SLURM around a run and take it for one to requeue and to resume by itself.
        plugins=[
            callback.checkpoint_io,
            TorchElasticEnvironment() if process_group.world > 1 else LightningEnvironment(),
        ],
        **_placement(resources, process_group),
    )
    try:
        if step < run.steps:
            checkpoint = lanes[0].directory.checkpoint if step else None
            data = MixtureDataModule(batches, uses_cuda(resources) and tokens is None)
            with suppress(Diverged):  # the last lane; each is recorded already
                trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
        for lane in callback.alive:
            if lane.tensorboard and callback.step == run.steps:
                lane.tensorboard.finish()
    finally:
        for lane in lanes:
            if lane.tensorboard:
                lane.tensorboard.close()
    for lane in lanes:
        if lane.lost:
            endings[lane.run.name] = lane.lost
        elif callback.step == run.steps:
            if process_group.is_lead:
                lane.directory.finish(callback.evaluation_steps)
            endings[lane.run.name] = Outcome.DONE
        elif callback.was_stopped:
            endings[lane.run.name] = Outcome.INTERRUPTED


def _placement(resources: Resources, process_group: ProcessGroup) -> dict[str, Any]:
    """The Trainer's arguments that say which processes train together, and how."""
    if process_group.world == 1:
        return {"devices": 1}
    # gradient_as_bucket_view: gradients live in the buffers that are exchanged, one copy less of them. Buffers are sums
    # that each process keeps of its own steps, or constants.
    strategy = (
        ModelParallelStrategy(
            data_parallel_size=process_group.world, tensor_parallel_size=1, save_distributed_checkpoint=False
        )
        if resources.sharing is Sharing.FSDP
        else DDPStrategy(gradient_as_bucket_view=True, broadcast_buffers=False)
    )
    return {
        "devices": process_group.local_world,
        "num_nodes": process_group.nodes,
        "strategy": strategy,
    }


def _quieten_lightning() -> None:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
