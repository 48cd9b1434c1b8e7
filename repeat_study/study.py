"""A declared study: one TOML file, and the grid of runs that it stands for."""

import tomllib
from itertools import product
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from data_prep.build import DataSpec
from data_prep.errors import InputError
from data_prep.files import read_text
from repeat_study.resources import Resources, Sharing
from repeat_study.run import EvaluationSpec, Run, TrainingSpec
from repeat_study.spec import Spec, validated


class Study(Spec):
    """A declared study: one TOML file."""

    name: str = Field(pattern=r"^\w[\w.-]*$")
    data: DataSpec
    training: TrainingSpec
    evaluation: EvaluationSpec = EvaluationSpec()
    resources: Resources = Resources()
    slurm: dict[str, Any] = {}  # what a sweep asks of a cluster, read by slurm.allocation
    models: dict[str, dict[str, Any]] = {}  # what a size has in place of the values of [training]
    grid: list[dict[str, Any]] = Field(min_length=1)

    def runs(self, corpus: str = "") -> list[Run]:
        """All runs of the grid, each once, in the order of the file; `corpus` is the store's fingerprint.

        Every `[[grid]]` table is a product of its lists; keys are those of a run. Raises InputError for a bad point.
        """
        shared = self.training.model_dump() | {"evaluation": self.evaluation, "corpus": corpus}
        runs: dict[Run, None] = {}
        for number, table in enumerate(self.grid):
            axes = {key: value if isinstance(value, list) else [value] for key, value in table.items()}
            for fixed in Run.not_given & axes.keys():
                raise InputError(f"grid.{number}.{fixed}: not an axis; accepted are {_axes()}")
            for key, values in axes.items():
                if not values:
                    raise InputError(f"grid.{number}.{key}: an empty list; give at least one value")
            for point in product(*axes.values()):
                chosen = dict(zip(axes, point, strict=True))
                of_model = self.models.get(str(chosen.get("model")), {})
                runs[validated(Run, shared | of_model | chosen, f"grid.{number}.")] = None
        return list(runs)

    @model_validator(mode="after")
    def _models_hold_training_keys(self) -> Self:
        in_grid = {model for table in self.grid for model in np.atleast_1d(table.get("model", [])).tolist()}
        for model, values in self.models.items():
            if model not in in_grid:
                raise InputError(f"models.{model}: not in the grid, whose models are {', '.join(sorted(in_grid))}")
            validated(TrainingSpec, self.training.model_dump() | values, f"models.{model}.")
        return self

    def check_sharing(self, vocabulary: int) -> None:
        """Raises InputError where the processes of `[resources]` cannot share a run of the grid; `vocabulary` is the
        tokenizer's."""
        world = self.resources.processes_per_run
        for run in self.runs() if world > 1 else []:
            if run.sequences_per_step % world:
                what = f"the {run.sequences_per_step} sequences of a step of {run.model}"
            elif self.resources.sharing is Sharing.FSDP and (uneven := _uneven(run, vocabulary, world)):
                what = f"the {uneven} of {run.model}, which FSDP splits,"
            else:
                continue
            raise InputError(f"resources.processes_per_run: {what} do not divide among {world} processes")


def _uneven(run: Run, vocabulary: int, world: int) -> str:
    """An axis of the model that does not divide among `world` processes, none where all do."""
    shape, rows = run.shape, run.model_vocabulary(vocabulary)
    split = {"d_model": shape.d_model, "heads": shape.heads * shape.d_head, "MLP": shape.mlp_width, "vocabulary": rows}
    return next((f"{size} rows of the {axis}" for axis, size in split.items() if size % world), "")


def load_study(path: Path, overrides: list[str] | None = None) -> Study:
    """Read a study from TOML; `overrides` are `key=value` with dotted keys and TOML values.

    Raises InputError naming the file, the key, what was found and what is accepted.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        known = ", ".join(sorted(study.stem for study in path.parent.glob("*.toml"))) or "none in this folder"
        raise InputError(f"{path}: no such study; found here: {known}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from error
    for override in overrides or []:
        _override(table, override)
    try:
        _read_copying_text(table, path.parent)
        study = validated(Study, {"name": path.stem} | table, "")
        study.runs()
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return study


def _read_copying_text(table: dict[str, Any], folder: Path) -> None:
    """Put the content of `evaluation.copying_text = {file = ...}` in its place: the text is the science, not its path."""
    evaluation = table.get("evaluation")
    if not isinstance(evaluation, dict) or not isinstance(given := evaluation.get("copying_text"), dict):
        return
    if list(given) != ["file"] or not isinstance(given["file"], str):
        raise InputError(f"evaluation.copying_text: accepted is a text or {{file = PATH}}, found {given!r}")
    evaluation["copying_text"] = read_text(folder / given["file"])


def _override(table: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise InputError(f"--set {override}: accepted is key=value, e.g. training.tokens=1000000 or grid.0.seed=[0,1]")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    *parents, last = key.strip().split(".")
    place: Any = table
    try:
        for parent in parents:
            place = place[int(parent)] if isinstance(place, list) else place.setdefault(parent, {})
        place[int(last) if isinstance(place, list) else last] = value
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise InputError(f"--set {override}: the study has no place {key!r}") from error


def _axes() -> str:
    return ", ".join(sorted(Run.model_fields.keys() - Run.not_given))
