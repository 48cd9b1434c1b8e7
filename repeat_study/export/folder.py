"""Write a run's model at one step as a Hugging Face folder: DIR/step-N with the model, its tokenizer, a model card and spec.json."""

import errno
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save

from data_prep.errors import InputError
from data_prep.files import json_text
from data_prep.token_store import TOKENIZER, TokenStore
from repeat_study.checkpoints.files import checkpointed_step
from repeat_study.export.hugging_face import MODELING, configuration, weights
from repeat_study.export.model_card import model_card
from repeat_study.probes.checkpoint_probe import TrainedModel, load_trained
from repeat_study.records.recorded_run import recorded_run
from repeat_study.records.run_directory import RunDirectory


def kept_steps(directory: RunDirectory) -> list[int]:
    """The steps whose weights were kept, including the step of the last checkpoint."""
    names = [path.name for path in directory.checkpoint.parent.glob("step-*.pt")]
    steps = {int(match[1]) for name in names if (match := re.fullmatch(r"step-(\d+)\.pt", name))}
    last = checkpointed_step(recorded_run(directory), directory)
    return sorted(steps | {last} - {0})


def load_step(directory: RunDirectory, data_dir: Path, step: int | None) -> TrainedModel:
    """Load the model at `step`, from the last checkpoint if that is its step. None: load the last checkpoint.

    Raises InputError for the same reasons as `load_trained`.
    """
    is_last = step == checkpointed_step(recorded_run(directory), directory)
    return load_trained(directory.path, data_dir, None if is_last else step)


def export(trained: TrainedModel, directory: RunDirectory, parent: Path) -> Path:
    """Write the folder step-N into `parent` and return its path. The folder appears only when it is complete.

    The same model always produces the same bytes. Raises InputError if the folder exists and is not empty, or cannot be written.
    """
    target = target_of(parent, trained.step)
    require_new(target)
    write_folder(target, files_of(trained, directory))
    return target


def target_of(parent: Path, step: int) -> Path:
    """The folder of one step."""
    return parent / f"step-{step}"


def files_of(trained: TrainedModel, directory: RunDirectory) -> dict[str, bytes]:
    """The content of every file in an exported folder, by file name."""
    config = configuration(trained.model)
    config |= {
        "eos_token_id": trained.store.end_of_text,
        "repeat_study": {"run": trained.run.name, "step": trained.step},
    }
    files = {"config.json": json_text(config)}
    if "auto_map" in config:
        files[f"{MODELING}.py"] = Path(__file__).with_name(f"{MODELING}.py").read_bytes()
    if trained.store.has_tokenizer:
        files |= _tokenizer_files(trained.store, trained.model.context)
    files["README.md"] = model_card(trained, directory.rows(), remote_code="auto_map" in config).encode()
    files["spec.json"] = directory.spec.read_bytes()
    files["model.safetensors"] = save(weights(trained.model), {"format": "pt"})
    return files


def _tokenizer_files(store: TokenStore, context: int) -> dict[str, bytes]:
    """The store's tokenizer. It encodes text exactly as in the store, without adding special tokens to it."""
    tokenizer = store.tokenizer()
    tokenizer.post_processor = None  # it may add special tokens to every text
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": tokenizer.id_to_token(store.end_of_text),
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
    }
    return {TOKENIZER: tokenizer.to_str(pretty=True).encode(), "tokenizer_config.json": json_text(config)}


def require_new(target: Path) -> None:
    """Raise InputError if `target` exists, unless it is an empty folder."""
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise InputError(f"{target}: already exists; delete it or export to another folder")


def write_folder(target: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder atomically: a crash leaves either no folder or a complete one. Raises InputError if it cannot be written."""
    created = [folder for folder in (target.parent, *target.parent.parents) if not folder.exists()]
    scratch = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        scratch.mkdir(parents=True)
        for name, content in files.items():
            with (scratch / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        scratch.rename(target)
    except BaseException as error:
        shutil.rmtree(scratch, ignore_errors=True)
        for folder in created:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        if not isinstance(error, OSError):
            raise
        reason = "already exists" if error.errno in (errno.ENOTEMPTY, errno.EEXIST) else error.strerror
        raise InputError(f"{target}: cannot be written: {reason}") from error
