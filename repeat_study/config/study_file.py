"""Find study files by name, read them, and apply `--set` overrides."""

import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_prep.errors import InputError
from data_prep.files import read_text

LOCAL_STUDIES = Path("studies")  # in the working directory
INSTALLED_STUDIES = Path(__file__).parents[1] / "studies"  # package data; in a checkout, a link to the top-level folder

MAX_BYTES = 1_000_000  # maximum size of a study file; the shipped studies are a few thousand bytes long
MAX_DEPTH = 12  # maximum nesting depth of tables and lists; the shipped studies use at most five levels
TOO_DEEP = f"tables or lists are nested too deeply; expected at most {MAX_DEPTH} levels"


def find_study(study: str | Path) -> Path:
    """The path of a study file, given its path or name. A string is a path if it ends in `.toml` or contains a separator."""
    if isinstance(study, Path) or study.lower().endswith(".toml") or os.sep in study:
        return Path(study)
    if not study:
        raise InputError("STUDY is empty; expected a .toml file, or the name of a study")
    path = named_study(study, LOCAL_STUDIES)
    if not path.is_file() and Path(study).is_file():
        raise InputError(f"{study}: not a .toml file; expected a file that ends in .toml, or the name of a study")
    return path


def named_study(name: str, folder: Path) -> Path:
    """The path of `NAME.toml` in `folder` or, if it does not exist, of the shipped study with this name."""
    local, installed = folder / f"{name}.toml", INSTALLED_STUDIES / f"{name}.toml"
    return installed if installed.is_file() and not local.is_file() else local


def read_study_file(path: Path, overrides: Iterable[str]) -> dict[str, Any]:
    """Read a study file, and apply overrides such as `training.tokens=1000000`.

    Raises InputError if the file is missing, unreadable or not valid TOML, if an override's key does not exist, or if tables
    or lists are nested more than MAX_DEPTH levels deep.
    """
    try:
        table = tomllib.loads(read_text(path, MAX_BYTES))
    except InputError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        local, installed = _study_names(path.parent), _study_names(INSTALLED_STUDIES)
        raise InputError(
            f"{path}: no such study; studies in {path.parent}: {local}; shipped with this package: {installed}"
        ) from error
    except RecursionError as error:
        raise InputError(f"{path}: {TOO_DEEP}") from error
    except ValueError as error:  # also raised for an integer with thousands of digits
        raise InputError(f"{path}: not valid TOML: {error}") from error
    if _is_too_deep(table):
        raise InputError(f"{path}: {TOO_DEEP}")
    for override in overrides:
        _apply_override(table, override)
        if _is_too_deep(table):
            raise InputError(f"--set {_shortened(override)}: {TOO_DEEP}")
    return table


def _is_too_deep(table: dict[str, Any]) -> bool:
    level: list[Any] = [table]
    for _ in range(MAX_DEPTH + 1):
        children = [value.values() if isinstance(value, dict) else value for value in level]
        level = [value for values in children for value in values if isinstance(value, dict | list)]
    return bool(level)


def _shortened(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:100]}..."


def _apply_override(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise InputError(f"--set {override}: expected key=value, e.g. training.tokens=1000000 or grid.0.seed=[0,1]")
    try:
        values = tomllib.loads(f"value = {text}")
        if len(values) > 1:
            raise InputError(f"--set {_shortened(repr(override))}: expected one value; use --set once for each key")
        value = values["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    except RecursionError as error:
        raise InputError(f"--set {_shortened(override)}: {TOO_DEEP}") from error
    except InputError:
        raise
    except ValueError as error:  # raised for an integer with thousands of digits
        raise InputError(f"--set {_shortened(override)}: {error}") from error
    *parents, last = names = key.strip().split(".")
    if "" in names:
        raise InputError(
            f"--set {_shortened(override)}: the key {key!r} has an empty part; expected e.g. training.tokens"
        )
    container: Any = table
    try:
        for parent in parents:
            container = container[_index(parent)] if isinstance(container, list) else container.setdefault(parent, {})
        container[_index(last) if isinstance(container, list) else last] = value
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise InputError(f"--set {override}: the study has no key {key!r}") from error


def _index(text: str) -> int:
    """The index of a list element, counted from 0. Raises ValueError for a negative number."""
    if not text.isdecimal():
        raise ValueError(text)
    return int(text)


def _study_names(folder: Path) -> str:
    return ", ".join(sorted(path.stem for path in folder.glob("*.toml"))) or "none"
