"""Studies and runs: validated specs, the grid's expansion, and a run's identity."""

import difflib
import hashlib
import tomllib
from itertools import product
from pathlib import Path
from typing import Any, Self, TypeVar, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data_prep.build import DataSpec
from data_prep.corpora import SourceSpec
from data_prep.draw import Draw, Unit
from data_prep.errors import InputError
from data_prep.files import canonical_json, read_text
from data_prep.mixture import RepeatMixture, Spacing, pool_size
from data_prep.token_store import TokenStore
from repeat_study.ladder import Shape, shape_of
from repeat_study.resources import Resources, Sharing

RESULT_FORMAT = 3  # part of every identity; raised when the same spec would give other numbers


class Spec(BaseModel):
    """Base of all specs: frozen, unknown keys refused, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


SpecType = TypeVar("SpecType", bound=Spec)


class EvaluationSpec(Spec):
    """When and on how much a run is evaluated: the `[evaluation]` table."""

    even_points: int = Field(15, ge=1, le=10_000)  # evenly spaced over the run, the last one at its end
    log_points: int = Field(6, ge=0, le=10_000)  # log-spaced from the first step to the last
    test_sequences: int = Field(48, ge=1)
    pool_sequences: int = Field(12, ge=1)  # the first of the pool, or all of a smaller one
    seen_sequences: int = Field(12, ge=1)  # the first of the unique stream, once they have been trained on
    # Paragraphs between blank lines, for the copying loss; None: the shipped ones.
    copying_text: str | None = Field(None, max_length=100_000)

    def steps(self, total: int) -> list[int]:
        """Optimiser steps after which a run of `total` steps is evaluated; 0 (untrained) and `total` always are."""
        even = np.linspace(0, total, self.even_points + 1)
        return sorted({0, total, *(int(step) for step in np.round(even)), *self.log_steps(total)})

    def log_steps(self, total: int) -> list[int]:
        """Those of them that are log-spaced."""
        return sorted({int(step) for step in np.round(np.geomspace(1, total, self.log_points))})


class TrainingSpec(Spec):
    """What all runs of a study share unless its grid varies it: the `[training]` table."""

    tokens: int = Field(gt=0, le=10**15)  # T; rounded down to whole optimiser steps
    context: int = Field(ge=2, le=2**24)
    sequences_per_step: int = Field(ge=1, le=2**24)
    vocabulary_multiple: int = Field(
        1, ge=1, le=2**16
    )  # the model's vocabulary is the tokenizer's, rounded up to these
    learning_rate: float = Field(gt=0, lt=1)
    weight_decay: float = Field(0.1, ge=0)
    warmup_fraction: float = Field(0.02, ge=0, lt=1)
    final_learning_rate_fraction: float = Field(0.1, ge=0, le=1)  # of the peak, at the end of the cosine
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    gradient_clip: float = Field(1.0, gt=0)  # largest norm of a lane's gradient


class Run(TrainingSpec):
    """One run: everything that can change its result, and nothing else."""

    model: str
    repeats: int = Field(ge=1, le=10**12)  # R
    repeated_fraction: float = Field(0.0, ge=0, le=1)  # f; 0 in the clean control, whatever the grid says
    seed: int = Field(0, ge=0, lt=2**31)  # of the start weights, the corpus's shuffle and the order of copies
    unit: Unit = Field(Unit.SEQUENCE, strict=False)  # what the pool is made of
    spacing: Spacing = Field(Spacing.PASSES, strict=False)  # how the copies of a pool sequence lie in the run
    burst_distance: int = Field(0, ge=0, le=10**12)  # of spacing bursts: pool positions from one copy to the next
    pool_seed: int = Field(0, ge=0, lt=2**31)  # draws another pool beside the same unique stream
    evaluation: EvaluationSpec
    corpus: str = ""  # fingerprint of the token store; empty until it is prepared

    @model_validator(mode="before")
    @classmethod
    def _clean_control_has_no_pool(cls, values: dict[str, Any]) -> dict[str, Any]:
        if values.get("repeats") != 1:
            return values
        of_the_pool = {"repeated_fraction": 0.0, "spacing": Spacing.PASSES, "burst_distance": 0, "pool_seed": 0}
        return values | {key: of_the_pool[key] for key in of_the_pool.keys() & values.keys()}

    @model_validator(mode="after")
    def _possible(self) -> Self:
        shape_of(self.model)
        if self.repeats > 1 and self.repeated_fraction == 0:
            raise InputError(f"repeated_fraction: needed with repeats = {self.repeats}; accepted are 0 < f <= 1")
        if self.steps < 1:
            raise InputError(
                f"tokens: {self.tokens} is less than one step of {self.sequences_per_step} sequences x {self.context} tokens"
            )
        self.mixture()  # refuses what cannot be mixed
        return self

    @property
    def shape(self) -> Shape:
        """Dimensions of the model."""
        return shape_of(self.model)

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return self.tokens // self.tokens_per_step

    @property
    def tokens_per_step(self) -> int:
        """Tokens of an optimiser step."""
        return self.sequences_per_step * self.context

    @property
    def positions(self) -> int:
        """Sequences the run trains on, repeats counted."""
        return self.steps * self.sequences_per_step

    @property
    def pool(self) -> int:
        """Sequences in the repeated pool; 0 in the clean control."""
        return pool_size(self.positions, self.repeated_fraction, self.repeats)

    @property
    def label(self) -> str:
        """What people call the run: size, fraction, repeats and seed, and what departs from the ordinary."""
        parts = [self.model, f"f{self.repeated_fraction:g}-R{self.repeats}" if self.repeats > 1 else "clean"]
        if self.unit is not Unit.SEQUENCE:
            parts.append(f"{self.unit}s")
        if self.spacing is not Spacing.PASSES:
            parts.append(f"{self.spacing}{self.burst_distance or ''}")
        parts.append(f"s{self.seed}")
        if self.pool_seed:
            parts.append(f"p{self.pool_seed}")
        if self.weight_decay != TrainingSpec.model_fields["weight_decay"].default:
            parts.append(f"wd{self.weight_decay:g}")
        return "-".join(parts)

    @property
    def name(self) -> str:
        """The run directory's name: the label and the first 8 digits of the identity."""
        return f"{self.label}-{self.identity[:8]}"

    @property
    def identity(self) -> str:
        """SHA-256 over the spec: two runs are the same run iff these agree, on whatever machine."""
        return hashlib.sha256(canonical_json([RESULT_FORMAT, self.model_dump()])).hexdigest()

    def model_vocabulary(self, vocabulary: int) -> int:
        """Rows of the embedding for a tokenizer's vocabulary: GPT-2's 50,257 becomes 50,304 in multiples of 64."""
        return -(-vocabulary // self.vocabulary_multiple) * self.vocabulary_multiple

    def mixture(self) -> RepeatMixture:
        """The order of the run's sequences; InputError where R, f and tokens fit no pool of whole sequences."""
        return RepeatMixture(self.positions, self.pool, self.repeats, self.seed, self.spacing, self.burst_distance)

    def draw(self, store: TokenStore) -> Draw:
        """The text of the run's sequences; InputError where the store holds too little."""
        draw = Draw(store, self.context, self.positions, self.unit, self.seed, self.pool_seed)
        draw.require(self.pool)
        if not store.sequences_in("test", self.context):
            raise InputError(
                f"context: the test split has {store.test.size} tokens, less than one sequence of {self.context} and its"
                " target; give more text or a larger data.test_fraction"
            )
        return draw


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
            for fixed in {"evaluation", "corpus"} & axes.keys():
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


def run_of(record: dict[str, Any], path: Path) -> Run:
    """The run that the fields of a spec.json declare; InputError where they are none."""
    fields = {key: value for key, value in record.items() if key in Run.model_fields}
    try:
        return validated(Run, fields, "")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


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
    return ", ".join(sorted(Run.model_fields.keys() - {"evaluation", "corpus"}))


def validated(kind: type[SpecType], values: dict[str, Any], where: str) -> SpecType:
    """The spec with these values; InputError of one line that begins with `where`."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise InputError(_one_line(kind, error, where)) from error


def _one_line(kind: type[Spec], error: ValidationError, where: str) -> str:
    first = error.errors()[0]
    place = where + ".".join(map(str, first["loc"]))
    if isinstance(cause := first.get("ctx", {}).get("error"), InputError):
        return f"{where}{cause}"
    if first["type"] == "extra_forbidden":
        accepted = sorted(_fields_at(kind, first["loc"][:-1]) - {"corpus", "evaluation"} if kind is Run else
                          _fields_at(kind, first["loc"][:-1]))  # fmt: skip
        close = difflib.get_close_matches(str(first["loc"][-1]), accepted, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"{place}: unknown key; {hint}accepted are {', '.join(accepted)}"
    if first["type"] == "missing":
        return f"{place}: missing; give a value"
    message = first["msg"][0].lower() + first["msg"][1:]
    return f"{place}: {message}, found {first['input']!r}"


def _fields_at(kind: type[BaseModel], place: tuple[int | str, ...]) -> set[str]:
    for key in place:
        if str(key) not in kind.model_fields:  # the tag of a union, as the kind of a source
            kind = next(
                member for member in get_args(get_args(SourceSpec)[0]) if member.model_fields["kind"].default == key
            )
            continue
        inner = kind.model_fields[str(key)].annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            kind = inner
    return set(kind.model_fields)
