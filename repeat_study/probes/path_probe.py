"""Probe whatever model a path leads to: a run directory, an exported run or another Hugging Face folder."""

from dataclasses import dataclass
from pathlib import Path

import torch

from data_prep.errors import InputError
from repeat_study.hugging_face.causal_lm import checked_sizes
from repeat_study.hugging_face.decoders import decoder_config
from repeat_study.hugging_face.folder import CONFIG, open_folder
from repeat_study.probes import checkpoint_probe
from repeat_study.probes.exported_probe import SPEC
from repeat_study.probes.folder_probe import probe_folder
from repeat_study.probes.probed_model import ProbedModel
from repeat_study.probes.reports import Report, ignore

DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class ProbeOptions:
    """How to measure models.

    data_dir: the folder of the token stores. text: paragraphs to copy. context: length of the longest probe sequence in tokens,
    only for models without a token store.
    """

    data_dir: Path
    text: str | None = None
    context: int | None = None
    device: str = "cpu"
    ablation: bool = True


def require_model(path: Path) -> None:
    """Raise InputError unless the path is a run directory or a Hugging Face folder."""
    if not path.is_dir():
        raise InputError(f"{path}: no such folder")
    if not (path / SPEC).is_file() and not (path / CONFIG).is_file():
        steps = [folder.parent.name for folder in sorted(path.glob(f"step-*/{CONFIG}"))]
        hint = f"; choose one of its folders, such as {path / steps[-1]}" if steps else ""
        raise InputError(f"{path}: not a run directory (no {SPEC}) and not a model's folder (no {CONFIG}){hint}")


def check_model(path: Path) -> None:
    """Raise InputError for every error in a model's folder that can be detected without loading its weights."""
    require_model(path)
    if (path / CONFIG).is_file():
        folder = open_folder(path)
        if decoder_config(folder) is None:
            checked_sizes(folder)


def check_device(device: str) -> None:
    """Raise InputError if the device is unknown or this machine has none."""
    if device not in DEVICES:
        raise InputError(f"--device: {device!r} found; expected {' or '.join(DEVICES)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device: 'cuda' found, but torch finds no GPU on this machine; use cpu")


def probe_path(path: Path, options: ProbeOptions, step: int | None = None, report: Report = ignore) -> ProbedModel:
    """Measure the model at a path. Raises InputError if the model or an option cannot be used.

    step: selects a run's kept weights. report: called before every stage.
    """
    require_model(path)
    check_device(options.device)
    if (path / CONFIG).is_file():
        if step is not None:
            raise InputError(f"--step: {path} contains one model; --step is only for run directories")
        return probe_folder(
            path, options.data_dir, options.text, options.context, options.device, options.ablation, report
        )
    if options.context is not None:
        raise InputError(f"--context: {path} is a run directory, whose spec determines the context")
    if not options.ablation:
        raise InputError(f"--no-ablation: {path} is a run directory; expected a model's folder")
    trained = checkpoint_probe.load_trained(path, options.data_dir, step)
    return checkpoint_probe.probe(trained, options.text, options.device, report)
