"""Write a run's model at one step as a Hugging Face folder: DIR/step-N with the model, its tokenizer, a model card and spec.json."""

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors.torch import save

from data_prep.errors import InputError
from data_prep.files import json_text, write_error
from data_prep.token_store import TOKENIZER, TokenStore
from repeat_study.checkpoints.files import checkpointed_step
from repeat_study.export.conversion import MODELING, configuration, weights
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
    """Write the folder step-N into `parent` and return its path.

    The folder appears only when it is complete. The same model always produces the same bytes, so a folder that already contains
    them is kept. Raises InputError if the folder has other content, or cannot be written.
    """
    target, files = target_of(parent, trained.step), files_of(trained, directory)
    if is_new(target):
        write_folder(target, files)
    elif not _contains(target, files):
        raise InputError(f"{target}: already exists, with other content; delete it or export to another folder")
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


def is_new(target: Path) -> bool:
    """Whether the target does not exist yet, or is an empty folder."""
    return not target.is_symlink() and (not target.exists() or (target.is_dir() and not any(target.iterdir())))


def _contains(target: Path, files: Mapping[str, bytes]) -> bool:
    """Whether the folder consists of these files."""
    if not target.is_dir() or {path.name for path in target.iterdir()} != files.keys():
        return False
    return all((target / name).is_file() and (target / name).read_bytes() == content for name, content in files.items())


def write_folder(target: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder atomically: it appears only when it is complete. Raises InputError if it cannot be written.

    Also deletes what killed exports to the same folder left behind.
    """
    scratch = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with _folder(target.parent), _writing(target):
        for abandoned in target.parent.glob(f".{target.name}.*.tmp"):
            with suppress(BlockingIOError), _locked(abandoned):
                shutil.rmtree(abandoned)
        try:
            scratch.mkdir()
            with _locked(scratch):
                for name, content in files.items():
                    with (scratch / name).open("wb") as file:
                        file.write(content)
                        file.flush()
                        os.fsync(file.fileno())
                scratch.rename(target)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Create a folder and its parents. If the block fails, delete those that are still empty. Raises InputError if this fails."""
    created = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in created:
        if folder.is_symlink():
            raise InputError(f"{folder}: a link to {folder.readlink()}, which does not exist")
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException as error:
        for folder in created:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        if not isinstance(error, OSError):
            raise
        reason = "not a folder" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
        raise InputError(f"{path}: cannot be created: {reason}") from error


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Convert errors of the file system to an InputError that names `target`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise InputError(f"{target}: cannot be written: already exists") from error
        raise write_error(target, error) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder as long as this process lives. Raises BlockingIOError if another process holds the lock."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
