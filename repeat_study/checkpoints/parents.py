"""Load the final weights of a parent, the finished run that a fine-tuned run starts from."""

from dataclasses import dataclass
from pathlib import Path

from data_prep.errors import InputError
from repeat_study.checkpoints.files import Weights, read_weights, weights_sha256
from repeat_study.config.run import Run
from repeat_study.model.decoder import Decoder
from repeat_study.records.recorded_run import recorded_run
from repeat_study.records.run_directory import RunDirectory, Status


@dataclass(frozen=True)
class FinishedParent:
    """A finished run and the directory that contains its weights."""

    run: Run
    directory: RunDirectory


def finished_parent(run: Run, study_dir: Path) -> FinishedParent | None:
    """The run's parent; None if the run starts from scratch.

    The parent is looked up in its study's folder, which is next to `study_dir`. Raises InputError if the parent is not finished
    or if its directory contains another run.
    """
    if not run.parent:
        return None
    directory = RunDirectory(study_dir.resolve().parent / run.parent.study / run.parent.name)
    if (status := directory.status()) is not Status.DONE:
        reason = f", {directory.failure()}" if status is Status.FAILED else ""
        raise InputError(
            f"{directory.path}: the parent of {run.label} is not finished ({status}{reason}); to train it, use"
            f" `repeat-study run` or `sweep` with the study {run.parent.study}"
        )
    parent = recorded_run(directory)
    if parent.identity != run.parent.identity:
        raise InputError(
            f"{directory.spec}: belongs to the run {parent.identity[:8]}, but the parent of {run.label} is"
            f" {run.parent.identity[:8]}"
        )
    return FinishedParent(parent, directory)


def parent_weights(parent: FinishedParent) -> Weights:
    """The parent's final weights. Raises InputError if they are missing, damaged, or not from the parent's last step."""
    path = parent.directory.checkpoint
    step, weights = read_weights(path, parent.run)
    if step != parent.run.steps:
        raise InputError(f"{path}: weights of step {step} found, but the parent's last step is {parent.run.steps}")
    return weights


def load_parent_weights(model: Decoder, parent: FinishedParent, lane: int = 0) -> str:
    """Copy the parent's final weights into one lane of an untrained model, and return their SHA-256.

    Raises InputError for the same reasons as `parent_weights`, and if the weights do not fit the model.
    """
    weights, state = parent_weights(parent), model.state_dict()
    if {name: value.shape[1:] for name, value in weights.items()} != {
        name: value.shape[1:] for name, value in state.items()
    }:
        path, size = parent.directory.checkpoint, parent.run.model
        raise InputError(f"{path}: weights do not fit a {size} model with a vocabulary of {model.vocabulary}")
    for name, value in weights.items():
        state[name][lane] = value[0]
    return weights_sha256(weights)
