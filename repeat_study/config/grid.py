"""From the `[[grid]]` tables of a study to its runs."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from data_prep.errors import InputError
from repeat_study.config.base import validated
from repeat_study.config.parents import SCRATCH, FineTune, ParentNotKnown, Parents
from repeat_study.config.run import Parent, Run

MOST_POINTS = 10_000  # of one study; it takes seconds to list more, and no one reads the list


@dataclass(frozen=True)
class Point:
    """One point of a grid: a value for each key of its table, the parent aside."""

    where: str  # prefix of error messages, e.g. `grid.0.`
    values: dict[str, Any]
    parent: Any = SCRATCH  # selects the run to start from

    def located(self, error: InputError) -> InputError:
        """The same error about the parent, with the location of this point."""
        return type(error)(f"{self.where}parent: {error}")


@dataclass(frozen=True)
class KnownRuns:
    """The runs of a grid whose parent is known, and one line for each point that still waits for its parent."""

    runs: list[Run]
    waiting: list[str]


def axis_values(value: Any) -> list[Any]:
    """The values of one key of a `[[grid]]` table, which may also be a single value."""
    return value if isinstance(value, list) else [value]


def grid_points(tables: Iterable[dict[str, Any]], allow_parents: bool) -> list[Point]:
    """All points of the grid, in the order of the file; every table is the product of its lists.

    Raises InputError for an empty list, for a key that is not an axis, for a `parent` unless `allow_parents`, and for more
    than MOST_POINTS points.
    """
    points: list[Point] = []
    tables = list(tables)
    count = sum(prod(len(axis_values(value)) for value in table.values()) for table in tables)
    if count > MOST_POINTS:
        raise InputError(f"grid: {count:,} points; expected up to {MOST_POINTS:,}")
    for number, table in enumerate(tables):
        where = f"grid.{number}."
        axes = {key: axis_values(value) for key, value in table.items()}
        if "parent" in axes and not allow_parents:
            raise InputError(f"{where}parent: runs can only have parents in a study with a [finetune] table")
        for internal in Run.internal_fields & axes.keys():
            accepted = ", ".join(sorted(Run.model_fields.keys() - Run.internal_fields))
            raise InputError(f"{where}{internal}: not an axis; expected {accepted}")
        for key, values in axes.items():
            if not values:
                raise InputError(f"{where}{key}: an empty list; give at least one value")
        for combination in product(*axes.values()):
            point = dict(zip(axes, combination, strict=True))
            parent = point.pop("parent", SCRATCH)
            points.append(Point(where, point, parent))
    return points


def known_runs(
    points: Iterable[Point],
    shared: dict[str, Any],
    models: dict[str, dict[str, Any]],
    finetune: FineTune | None,
    parents: Parents | None,
) -> KnownRuns:
    """The runs at these points, each once and in order.

    shared: fields that all runs have. models: fields that runs of one model size have instead. A point's own values
    override both. parents: candidates for the parents; None if no run has one. Raises InputError for a bad point.
    """
    runs: dict[Run, None] = {}
    waiting: list[str] = []
    for point in points:
        values = shared | models.get(str(point.values.get("model")), {}) | point.values
        run = validated(Run, values, point.where)
        try:
            choice = parents.choose(point.parent, run.model, run.seed) if parents else None
        except ParentNotKnown as error:
            waiting.append(str(point.located(error)))
            continue
        except InputError as error:
            raise point.located(error) from error
        if choice:
            assert finetune
            _check_parent(run, choice.run, point.where)
            run = validated(Run, values | _fine_tuned(run, choice.record, finetune, point), point.where)
        runs[run] = None
    return KnownRuns(list(runs), waiting)


def parents_needed(points: Iterable[Point], parents: Parents) -> list[Run]:
    """Runs that must finish before all of these points can start, each once. Raises InputError for a bad selector."""
    needed: dict[Run, None] = {}
    for point in points:
        try:
            runs = parents.needed(point.parent, str(point.values.get("model")), point.values.get("seed", 0))
        except InputError as error:
            raise point.located(error) from error
        needed |= dict.fromkeys(runs)
    return list(needed)


def _check_parent(run: Run, parent: Run, where: str) -> None:
    """Raise InputError if fine-tuning would change the shape of the model's inputs or outputs."""
    for key in ("context", "vocabulary_multiple"):
        if (value := getattr(run, key)) != (expected := getattr(parent, key)):
            raise InputError(f"{where}{key}: {value} found, but the parent {parent.label} has {expected}")


def _fine_tuned(run: Run, parent: Parent, finetune: FineTune, point: Point) -> dict[str, Any]:
    """The fields of a run that fine-tuning changes."""
    changes: dict[str, Any] = {"parent": parent, "learning_rate": run.learning_rate * finetune.learning_rate_share}
    if "warmup_fraction" not in point.values:
        changes["warmup_fraction"] = finetune.warmup_fraction
    return changes
