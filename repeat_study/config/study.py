"""Load a study from its TOML file, and list the runs in its grid."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from data_prep.data_spec import DataSpec
from data_prep.errors import InputError
from data_prep.sources import SourceSpec, Tokens
from repeat_study.config import grid
from repeat_study.config.base import PATTERNS, STUDY_NAME, TEST_SET_NAME, Spec, validated
from repeat_study.config.copying_text import insert_copying_text
from repeat_study.config.corpora import POOL_DOMAIN, UNPREPARED, FurtherTest, MixedCorpus, PoolCorpus, StudyTexts
from repeat_study.config.fixed_pool import ALL
from repeat_study.config.grid import KnownRuns, Point
from repeat_study.config.parents import SCRATCH, FineTune, ParentNotKnown, Parents
from repeat_study.config.pool_spec import PoolSpec
from repeat_study.config.resources import Resources, check_divisible
from repeat_study.config.run import EvaluationSpec, Run, TrainingSpec
from repeat_study.config.study_file import find_study, named_study, read_study_file

LONGEST_NAME = 200  # characters; names of folders and files contain the name of the study
INSTALLED = ("installed-python", "installed-prose")  # source kinds that read the same installed files


class EvaluateSpec(Spec):
    """An additional test set, declared by one `[[evaluate]]` table."""

    name: str = Field(pattern=TEST_SET_NAME, max_length=LONGEST_NAME)
    source: SourceSpec
    max_tokens: int = Field(2_000_000, gt=0, le=10**15)  # tokens to read from the source, before the test split
    # Defaults to 1. For an installed-* source, it defaults to data.test_fraction, because the study may train on the rest of
    # the installed files.
    test_fraction: float | None = Field(None, gt=0, le=1)

    def data(self, training: DataSpec) -> DataSpec:
        """The data spec whose test split is this test set. It uses the tokenizer of the training data."""
        default = training.test_fraction if self.source.kind in INSTALLED else 1.0
        return DataSpec(
            source=self.source,
            vocabulary=training.vocabulary,
            tokenizer_of=training.stores[0],
            end_of_text=training.end_of_text,
            max_tokens=self.max_tokens,
            test_fraction=self.test_fraction or default,
        )


class Study(Spec):
    """A study as declared in its TOML file."""

    internal_fields: ClassVar[frozenset[str]] = frozenset({"parent_study"})

    name: str = Field(pattern=STUDY_NAME, max_length=LONGEST_NAME)
    data: DataSpec
    training: TrainingSpec
    evaluation: EvaluationSpec = EvaluationSpec()
    pool: PoolSpec | None = None  # separate text that the runs repeat; None: the pool is drawn from the training data
    evaluate: tuple[EvaluateSpec, ...] = Field((), strict=False)
    finetune: FineTune | None = None
    parent_study: "Study | None" = None  # the study that finetune.from refers to
    resources: Resources = Resources()
    slurm: dict[str, Any] = Field(default_factory=dict)  # the SLURM allocation of a sweep; see slurm.allocation
    models: dict[str, dict[str, Any]] = Field(default_factory=dict)  # values that override [training] for a model size
    grid: list[dict[str, Any]] = Field(min_length=1)

    def runs(self, texts: StudyTexts = UNPREPARED, parents: Parents | None = None) -> list[Run]:
        """All runs in the grid, in file order and without duplicates.

        texts: the prepared stores. parents: the candidate parents for `[finetune]`. Identities are final only if everything that the
        study declares is given. Raises InputError if a grid point is invalid, and ParentNotKnown if a parent is not known yet.
        """
        points = self.known_runs(texts, parents)
        if points.waiting:
            raise ParentNotKnown(points.waiting[0])
        return points.runs

    def known_runs(self, texts: StudyTexts = UNPREPARED, parents: Parents | None = None) -> KnownRuns:
        """Like `runs`, but reports unknown parents in `waiting` instead of raising ParentNotKnown."""
        corpus, further_tests, pool_corpus, mix = texts
        if further_tests is None:
            further_tests = tuple(FurtherTest(name=name, fingerprint="") for name in self.test_sets)
        if pool_corpus is None and self.pool:
            pool_corpus = PoolCorpus(tokens=self.pool.estimated_tokens(self.data))
        if mix is None:
            mix = tuple(MixedCorpus(name=source.label, share=source.share) for source in self.data.mix)
        if parents is None and self.parent_study:
            parents = Parents(self.parent_study.name, self.parent_study.runs())
        shared = self.training.model_dump() | {"evaluation": self.evaluation, "corpus": corpus}
        shared |= {"further_tests": further_tests, "pool_corpus": pool_corpus, "mix": mix}
        training = {corpus, *(mixed.fingerprint for mixed in mix)}
        separate = self.has_separate_pool and pool_corpus is not None and pool_corpus.fingerprint not in training - {""}
        return grid.known_runs(self._points(), shared, self.models, self.finetune, parents, separate)

    @property
    def text_in_words(self) -> str:
        """What the models are trained on: the training data, a named pool, and the parents' training data."""
        words = [self.data.in_words]
        if self.pool:
            words.append(f"pool: {self.pool.data(self.data).in_words}")
        if self.parent_study:
            words.append(f"parents: {self.parent_study.data.in_words}")
        return "; ".join(words)

    @property
    def has_separate_pool(self) -> bool:
        """Whether a named pool is not drawn from a source of the training data. A pool with equal text is drawn from it, too."""
        return self.pool is not None and self.pool.data(self.data) not in self.data.stores

    @property
    def test_sets(self) -> dict[str, DataSpec]:
        """The stores of the additional test sets by name: the `[[evaluate]]` tables, and the test text of a named pool.

        A pool that is drawn from the only source of the training data has the study's own test set.
        """
        tests = {test.name: test.data(self.data) for test in self.evaluate}
        if self.pool and self.data.stores != ((pool := self.pool.data(self.data)),):
            tests[POOL_DOMAIN] = pool
        return tests

    @property
    def training_tables(self) -> dict[str, DataSpec]:
        """The stores that the runs train on, keyed by their table in the study file: `data`, `data.mix.0`, `pool`.

        A named pool that is drawn from a source of the training data has no store of its own.
        """
        tables = {f"data.mix.{number}": data for number, data in enumerate(self.data.stores)}
        tables = tables if self.data.mix else {"data": self.data}
        if self.pool and self.has_separate_pool:
            tables["pool"] = self.pool.data(self.data)
        return tables

    @property
    def stores(self) -> list[DataSpec]:
        """Every store that the study needs, without duplicates."""
        specs = [*self.training_tables.values(), *self.test_sets.values()]
        return list({spec.store_name: spec for spec in specs}.values())

    def refuse_entire_pool(self, reason: str) -> None:
        """Raise InputError if the grid contains pool_tokens = "all". reason: why the pool is drawn from the training data."""
        for number, table in enumerate(self.grid):
            if ALL in grid.axis_values(table.get("pool_tokens")):
                raise InputError(
                    f'grid.{number}.pool_tokens: "{ALL}" is not possible, because the pool is drawn from the training data'
                    f" ({reason}), and the unique stream needs the rest of its text; expected a number of tokens"
                )

    def parents_needed(self, parents: Parents) -> list[Run]:
        """Runs in the parent study that this study's runs depend on, without duplicates."""
        return grid.parents_needed(self._points(), parents)

    @property
    def lineage(self) -> "list[Study]":
        """This study and its ancestors, oldest first."""
        return [*(self.parent_study.lineage if self.parent_study else []), self]

    def check_sharing(self, vocabulary: int) -> None:
        """Raise InputError if a run in this study or an ancestor cannot be split evenly among `processes_per_run` processes.

        vocabulary: size of the tokenizer's vocabulary, which a study shares with its ancestors.
        """
        for study in self.lineage:
            if study.resources.processes_per_run > 1:
                for run in study.runs():
                    check_divisible(run, study.resources, vocabulary)

    @property
    def _trains_on_installed(self) -> bool:
        return any(data.source.kind in INSTALLED for study in self.lineage for data in study.data.stores)

    def _points(self) -> list[Point]:
        return grid.grid_points(self.grid, allow_parents=self.finetune is not None)

    @model_validator(mode="after")
    def _check_models(self) -> Self:
        in_grid = {str(model) for table in self.grid for model in grid.axis_values(table.get("model", []))}
        for model, values in self.models.items():
            if model not in in_grid:
                raise InputError(f"models.{model}: not in the grid; its models are {', '.join(sorted(in_grid))}")
            validated(TrainingSpec, self.training.model_dump() | values, f"models.{model}.")
        return self

    @model_validator(mode="after")
    def _check_test_sets(self) -> Self:
        if self.data.test_fraction == 1:
            raise InputError("data.test_fraction: 1 leaves no text to train on; expected less than 1")
        names = [test.name for test in self.evaluate]
        if self.pool and POOL_DOMAIN in names:
            raise InputError(
                f"evaluate.{names.index(POOL_DOMAIN)}.name: {POOL_DOMAIN!r} is reserved for the test set of the [pool] table"
            )
        for number, test in enumerate(self.evaluate):
            if test.name in names[:number]:
                raise InputError(
                    f"evaluate.{number}.name: {test.name!r} is used twice; each test set needs its own name"
                )
            if (
                self._trains_on_installed
                and test.source.kind in INSTALLED
                and (test.test_fraction or 0) > self.data.test_fraction
            ):
                raise InputError(
                    f"evaluate.{number}.test_fraction: {test.test_fraction} of the installed files would include training text;"
                    f" expected at most data.test_fraction = {self.data.test_fraction}"
                )
        return self

    @model_validator(mode="after")
    def _check_token_sources(self) -> Self:
        tables = self.training_tables
        tables |= {f"evaluate.{number}": test.data(self.data) for number, test in enumerate(self.evaluate)}
        for table, data in tables.items():
            if isinstance(data.source, Tokens) and data.trains_tokenizer:
                tokenizer = "data.tokenizer" + (f" in {self.lineage[0].name}" if self.parent_study else "")
                raise InputError(
                    f"{table}.source: these files contain token ids of another tokenizer, but the study trains its own; set"
                    f" {tokenizer} to the tokenizer.json file that belongs to the ids"
                )
        return self

    @model_validator(mode="after")
    def _check_pool(self) -> Self:
        if self.pool and not self.has_separate_pool:
            self.refuse_entire_pool("it has the same source, max_tokens and test_fraction")
        if self.pool and self._trains_on_installed and self.pool.source.kind in INSTALLED:
            expected = self.data.test_fraction
            if (self.pool.test_fraction or expected) != expected:
                raise InputError(
                    f"pool.test_fraction: {self.pool.test_fraction} found; expected data.test_fraction = {expected}, because the"
                    " pool and the data come from the same installed files: otherwise, one's test text could be the other's training text"
                )
        return self

    @model_validator(mode="after")
    def _check_finetune(self) -> Self:
        if self.finetune is None:
            return self
        if self.parent_study is None:
            raise InputError("finetune.from: the parent study was not loaded; use load_study")
        names = [study.name for study in self.lineage]
        if len(set(names)) < len(names):
            raise InputError(f"finetune.from: two studies are named {self.name} and would share a folder")
        if self.data.test_fraction != (expected := self.parent_study.data.test_fraction):
            raise InputError(
                f"data.test_fraction: {self.data.test_fraction} found, but {self.parent_study.name} has {expected}; with"
                " different fractions, test text of one study could be training text of the other"
            )
        if not any(table.get("parent", SCRATCH) not in (SCRATCH, [SCRATCH]) for table in self.grid):
            raise InputError(
                'finetune: no [[grid]] table has a parent; add one, e.g. parent = ["scratch", "clean", "worst"]'
            )
        return self


def load_study(study: str | Path, overrides: Iterable[str] = ()) -> Study:
    """Load and validate a study, given the path of its TOML file or its name, e.g. `laptop`.

    A name refers to `studies/NAME.toml` in the working directory or, if there is no such file, to a study shipped with
    this package. overrides: `key=value` with dotted keys and TOML values, e.g. `training.tokens=1000000`. Overrides for
    the parent study start with `parent.`.
    Raises InputError with a one-line message that names the file, the key, the value found and the values accepted.
    """
    return _load(find_study(study), list(overrides), ())


def _load(path: Path, overrides: list[str], descendants: tuple[Path, ...]) -> Study:
    """Load a study file. `descendants`: the files of the studies that descend from this one."""
    for_parent = [override.removeprefix("parent.") for override in overrides if override.startswith("parent.")]
    table = read_study_file(path, [override for override in overrides if not override.startswith("parent.")])
    try:
        for key in Study.internal_fields & table.keys():
            raise InputError(f"{key}: not a key of a study file; set finetune.from instead")
        if isinstance(data := table.get("data"), dict) and "tokenizer_of" in data:
            raise InputError("data.tokenizer_of: not a key of a study file; set finetune.from instead")
        insert_copying_text(table, path.parent)
        if file := _parent_file(table, path.parent):
            _insert_parent_study(table, _load_parent(file, for_parent, (*descendants, path)))
        elif for_parent:
            raise InputError(
                f"--set parent.{for_parent[0]}: the study has no [finetune] table, so it has no parent study"
            )
        if "name" not in table:
            table["name"] = _default_name(path)
        study = validated(Study, table, "")
        study.runs()
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return study


def _default_name(path: Path) -> str:
    """The name of a study whose file does not set one: the file's name without its suffix."""
    name = path.stem
    if not name.isprintable() or not re.match(STUDY_NAME, name) or len(name) > LONGEST_NAME:
        raise InputError(
            f"this file name cannot be the name of the study; rename the file or add name = ... at its top; expected"
            f" {PATTERNS[STUDY_NAME]}, at most {LONGEST_NAME} characters"
        )
    return name


def _parent_file(table: dict[str, Any], folder: Path) -> Path | None:
    """The file that `finetune.from` refers to, relative to the folder of the study file; None if there is no such key."""
    finetune = table.get("finetune")
    if not isinstance(finetune, dict) or not isinstance(parent := finetune.get("from"), str):
        return None
    return folder / parent if parent.endswith(".toml") else named_study(parent, folder)


def _load_parent(file: Path, overrides: list[str], descendants: tuple[Path, ...]) -> Study:
    if os.path.realpath(file) in map(os.path.realpath, descendants):
        cycle = " -> ".join(path.stem for path in (*descendants, file))
        raise InputError(f"finetune.from: cycle {cycle}; a study cannot start from its own runs")
    return _load(file, overrides, descendants)


def _insert_parent_study(table: dict[str, Any], parent: Study) -> None:
    """Add the parent study to the table, and copy its tokenizer, vocabulary and test fraction to `data`."""
    table["parent_study"] = parent
    if not isinstance(data := table.get("data"), dict):
        return
    fixed = {key: getattr(parent.data, key) for key in ("vocabulary", "tokenizer", "end_of_text")}
    for key, expected in fixed.items():
        if (value := data.get(key, expected)) != expected:
            raise InputError(
                f"data.{key}: {value!r} found, but the parent study {parent.name} has {expected!r}; omit this key"
            )
    default = {"test_fraction": parent.data.test_fraction}
    table["data"] = default | data | fixed | {"tokenizer": None, "tokenizer_of": parent.data.stores[0]}
