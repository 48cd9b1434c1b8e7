"""Expand a study's `[[grid]]` tables into runs."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from data_prep.errors import InputError
from repeat_study.config.base import validated
from repeat_study.config.fixed_pool import fixed_pool, limited_estimate
from repeat_study.config.parents import SCRATCH, FineTune, ParentNotKnown, Parents
from repeat_study.config.run import Parent, Run

MAX_POINTS = 10_000  # per study; a larger grid takes seconds to expand, and its plan would be too long to read


@dataclass(frozen=True)
class Point:
    """One grid point: a value for each axis of its table, with the parent stored separately."""

    prefix: str  # start of error messages about this point, e.g. `grid.0.`
    values: dict[str, Any]
    parent: Any = SCRATCH  # selects the run to start from

    def located(self, error: InputError) -> InputError:
        """Copy an error about the parent, with this point's location added to the message."""
        return type(error)(f"{self.prefix}parent: {error}")


@dataclass(frozen=True)
class KnownRuns:
    """All runs except those with an unknown parent, and a message for each grid point with an unknown parent."""

    runs: list[Run]
    waiting: list[str]


def axis_values(value: Any) -> list[Any]:
    """The values of one `[[grid]]` axis. A single value is treated as a list with one element."""
    return value if isinstance(value, list) else [value]


def grid_points(tables: Iterable[dict[str, Any]], allow_parents: bool) -> list[Point]:
    """All grid points, in file order. Every table contributes the product of its lists.

    Raises InputError if a list is empty, if a key is not an axis, if there are more than MAX_POINTS points, or if a `parent` is
    given and `allow_parents` is false.
    """
    points: list[Point] = []
    tables = list(tables)
    count = sum(prod(len(axis_values(value)) for value in table.values()) for table in tables)
    if count > MAX_POINTS:
        raise InputError(f"grid: {count:,} points found; expected at most {MAX_POINTS:,}")
    for number, table in enumerate(tables):
        prefix = f"grid.{number}."
        axes = {key: axis_values(value) for key, value in table.items()}
        if "parent" in axes and not allow_parents:
            raise InputError(f"{prefix}parent: runs can only have parents in a study with a [finetune] table")
        for internal in Run.internal_fields & axes.keys():
            accepted = ", ".join(sorted(Run.model_fields.keys() - Run.internal_fields | Run.translated_keys))
            raise InputError(f"{prefix}{internal}: not an axis; expected {accepted}")
        for key, values in axes.items():
            if not values:
                raise InputError(f"{prefix}{key}: empty list; expected at least one value")
        for combination in product(*axes.values()):
            point = dict(zip(axes, combination, strict=True))
            parent = point.pop("parent", SCRATCH)
            points.append(Point(prefix, point, parent))
    return points


def known_runs(
    points: Iterable[Point],
    shared: dict[str, Any],
    models: dict[str, dict[str, Any]],
    finetune: FineTune | None,
    parents: Parents | None,
    separate_pool: bool = False,
) -> KnownRuns:
    """The runs at these points, in order and without duplicates.

    shared: values for all runs. models: values by model size, which override `shared`. A point's own values override both.
    parents: the candidate parents; None if no run has a parent. separate_pool: whether the pool has a store of its own, so that
    the unit of the pool does not affect the clean control. Raises InputError if a point is invalid.
    """
    runs: dict[Run, None] = {}
    waiting: list[str] = []
    points = list(points)
    declared = [shared | models.get(str(point.values.get("model")), {}) | point.values for point in points]
    pool_corpus = limited_estimate(shared.get("pool_corpus"), declared)
    for point, values in zip(points, declared, strict=True):
        values["pool_corpus"] = pool_corpus
        if "pool_tokens" in values:
            values["fixed_pool"] = fixed_pool(values.pop("pool_tokens"), values, point.prefix)
        if separate_pool and values.get("repeats") == 0:
            values.pop("unit", None)  # runs with other units share one clean control
        run = validated(Run, values, point.prefix)
        try:
            choice = parents.choose(point.parent, run.model, run.seed) if parents else None
        except ParentNotKnown as error:
            waiting.append(str(point.located(error)))
            continue
        except InputError as error:
            raise point.located(error) from error
        if choice:
            assert finetune
            _check_parent(run, choice.run, point.prefix)
            run = validated(Run, values | _fine_tuned(run, choice.record, finetune, point), point.prefix)
        runs[run] = None
    return KnownRuns(list(runs), waiting)


def parents_needed(points: Iterable[Point], parents: Parents) -> list[Run]:
    """Parent runs that the runs at these points depend on, without duplicates.

    Raises InputError if a selector is invalid.
    """
    needed: dict[Run, None] = {}
    for point in points:
        try:
            runs = parents.needed(point.parent, str(point.values.get("model")), point.values.get("seed", 0))
        except InputError as error:
            raise point.located(error) from error
        needed |= dict.fromkeys(runs)
    return list(needed)


def _check_parent(run: Run, parent: Run, prefix: str) -> None:
    """Raise InputError if fine-tuning would change the shape of the model's inputs or outputs."""
    for key in ("context", "vocabulary_multiple"):
        if (value := getattr(run, key)) != (expected := getattr(parent, key)):
            raise InputError(f"{prefix}{key}: {value} found, but the parent {parent.label} has {expected}")


def _fine_tuned(run: Run, parent: Parent, finetune: FineTune, point: Point) -> dict[str, Any]:
    """The fields of a run that fine-tuning changes."""
    changes: dict[str, Any] = {"parent": parent, "learning_rate": run.learning_rate * finetune.learning_rate_share}
    if "warmup_fraction" not in point.values:
        changes["warmup_fraction"] = finetune.warmup_fraction
    return changes
