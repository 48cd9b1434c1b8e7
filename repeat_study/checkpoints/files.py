"""Write, read and verify a run's checkpoint files.

last.ckpt       Lightning's checkpoint, for resuming: `global_step`; `state_dict` with the decoder's weights under "model." and the
                buffers of the Lightning module; `optimizer_states`; `callbacks` with the seconds spent so far; `run`, the identity
                of the run that it belongs to; and `records`, the checksums of the run's records up to this step
step-*.pt       weights kept for probing: `step`, `run`, and `model`, the decoder's state_dict

Tensors keep their lane axis, which has length 1 here, because a checkpoint belongs to one run even if a bundle trained it.
Every file ends with its own checksum; see `checkpoints.checksum`.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_prep.errors import InputError
from data_prep.files import replace_durably
from repeat_study.checkpoints.checksum import DamagedFile, check_checksum, seal
from repeat_study.config.run import Run
from repeat_study.model.decoder import Decoder
from repeat_study.records.run_directory import RunDirectory

Checkpoint = dict[str, Any]
Weights = dict[str, Tensor]
MIN_FREE_BYTES = 1 << 20  # a disk with less free space counts as full
MODEL_PREFIX = "model."  # prefix of the decoder's weights in the state_dict of the Lightning module


def checkpointed_step(run: Run, directory: RunDirectory) -> int:
    """The step of the run's last checkpoint; 0 if there is none.

    Raises InputError if the file is damaged or belongs to another run.
    """
    path = directory.checkpoint
    if not path.is_file():
        return 0
    advice = "delete it to train the run from the beginning"
    try:
        check_checksum(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        step, identity = int(content["global_step"]), content["run"]
    except Exception as error:  # torch raises many types of errors for damaged files
        raise InputError(f"{path}: damaged ({_damage(error)}); {advice}") from error
    if identity != run.identity:
        raise InputError(f"{path}: belongs to another spec ({identity[:8]}); {advice}")
    return step


def checkpointed_digests(directory: RunDirectory) -> Any:
    """The record checksums in the run's last checkpoint; None if an earlier version wrote it. Does not verify the checkpoint."""
    return torch.load(directory.checkpoint, map_location="cpu", weights_only=True, mmap=True).get("records")


def read_weights(path: Path, run: Run) -> tuple[int, Weights]:
    """Read the step and the decoder's weights from last.ckpt or step-*.pt.

    Raises InputError if the file is missing, damaged or belongs to another run.
    """
    if not path.is_file():
        kept = sorted(int(file.stem.removeprefix("step-")) for file in path.parent.glob("step-*.pt"))
        available = f"weights of steps {', '.join(map(str, kept))} were kept" if kept else "no other weights were kept"
        raise InputError(f"{path}: no such checkpoint; {available}; to keep more, use `run --keep-checkpoints`")
    try:
        check_checksum(path)
        content: Checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if "model" in content:
            step, weights = int(content["step"]), content["model"]
        else:
            step, weights = int(content["global_step"]), decoder_weights(content["state_dict"])
        identity = content["run"]
    except Exception as error:  # torch raises many types of errors for damaged files
        raise InputError(f"{path}: damaged ({_damage(error)}), or not a checkpoint of this version") from error
    if identity != run.identity:
        raise InputError(f"{path}: belongs to another spec ({identity[:8]}), not to its run's spec.json")
    return step, weights


def _damage(error: Exception) -> str:
    """Briefly describe why a file could not be read. Torch's own error messages fill a page."""
    return str(error) if isinstance(error, DamagedFile) else type(error).__name__


def decoder_weights(state_dict: Weights) -> Weights:
    """The decoder's state_dict, extracted from the Lightning module's state_dict."""
    return {key.removeprefix(MODEL_PREFIX): value for key, value in state_dict.items() if key.startswith(MODEL_PREFIX)}


def load_weights(model: Decoder, weights: Weights, path: Path, name: str) -> None:
    """Load weights into a model of size `name`. They were read from `path`, which errors refer to.

    Raises InputError if the weights do not fit the model.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(
            f"{path}: weights do not fit a {name} model with a vocabulary of {model.vocabulary}"
        ) from error


def scratch_file(directory: RunDirectory) -> Path:
    """The file that a checkpoint is written to before it replaces the previous one."""
    return directory.checkpoint.with_suffix(".tmp")


def write_scratch(directory: RunDirectory, checkpoint: Checkpoint) -> None:
    """Write a checkpoint to the scratch file. Raises InputError if the file cannot be written."""
    with writing(directory.checkpoint, directory):
        torch.save(checkpoint, scratch_file(directory))


@contextmanager
def writing(path: Path, directory: RunDirectory) -> Iterator[None]:
    """If `path` cannot be written, remove the scratch file and raise InputError with the reason."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "torch could not write it (over quota?)"
        if not isinstance(error, OSError) and shutil.disk_usage(path.parent).free < MIN_FREE_BYTES:
            reason = os.strerror(errno.ENOSPC)  # torch does not report this reason
        scratch_file(directory).unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written: {reason}") from error


def replace_checkpoint(directory: RunDirectory) -> None:
    """Add the checksum to the scratch file, then atomically replace last.ckpt with it."""
    with writing(directory.checkpoint, directory):
        seal(scratch_file(directory))
        replace_durably(scratch_file(directory), directory.checkpoint)


def keep_weights(directory: RunDirectory, run: Run, step: int, weights: Weights) -> None:
    """Atomically write the decoder's weights after `step` steps to step-*.pt, which later checkpoints do not replace."""
    scratch, path = scratch_file(directory), directory.weights_at(step)
    with writing(path, directory):
        torch.save({"step": step, "run": run.identity, "model": weights}, scratch)
        seal(scratch)
        replace_durably(scratch, path)


def weights_sha256(weights: Weights) -> str:
    """SHA-256 of the names and values of all weights, sorted by name, in hex."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
