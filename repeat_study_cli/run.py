"""`repeat-study run`: train a study on this machine."""

import os
import shlex
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repeat_study.config.resources import Keep
from repeat_study.formatting import plural
from repeat_study_cli.arguments import (
    DataOption,
    LanesOption,
    ProcessesOption,
    RunsOption,
    SetOption,
    StudyArgument,
    console,
    cores,
    load,
    prepare_with_progress,
)

if TYPE_CHECKING:
    from repeat_study.config.run import Run
    from repeat_study.config.study import Study
    from repeat_study.preparation import PreparedStudy


def run(
    study: StudyArgument,
    set_: SetOption = None,
    processes: ProcessesOption = None,
    data_dir: DataOption = Path("data"),
    runs_dir: RunsOption = Path("runs"),
    lanes: LanesOption = None,
    keep_checkpoints: Annotated[
        Keep | None,
        typer.Option(
            help="Weights to keep besides the last checkpoint: last (none), log (at log-spaced evaluations) or all."
        ),
    ] = None,
) -> None:
    """Train all unfinished runs in a study on this machine.

    Finished runs are skipped and interrupted runs resume from their last checkpoint, so the command can be repeated at any
    time. Ctrl-C saves all runs before exiting.
    """
    declared = load(study, set_, lanes)
    if keep_checkpoints:
        resources = declared.resources.model_copy(update={"keep_checkpoints": keep_checkpoints})
        declared = declared.model_copy(update={"resources": resources})
    train_with_parents(declared, data_dir, runs_dir, processes, report_arguments(study, set_, runs_dir))


def report_arguments(study: str, set_: "list[str] | None", runs_dir: Path) -> str:
    """The arguments that make `report` find the runs that this command trained."""
    words = [study, *(word for override in set_ or () for word in ("--set", override))]
    return shlex.join(words if runs_dir == Path("runs") else [*words, "--runs-dir", str(runs_dir)])


def train_with_parents(
    declared: "Study", data_dir: Path, runs_dir: Path, processes: int | None, arguments: str
) -> None:
    """Train a study's runs in worker processes. Parent runs from other studies are trained first.

    Parent runs use the resources that their own study declares. `arguments`: the arguments that make `report` find these runs.
    Raises typer.Exit if training was stopped or a run failed.
    """
    console.print(f"{declared.name}: loading torch and checking the token store")  # takes seconds
    from repeat_study.model.hardware import gpus_for
    from repeat_study.records.run_directory import RunDirectory, Status

    console.on_broken_pipe = _train_on  # type: ignore[method-assign]
    for study in declared.lineage:
        gpus_for(study.resources)
    declared.check_sharing(declared.data.expected_vocabulary())
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # saves every run, like Ctrl-C
    ready = prepare_with_progress(declared, data_dir, processes)
    all_done = True
    for stage, runs in ready.ancestors(runs_dir):
        folder = runs_dir / stage.study.name
        if todo := [run for run in runs if RunDirectory(folder / run.name).status() is not Status.DONE]:
            console.print(
                f"training {plural(len(todo), 'run')} in {stage.study.name} first, because runs in {declared.name} start from them"
            )
            all_done &= _train_here(todo, stage, runs_dir, processes)
    resolved = ready.known_runs(runs_dir)
    all_done &= _train_here(resolved.runs, ready, runs_dir, processes)
    if resolved.waiting:  # because a parent has failed
        console.print(f"{plural(len(resolved.waiting), 'more run')} not trained: {resolved.waiting[0]}")
    if resolved.waiting or not all_done:
        raise typer.Exit(1)
    console.print(f"next: repeat-study report {arguments}")


def _train_on() -> None:
    """Discard further output. Called after standard output has been closed, as in `repeat-study run STUDY | head -1`."""
    console.quiet = True
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    line = "repeat-study: standard output was closed; training continues (see `repeat-study status`)"
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _train_here(runs: "list[Run]", ready: "PreparedStudy", runs_dir: Path, processes: int | None) -> bool:
    """Train runs from one study. Returns whether all are done. Raises typer.Exit if training was stopped."""
    from repeat_study.local.progress import ProgressDisplay, summary_lines
    from repeat_study.local.scheduler import LocalScheduler
    from repeat_study.model.hardware import gpus_for
    from repeat_study.records.outcome import Outcome
    from repeat_study.records.recorded_run import final_test_losses
    from repeat_study.records.run_directory import RunDirectory, Status
    from repeat_study.records.tensorboard.arm_means import write_arm_means
    from repeat_study.records.tensorboard.study_page import write_study_page

    folder, resources = runs_dir / ready.study.name, ready.study.resources
    processes, gpus = processes or cores(), gpus_for(resources)
    write_study_page(folder, ready.known_runs(runs_dir).runs)
    for run in runs:
        RunDirectory(folder / run.name).check(run, ready.store)
    _warn_of_missing_weights(runs, ready, folder)
    if all(RunDirectory(folder / run.name).status() is Status.DONE for run in runs):
        write_arm_means(folder, [run.name for run in ready.known_runs(runs_dir).runs])
        console.print(f"{ready.study.name}: {plural(len(runs), 'run')}, all done")
        return True
    workers = plural(gpus, "GPU") if gpus else plural(processes, "process")
    console.print(f"training {plural(len(runs), 'run')} on {workers}; watch with: tensorboard --logdir {folder}")
    start = time.monotonic()
    with ProgressDisplay(runs, console) as display:
        try:
            ended = LocalScheduler(ready.store, folder, processes, display, resources, gpus).train(runs)
        except KeyboardInterrupt:
            console.print("stopped; every run has saved its state and resumes when you repeat the command")
            raise typer.Exit(130) from None
    write_arm_means(folder, [run.name for run in ready.known_runs(runs_dir).runs])
    failures = [end for end in ended.values() if end.outcome not in (Outcome.DONE, Outcome.ALREADY_DONE)]
    for end in failures:
        console.print(f"{end.outcome.value}: {folder / end.run}" + (f": {end.reason}" if end.reason else ""))
    for line in summary_lines(runs, ended, final_test_losses(folder, runs), time.monotonic() - start):
        console.print(line)
    return not failures


def _warn_of_missing_weights(runs: "list[Run]", ready: "PreparedStudy", folder: Path) -> None:
    """Print a warning if finished runs did not keep the weights that `keep_checkpoints` requests."""
    from repeat_study.records.run_directory import RunDirectory, Status

    keep = ready.study.resources.keep_checkpoints
    missing = 0
    for run in runs if keep is not Keep.LAST else []:
        directory = RunDirectory(folder / run.name)
        steps = run.evaluation.steps(run.steps) if keep is Keep.ALL else run.evaluation.log_steps(run.steps)
        if directory.status() is Status.DONE:
            missing += not all(directory.weights_at(step).is_file() for step in steps)
    if missing:
        console.print(
            f"{plural(missing, 'run')} finished without keeping intermediate weights, so --keep-checkpoints {keep} does not"
            " affect them; delete their folders to train them again"
        )
