"""A declared study: one TOML file, and the grid of runs that it stands for."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from data_prep.build import DataSpec, named_source
from data_prep.errors import InputError
from data_prep.files import read_text
from data_prep.sources import SourceSpec
from repeat_study.config.base import Spec, validated
from repeat_study.config.parents import SCRATCH, FineTune, ParentNotKnown, Parents
from repeat_study.config.resources import Resources, Sharing
from repeat_study.config.run import EvaluationSpec, FurtherTest, Parent, Run, TrainingSpec

INSTALLED = ("installed-python", "installed-prose")  # two readings of the same files


@dataclass(frozen=True)
class KnownRuns:
    """The runs of a grid whose parent is known, and one line for each point that still waits for its parent."""

    runs: list[Run]
    waiting: list[str]


class EvaluateSpec(Spec):
    """A further text to be tested on: a table of `[[evaluate]]`."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    source: Annotated[SourceSpec, BeforeValidator(named_source)]
    max_tokens: int = Field(2_000_000, gt=0, le=10**15)  # read; of these, `test_fraction` is tested on
    # None: of an installation the study's own share, so that nothing is tested on that was taken from training text; of other
    # sources all.
    test_fraction: float | None = Field(None, gt=0, le=1)

    def data(self, of: DataSpec) -> DataSpec:
        """The store whose test split is the text, in the tokens of the store that is trained on."""
        whole = 1.0 if self.source.kind not in INSTALLED else of.test_fraction
        return DataSpec(
            source=self.source,
            vocabulary=of.vocabulary,
            tokenizer_of=of,
            end_of_text=of.end_of_text,
            max_tokens=self.max_tokens,
            test_fraction=self.test_fraction or whole,
        )


class Study(Spec):
    """A declared study: one TOML file."""

    internal_fields: ClassVar[frozenset[str]] = frozenset({"parent_study"})

    name: str = Field(pattern=r"^\w[\w.-]*$")
    data: DataSpec
    training: TrainingSpec
    evaluation: EvaluationSpec = EvaluationSpec()
    evaluate: tuple[EvaluateSpec, ...] = Field((), strict=False)
    finetune: FineTune | None = None
    parent_study: "Study | None" = None  # what [finetune] names, read beside this one
    resources: Resources = Resources()
    slurm: dict[str, Any] = Field(default_factory=dict)  # what a sweep asks of a cluster, read by slurm.allocation
    # What a size has in place of the values of [training].
    models: dict[str, dict[str, Any]] = Field(default_factory=dict)
    grid: list[dict[str, Any]] = Field(min_length=1)

    def runs(
        self,
        corpus: str = "",
        further_tests: tuple[FurtherTest, ...] | None = None,
        parents: Parents | None = None,
    ) -> list[Run]:
        """All runs of the grid, each once, in the order of the file.

        corpus: fingerprint of the token store. further_tests: the prepared test sets of `[[evaluate]]`. parents: the runs
        that `[finetune]` selects from. Runs named before these are known have other identities than the runs to train.
        Raises InputError for a bad point of the grid, and ParentNotKnown if a parent is not known yet.
        """
        known = self.known_runs(corpus, further_tests, parents)
        if known.waiting:
            raise ParentNotKnown(known.waiting[0])
        return known.runs

    def known_runs(
        self,
        corpus: str = "",
        further_tests: tuple[FurtherTest, ...] | None = None,
        parents: Parents | None = None,
    ) -> KnownRuns:
        """As `runs`, but points whose parent is not known yet are listed instead of raising ParentNotKnown."""
        if further_tests is None:
            further_tests = tuple(FurtherTest(name=text.name, fingerprint="") for text in self.evaluate)
        if parents is None and self.parent_study:
            parents = Parents(self.parent_study.name, self.parent_study.runs())
        shared = self.training.model_dump() | {"evaluation": self.evaluation, "corpus": corpus}
        shared["further_tests"] = further_tests
        runs: dict[Run, None] = {}
        waiting: list[str] = []
        for where, chosen in self._points():
            selector = chosen.pop("parent", SCRATCH)
            values = shared | self.models.get(str(chosen.get("model")), {}) | chosen
            run = validated(Run, values, where)
            try:
                found = parents.choose(selector, run.model, run.seed) if parents else None
            except ParentNotKnown as error:
                waiting.append(f"{where}parent: {error}")
                continue
            except InputError as error:
                raise InputError(f"{where}parent: {error}") from error
            runs[self._child(run, *found, values, chosen, where) if found else run] = None
        return KnownRuns(list(runs), waiting)

    def _child(
        self, run: Run, parent: Parent, of_parent: Run, values: dict[str, Any], chosen: dict[str, Any], where: str
    ) -> Run:
        """A point of the grid with a parent, trained as `[finetune]` says."""
        assert self.finetune
        for key in ("context", "vocabulary_multiple"):
            if (here := getattr(run, key)) != (there := getattr(of_parent, key)):
                raise InputError(f"{where}{key}: {here} found, {there} in its parent {of_parent.label}")
        values = values | {"parent": parent, "learning_rate": run.learning_rate * self.finetune.learning_rate_share}
        if "warmup_fraction" not in chosen:
            values["warmup_fraction"] = self.finetune.warmup_fraction
        return validated(Run, values, where)

    @property
    def lineage(self) -> "list[Study]":
        """This study and those it descends from, the eldest first."""
        return [*(self.parent_study.lineage if self.parent_study else []), self]

    def parents_needed(self, parents: Parents) -> list[Run]:
        """Runs of the parents' study that have to be finished before all of this one's can start, each once."""
        needed: dict[Run, None] = {}
        for where, chosen in self._points():
            try:
                found = parents.needed(chosen.get("parent", SCRATCH), str(chosen.get("model")), chosen.get("seed", 0))
            except InputError as error:
                raise InputError(f"{where}parent: {error}") from error
            needed |= dict.fromkeys(found)
        return list(needed)

    def _points(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every point of the grid, and how an error names its table."""
        for number, table in enumerate(self.grid):
            axes = {key: value if isinstance(value, list) else [value] for key, value in table.items()}
            if "parent" in axes and not self.finetune:
                raise InputError(f"grid.{number}.parent: only runs of a study with a table [finetune] have parents")
            for fixed in Run.internal_fields & axes.keys():
                raise InputError(f"grid.{number}.{fixed}: not an axis; accepted are {_axes()}")
            for key, values in axes.items():
                if not values:
                    raise InputError(f"grid.{number}.{key}: an empty list; give at least one value")
            for point in product(*axes.values()):
                yield f"grid.{number}.", dict(zip(axes, point, strict=True))

    @model_validator(mode="after")
    def _models_hold_training_keys(self) -> Self:
        in_grid = {model for table in self.grid for model in np.atleast_1d(table.get("model", [])).tolist()}
        for model, values in self.models.items():
            if model not in in_grid:
                raise InputError(f"models.{model}: not in the grid, whose models are {', '.join(sorted(in_grid))}")
            validated(TrainingSpec, self.training.model_dump() | values, f"models.{model}.")
        return self

    @model_validator(mode="after")
    def _texts_are_apart(self) -> Self:
        if self.data.test_fraction == 1:
            raise InputError("data.test_fraction: 1 leaves nothing to train on; accepted is less")
        names = [text.name for text in self.evaluate]
        for number, text in enumerate(self.evaluate):
            if text.name in names[:number]:
                raise InputError(f"evaluate.{number}.name: {text.name!r} is there already; give each its own")
            beside = any(study.data.source.kind in INSTALLED for study in self.lineage)
            if beside and text.source.kind in INSTALLED and (text.test_fraction or 0) > self.data.test_fraction:
                raise InputError(
                    f"evaluate.{number}.test_fraction: {text.test_fraction} of the installation would reach into text that is"
                    f" trained on; accepted is up to data.test_fraction, {self.data.test_fraction}"
                )
        return self

    @model_validator(mode="after")
    def _parents_fit(self) -> Self:
        """What a model cannot change when it goes on with another text."""
        if not (self.finetune and self.parent_study):
            if self.finetune:
                raise InputError("finetune.from: the parents' study was not read")
            return self
        names = [study.name for study in self.lineage]
        if len(set(names)) < len(names):
            raise InputError(f"finetune.from: two studies are called {self.name}, and would share a folder")
        if self.data.test_fraction != self.parent_study.data.test_fraction:
            raise InputError(
                f"data.test_fraction: {self.data.test_fraction} found, {self.parent_study.data.test_fraction} in"
                f" {self.parent_study.name}: with another one the test text of one may be training text of the other"
            )
        if not any(table.get("parent", SCRATCH) not in (SCRATCH, [SCRATCH]) for table in self.grid):
            raise InputError('finetune: no table of the grid names a parent, as parent = ["scratch", "clean", "worst"]')
        return self

    def check_sharing(self, vocabulary: int) -> None:
        """Raises InputError where the processes of `[resources]` cannot share a run of the grid, here and in the studies it
        descends from; `vocabulary` is the tokenizer's, which all have."""
        if self.parent_study:
            self.parent_study.check_sharing(vocabulary)
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


def load_study(path: Path, overrides: list[str] | None = None, descendants: tuple[Path, ...] = ()) -> Study:
    """Read a study from TOML, and the one its runs have their parents from.

    overrides: `key=value` with dotted keys and TOML values; those of the parents' study begin with `parent.`.
    descendants: the files whose parents are sought here.
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
    for key in Study.internal_fields & table.keys():
        raise InputError(f"{path}: {key}: unknown key; it follows from finetune.from")
    of_parent = [override for override in overrides or [] if override.startswith("parent.")]
    for override in overrides or []:
        if override not in of_parent:
            _override(table, override)
    try:
        if isinstance(data := table.get("data"), dict) and "tokenizer_of" in data:
            raise InputError("data.tokenizer_of: unknown key; it follows from finetune.from")
        _read_copying_text(table, path.parent)
        _read_parent_study(
            table, path, [override.removeprefix("parent.") for override in of_parent], (*descendants, path)
        )
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


def _read_parent_study(table: dict[str, Any], path: Path, overrides: list[str], chain: tuple[Path, ...]) -> None:
    """Put the study that `finetune.from` names in its place, and its tokenizer in that of this one's: the models go on
    reading the tokens that they know."""
    finetune = table.get("finetune")
    if not isinstance(finetune, dict) or not isinstance(given := finetune.get("from"), str):
        if overrides:
            raise InputError(f"--set parent.{overrides[0]}: the study has no table [finetune], so no parents")
        return
    file = path.parent / (given if given.endswith(".toml") else f"{given}.toml")
    if file.resolve() in [before.resolve() for before in chain]:
        way = " -> ".join(before.stem for before in (*chain, file))
        raise InputError(f"finetune.from: a cycle, {way}; a model needs a parent that was there before it")
    parent = load_study(file, overrides, chain)
    table["parent_study"] = parent
    if not isinstance(data := table.get("data"), dict):
        return
    theirs = {key: getattr(parent.data, key) for key in ("vocabulary", "tokenizer", "end_of_text")}
    for key, there in theirs.items():
        if (found := data.get(key, there)) != there:
            raise InputError(
                f"data.{key}: {found!r} found, {there!r} in {parent.name}, whose models go on here; leave it out"
            )
    fraction = {"test_fraction": parent.data.test_fraction}
    table["data"] = fraction | data | theirs | {"tokenizer": None, "tokenizer_of": parent.data}


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
    return ", ".join(sorted(Run.model_fields.keys() - Run.internal_fields))
