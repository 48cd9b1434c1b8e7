"""Open a folder in Hugging Face's format: config.json, and weights in safetensors files. The weights are not loaded yet."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from data_prep.errors import InputError
from data_prep.files import read_text

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"  # of weights that are split into several files
FLOATING = ("F32", "BF16", "F16", "F64")  # types in safetensors headers
# Causal masks and constants that older versions of transformers saved along with the weights
NOT_WEIGHTS = re.compile(r"(^|\.)((attn|attention)\.(masked_bias|bias|causal_mask)|rotary_emb\.inv_freq|position_ids)$")
MOST_BYTES = 50_000_000  # of a JSON file


@dataclass(frozen=True)
class ModelFolder:
    """A model's configuration, and where its weights are.

    files: the file of each tensor. shapes: the shape of each tensor.
    """

    path: Path
    config: dict[str, Any]
    files: dict[str, Path]
    shapes: dict[str, tuple[int, ...]]

    @property
    def model_type(self) -> str:
        """The architecture's name in config.json, such as "qwen3" or "gpt2"."""
        return str(self.config["model_type"])

    def read(self, name: str) -> Tensor:
        """Read a tensor as float32. Raises InputError if it contains NaN or infinity."""
        with safe_open(self.files[name], framework="pt") as file:
            tensor: Tensor = file.get_tensor(name).float()
        check_finite(self.files[name], name, tensor)
        return tensor


def check_finite(path: Path, name: str, tensor: Tensor) -> None:
    """Raise InputError if a tensor contains NaN or infinity."""
    if bad := tensor.numel() - int(tensor.isfinite().sum()):
        raise InputError(
            f"{path}: {name} has {bad:,} weights that are NaN or infinite in float32; expected finite weights"
        )


def open_folder(path: Path) -> ModelFolder:
    """Read config.json and the headers of the weight files.

    Raises InputError if a file is missing or damaged, or if the weights are quantized.
    """
    if not (path / CONFIG).is_file():
        raise InputError(f"{path}: not a model's folder (no {CONFIG})")
    config = read_json(path / CONFIG)
    if not isinstance(config.get("model_type"), str):
        raise InputError(f"{path / CONFIG}: model_type: {config.get('model_type')!r} found; expected a string")
    if "quantization_config" in config:
        raise InputError(f"{path / CONFIG}: quantization_config: quantized models are not supported")
    files: dict[str, Path] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for file in weight_files(path):
        for name, shape in _header(file).items():
            if name in files:
                raise InputError(f"{file}: {name} is also in {files[name].name}; expected every tensor once")
            files[name], shapes[name] = file, shape
    if (path / INDEX).is_file() and (missing := _weights_of_index(path) - set(files)):
        name = min(missing)
        raise InputError(f"{path / _index(path)[name]}: no tensor {name}, which {INDEX} lists for this file")
    return ModelFolder(path, config, files, shapes)


def weight_files(path: Path) -> list[Path]:
    """The folder's safetensors files. Raises InputError if there are none or if one is missing."""
    if (path / INDEX).is_file():
        files = [path / name for name in sorted(set(_index(path).values()))]
    elif (path / WEIGHTS).is_file():
        files = [path / WEIGHTS]
    else:
        pickled = next((file.name for file in sorted(path.glob("pytorch_model*"))), "")
        hint = f"; {pickled} may contain code and is not read, so convert it to safetensors" if pickled else ""
        raise InputError(f"{path}: no weights; expected {WEIGHTS}, or {INDEX} with its files{hint}")
    for file in files:
        if not file.is_file():
            raise InputError(f"{file}: missing, but {INDEX} lists it")
    return files


def _index(path: Path) -> dict[str, str]:
    """The name of each tensor's file, from the index."""
    names = read_json(path / INDEX).get("weight_map")
    if not isinstance(names, dict) or not names or not all(_is_file_name(name) for name in names.values()):
        raise InputError(f"{path / INDEX}: weight_map: expected a table with the name of each tensor's file")
    return names


def _weights_of_index(path: Path) -> set[str]:
    return {name for name in _index(path) if not NOT_WEIGHTS.search(name)}


def _is_file_name(name: object) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0")


def _header(file: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each weight in a safetensors file. Raises InputError if one is not a floating-point tensor."""
    shapes = {}
    try:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                header = tensors.get_slice(name)
                if NOT_WEIGHTS.search(name):
                    continue
                if (dtype := header.get_dtype()) not in FLOATING:
                    raise InputError(f"{file}: {name} has the type {dtype}; expected {', '.join(FLOATING)}")
                shapes[name] = tuple(header.get_shape())
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: damaged, or not a safetensors file ({error})") from error
    return shapes


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises InputError if the file contains anything else."""
    try:
        content = json.loads(read_text(path, MOST_BYTES))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content
