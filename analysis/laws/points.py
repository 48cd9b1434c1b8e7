"""The runs that a law is fitted on or predicts: model size, tokens, repeated fraction, repeats and, if known, loss."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.errors import InputError

Floats = npt.NDArray[np.float64]
COLUMNS = ("params", "tokens", "fraction", "repeats", "loss")
ACCEPTED: dict[str, tuple[str, Callable[[Floats], Any]]] = {
    "params": ("a number above 0", lambda value: value > 0),
    "tokens": ("a number above 0", lambda value: value > 0),
    "fraction": ("a number from 0 to 1", lambda value: (value >= 0) & (value <= 1)),
    "repeats": ("a number from 1 (clean) upwards", lambda value: value >= 1),
    "loss": ("nats per token, above 0 and up to 100", lambda value: (value > 0) & (value <= 100)),
}


@dataclass(frozen=True)
class Points:
    """Runs as arrays of one shape, an entry per run.

    params: N, counted as the law counts it; tokens: T, trained on; fraction: f, the share of the tokens that comes from the
    repeated pool, 0 for clean runs; repeats: R, 1 for clean runs; loss: final test loss in nats per token, NaN if unknown.
    """

    params: Floats
    tokens: Floats
    fraction: Floats
    repeats: Floats
    loss: Floats

    def __len__(self) -> int:
        return self.params.size

    def __getitem__(self, chosen: slice | npt.NDArray[Any]) -> "Points":
        """The points that a slice, a mask or an array of indices chooses."""
        return Points(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @property
    def clean(self) -> npt.NDArray[np.bool_]:
        """Mask of the runs without repetition."""
        return self.repeats == 1

    @property
    def pool(self) -> Floats:
        """Size of the repeated pool in tokens, f·T/R."""
        return self.fraction * self.tokens / self.repeats

    @property
    def unique(self) -> Floats:
        """Number of different tokens seen: (1 - f)·T seen once, and the pool."""
        return (1 - self.fraction) * self.tokens + self.pool

    def as_clean(self) -> "Points":
        """The same sizes and tokens without repetition."""
        return replace(self, fraction=np.zeros_like(self.fraction), repeats=np.ones_like(self.repeats))


def prediction_points(
    params: npt.ArrayLike, tokens: npt.ArrayLike, fraction: npt.ArrayLike, repeats: npt.ArrayLike
) -> Points:
    """Points to predict the loss of, broadcast to one shape; those with R = 1 are clean."""
    n, t, f, r = (np.array(a, float) for a in np.broadcast_arrays(params, tokens, fraction, repeats))
    return Points(n, t, np.where(r == 1, 0.0, f), r, np.full_like(n, np.nan))


def read_points(path: Path) -> Points:
    """Runs from a CSV file with the columns of COLUMNS, and perhaps others; rows that differ only in `loss` are seeds.

    Raises InputError that names the line and the column, what was found and what is accepted.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True, skip_blank_lines=False)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a CSV file: {error}") from error
    table.columns = table.columns.str.strip()
    table = table[(table != "").any(axis=1)]  # after reading, so that blank lines count in line numbers
    if missing := [name for name in COLUMNS if name not in table]:
        raise InputError(
            f"{path}: missing column {', '.join(missing)}; found {', '.join(table)}; required are {', '.join(COLUMNS)}"
        )
    if repeated := [name for name in COLUMNS if f"{name}.1" in table]:
        raise InputError(f"{path}: column {', '.join(repeated)} appears twice; accepted is once")
    if table.empty:
        raise InputError(f"{path}: found no runs below the header; accepted is one run per line")

    def line(row: int) -> str:
        return f"line {table.index[row] + 2}"

    columns = []
    for name in COLUMNS:
        values = pd.to_numeric(table[name], errors="coerce").to_numpy(float)
        accepted, holds = ACCEPTED[name]
        wrong = ~(np.isfinite(values) & holds(values))
        if wrong.any():
            row = int(wrong.argmax())
            raise InputError(f"{path}, {line(row)}: {name} is {table[name].iloc[row]!r}; accepted is {accepted}")
        columns.append(values)
    points = Points(*columns)
    no_pool = (points.fraction == 0) & ~points.clean
    if no_pool.any():
        at = line(int(no_pool.argmax()))
        raise InputError(f"{path}, {at}: fraction is 0 but repeats is above 1; a clean run has repeats 1")
    duplicate = pd.DataFrame(np.stack(columns, axis=1)).duplicated().to_numpy()
    if duplicate.any():
        at = line(int(duplicate.argmax()))
        raise InputError(f"{path}, {at}: the same run as on an earlier line; seeds must differ in loss")
    return replace(points, fraction=np.where(points.clean, 0.0, points.fraction))
