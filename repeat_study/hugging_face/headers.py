"""Compare the tensors in a folder with those that the model needs, before memory is allocated for their weights."""

from collections.abc import Collection

from data_prep.errors import InputError
from repeat_study.hugging_face.folder import CONFIG, ModelFolder

Shape = tuple[int, ...]


def check_shape(folder: ModelFolder, name: str, actual: Shape, expected: Shape) -> None:
    """Raise InputError unless a tensor has the shape that config.json implies."""
    if tuple(actual) != tuple(expected):
        raise InputError(
            f"{folder.files.get(name, folder.path)}: {name} has the shape {list(actual)}; expected {list(expected)}, as in {CONFIG}"
        )


def check_complete(folder: ModelFolder, missing: Collection[str]) -> None:
    """Raise InputError if a tensor is missing."""
    if missing:
        raise InputError(f"{folder.path}: no tensor {min(missing)}, which a {folder.model_type} model needs")


def check_used(folder: ModelFolder, unused: Collection[str]) -> None:
    """Raise InputError if there is a tensor that the model does not use: it would compute something else than intended."""
    if unused:
        name = min(unused)
        raise InputError(
            f"{folder.files.get(name, folder.path)}: {name} is not part of a {folder.model_type} model with this {CONFIG}"
        )
