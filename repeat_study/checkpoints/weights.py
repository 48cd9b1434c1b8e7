"""A run's weights as its checkpoints keep them, whose they are, and those that a fine-tuned run starts from."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_prep.errors import InputError
from data_prep.files import read_record
from repeat_study.config.run import RESULT_FORMAT, Run, run_of
from repeat_study.model.decoder import Decoder
from repeat_study.records.run_directory import RunDirectory, Status

Weights = dict[str, Tensor]


def recorded_run(directory: RunDirectory) -> Run:
    """The run that a directory's spec.json declares; InputError where there is none, or of another version."""
    if not directory.spec.is_file():
        raise InputError(f"{directory.path}: no run here (no spec.json); accepted is a run's folder, runs/STUDY/RUN")
    record = read_record(directory.spec, "format", "identity")
    if record["format"] != RESULT_FORMAT:
        raise InputError(f"{directory.spec}: of format {record['format']}; this version reads {RESULT_FORMAT}")
    run = run_of(record, directory.spec)
    if run.identity != record["identity"]:
        raise InputError(
            f"{directory.spec}: altered since it was written; its fields are not those of {record['identity'][:8]}"
        )
    return run


def read_weights(path: Path, run: Run) -> tuple[int, Weights]:
    """Step and decoder's state_dict of last.ckpt or of weights that were kept. Raises InputError where there are none, or not
    the run's."""
    if not path.is_file():
        kept = sorted(int(other.stem.removeprefix("step-")) for other in path.parent.glob("step-*.pt"))
        known = f"kept are the steps {', '.join(map(str, kept))}" if kept else "no step's weights were kept"
        raise InputError(f"{path}: no such checkpoint; {known}, `run --keep-checkpoints` keeps them")
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        step = int(content["step"] if "step" in content else content["global_step"])
        weights = (
            content["model"]
            if "model" in content
            else {
                key.removeprefix("model."): value
                for key, value in content["state_dict"].items()
                if key.startswith("model.")
            }
        )
        identity = content["run"]
    except Exception as error:  # torch raises almost anything on a damaged file
        raise InputError(f"{path}: damaged ({type(error).__name__}), or not a checkpoint of this version") from error
    if identity != run.identity:
        raise InputError(f"{path}: a checkpoint of another spec ({identity[:8]}) than the spec.json beside it")
    return step, weights


def load_weights(model: Decoder, weights: Weights, path: Path, name: str) -> None:
    """Put weights of a checkpoint into a model; InputError where its shape or vocabulary is another one."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{path}: not weights of a {name} with a vocabulary of {model.vocabulary}") from error


def finished_parent(run: Run, study_dir: Path) -> tuple[RunDirectory, Run] | None:
    """The directory and the spec of the run's parent, which lies in the folder of its own study beside `study_dir`.

    None where the run starts from scratch. Raises InputError where the parent is not finished or is another run.
    """
    if not run.parent:
        return None
    directory = RunDirectory(study_dir.resolve().parent / run.parent.study / run.parent.name)
    if (status := directory.status()) is not Status.DONE:
        why = f", {directory.failure()}" if status is Status.FAILED else ""
        raise InputError(
            f"{directory.path}: the parent of {run.label} is not finished ({status}{why}); `repeat-study run` and `sweep` of"
            f" {run.parent.study} train it"
        )
    parent = recorded_run(directory)
    if parent.identity != run.parent.identity:
        raise InputError(
            f"{directory.spec}: another run ({parent.identity[:8]}) than the parent of {run.label} ({run.parent.identity[:8]})"
        )
    return directory, parent


def start_from(model: Decoder, directory: RunDirectory, parent: Run, lane: int = 0) -> str:
    """Put a finished parent's last weights into a lane of an untrained model; returns their digest.

    Raises InputError where they are not there, damaged, not from the parent's last step or of another shape.
    """
    step, weights = read_weights(directory.checkpoint, parent)
    if step != parent.steps:
        raise InputError(f"{directory.checkpoint}: of step {step}, the parent has {parent.steps}")
    own = model.state_dict()
    if {name: value.shape[1:] for name, value in weights.items()} != {
        name: value.shape[1:] for name, value in own.items()
    }:
        raise InputError(
            f"{directory.checkpoint}: not weights of a {parent.model} with a vocabulary of {model.vocabulary}"
        )
    for name, value in weights.items():
        own[name][lane] = value[0]
    return digest(weights)


def digest(weights: Weights) -> str:
    """SHA-256 of all weights by name, as hex."""
    found = hashlib.sha256()
    for name in sorted(weights):
        found.update(name.encode())
        found.update(weights[name].detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
