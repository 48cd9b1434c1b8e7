"""The numbers that a run can record. `report` refuses any other number, because the record was edited or damaged.

The ranges are wide enough for a run that is about to diverge. Models compute in float32, so a loss is at most 3.4e38. Half the width of
an interval for a difference of losses can be 26 times as large if it is computed from two sequences.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.errors import InputError
from repeat_study.config.run import Run
from repeat_study.records.json_lines import LARGEST
from repeat_study.records.metric import FRACTION
from repeat_study.records.metrics import BY_COLUMN, BY_KEY

TOLERANCE = 1e-3  # for rounding errors: a loss of 0 can become slightly negative, and a score of 1 slightly larger
LARGEST_SCORE_INTERVAL = 13.0  # half the width of the 95% interval of two sequences that score -1 and 1
LONGEST_LIST = 16  # numbers per evaluation: one per copy of a paragraph, or one per band of positions
ROW_NUMBERS = {  # columns that number the rows of an evaluation
    "heads.parquet": ("layer", "head"),
    "paragraph.parquet": ("copy",),
    "test_sequences.parquet": ("sequence",),
    "pool_sequences.parquet": ("sequence",),
}


def range_of(name: str) -> tuple[float, float]:
    """The smallest and the largest number that a run can record in a column of any table or in a key of metrics.jsonl."""
    base = name.removesuffix("_ci").removesuffix("_null")
    metric = BY_KEY.get(base) or BY_COLUMN.get(base)
    unit = metric.unit if metric else ""
    if name.endswith("_ci"):
        return 0.0, LARGEST_SCORE_INTERVAL if unit in (FRACTION, "-1 to 1") else LARGEST
    if unit == FRACTION or name == "learning_rate":
        return 0.0, 1 + TOLERANCE
    if unit == "-1 to 1":
        return -1 - TOLERANCE, 1 + TOLERANCE
    is_loss = name == "loss" or name.startswith(("test_loss", "loss_by_position")) or "_loss_per_copy" in name
    if is_loss or name == "gradient_norm" or (metric and metric.is_loss):
        return -TOLERANCE, LARGEST
    return -LARGEST, LARGEST


def check_ranges(table: pa.Table, path: Path) -> None:
    """Raise InputError if a numeric column of a record has a number out of range. Missing numbers are accepted."""
    for name, kind in zip(table.column_names, table.schema.types, strict=True):
        if pa.types.is_null(kind) or pa.types.is_string(kind):
            continue
        numbers = pc.list_flatten(table[name]) if pa.types.is_list(kind) else table[name]
        low, high = range_of(name)
        for extreme in () if pa.types.is_null(numbers.type) else pc.min_max(numbers).as_py().values():
            if extreme is not None and not math.isnan(extreme) and not low <= extreme <= high:
                raise InputError(f"{path}: {name}: {extreme:.6g} found; expected {low:.4g} to {high:.4g}")


def check_evaluations(table: pa.Table, path: Path, run: Run) -> None:
    """Raise InputError if the evaluations in a record of `run` do not fit the run.

    Every row must have a step of the run and the number of tokens trained by then. The rows of an evaluation must be numbered as the
    run numbers them. Evaluations must be in order, without repetition, and have the same number of rows.
    """
    limits = {
        "step": (0, run.steps),
        "tokens": (0, run.steps * run.tokens_per_step),
        "layer": (0, run.shape.layers - 1),
        "head": (0, run.shape.heads - 1),
        "copy": (1, run.context),
        "sequence": (0, max(0, len(table) - 1)),
    }
    order = ("step", *ROW_NUMBERS.get(path.name, ()))
    columns: dict[str, npt.NDArray[np.int64]] = {}
    for name in ("tokens", *order):
        low, high = limits[name]
        for extreme in pc.min_max(table[name]).as_py().values():
            if extreme is not None and not low <= extreme <= high:
                raise InputError(f"{path}: {name}: {extreme} found; expected {low} to {high}")
        columns[name] = table[name].cast(pa.int64()).to_numpy()
    differs = columns["tokens"] != columns["step"] * run.tokens_per_step
    if differs.any():
        step, tokens = (int(columns[name][differs][0]) for name in ("step", "tokens"))
        raise InputError(f"{path}: tokens: {tokens} found at step {step}; expected {step * run.tokens_per_step}")
    if not _is_increasing([columns[name] for name in order], strictly=path.name != "paragraph.parquet"):
        raise InputError(f"{path}: rows out of order or repeated; expected rows in order of {' and '.join(order)}")
    steps, rows = np.unique(columns["step"], return_counts=True)
    if len(set(rows)) > 1:
        other = int(np.argmax(rows != rows[0]))
        found = f"{rows[0]} rows at step {steps[0]} and {rows[other]} at step {steps[other]}"
        raise InputError(f"{path}: {found}; expected the same number at every evaluation")
    for name, kind in zip(table.column_names, table.schema.types, strict=True):
        if pa.types.is_list(kind):
            _check_lengths(table[name], f"{path}: {name}")
    if "sequence" in columns and not np.array_equal(
        columns["sequence"], np.tile(np.arange(max(rows, default=0)), len(steps))
    ):
        raise InputError(f"{path}: sequence: a number is missing; expected 0, 1, 2, ... at every evaluation")
    if "copy" in columns and len(table):
        _check_paragraph(table, path, columns["copy"], int(rows[0]))


def _is_increasing(columns: list[npt.NDArray[Any]], strictly: bool) -> bool:
    """Whether the rows of these columns increase in lexicographic order."""
    if not len(columns[0]):
        return True
    increases, equal = np.zeros(len(columns[0]) - 1, bool), np.ones(len(columns[0]) - 1, bool)
    for column in columns:
        difference = np.diff(column)
        increases |= equal & (difference > 0)
        equal &= difference == 0
    return bool(increases.all() if strictly else (increases | equal).all())


def _check_lengths(lists: pa.ChunkedArray, where: str) -> None:
    """Check that the lists of all evaluations have equal lengths, and no missing numbers. Missing lists are accepted."""
    lengths = set(pc.list_value_length(lists).drop_null().to_pylist())
    if len(lengths) > 1 or not lengths <= set(range(2, LONGEST_LIST + 1)):
        found = " and ".join(map(str, sorted(lengths)[:2]))
        raise InputError(f"{where}: {found} numbers found; expected 2 to {LONGEST_LIST}, the same at every evaluation")
    if pc.list_flatten(lists).null_count:
        raise InputError(f"{where}: a list has a missing number; expected complete lists")


def _check_paragraph(table: pa.Table, path: Path, copies: npt.NDArray[np.int64], rows: int) -> None:
    """Check that every evaluation has the same copies of the same paragraph. `rows`: rows of an evaluation."""
    length, rest = divmod(rows, int(copies.max()))
    expected = np.tile(np.repeat(np.arange(1, copies.max() + 1), length), len(table) // rows)
    if rest or not np.array_equal(copies, expected):
        raise InputError(f"{path}: copy: copies of different lengths found; expected equal lengths")
    tokens = table["token"]
    if not pc.all(pc.equal(tokens.slice(length), tokens.slice(0, len(tokens) - length)), min_count=0).as_py():
        raise InputError(
            f"{path}: token: different copies of the paragraph found; expected the same tokens in every copy"
        )
