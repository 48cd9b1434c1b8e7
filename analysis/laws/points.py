"""What laws are fitted on and asked about: model size, tokens, repeated fraction, repeats and, where known, loss."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from data_prep.errors import InputError

if TYPE_CHECKING:
    from analysis.runs import Runs

Floats = npt.NDArray[np.float64]
COLUMNS = ("params", "tokens", "fraction", "repeats", "loss")
ACCEPTED: dict[str, tuple[str, Callable[[Floats], Any]]] = {
    "params": ("a number above 0", lambda value: value > 0),
    "tokens": ("a number above 0", lambda value: value > 0),
    "fraction": ("a share from 0 to 1", lambda value: (value >= 0) & (value <= 1)),
    "repeats": ("1 (clean) or more", lambda value: value >= 1),
    "loss": ("nats per token above 0, up to 100", lambda value: (value > 0) & (value <= 100)),
}


@dataclass(frozen=True)
class Points:
    """Runs as laws see them, one entry each in arrays of one shape.

    params: as the law counts them; tokens: trained on; fraction: the share of them that comes from the repeated pool, 0 for
    clean runs; repeats: R, 1 for clean runs; loss: final test loss in nats per token.
    """

    params: Floats
    tokens: Floats
    fraction: Floats
    repeats: Floats
    loss: Floats

    def __len__(self) -> int:
        return self.params.size

    def __getitem__(self, chosen: slice | npt.NDArray[Any]) -> "Points":
        """The points at these places, or where this mask holds."""
        return Points(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @property
    def clean(self) -> npt.NDArray[np.bool_]:
        """Which points repeat nothing."""
        return self.repeats == 1

    @property
    def pool(self) -> Floats:
        """D_r = f·T/R in tokens."""
        return self.fraction * self.tokens / self.repeats

    @property
    def unique(self) -> Floats:
        """Different tokens seen: (1 - f)·T once, and the pool."""
        return (1 - self.fraction) * self.tokens + self.pool

    def as_clean(self) -> "Points":
        """The same sizes and tokens with nothing repeated."""
        return replace(self, fraction=np.zeros_like(self.fraction), repeats=np.ones_like(self.repeats))


def ask(params: npt.ArrayLike, tokens: npt.ArrayLike, fraction: npt.ArrayLike, repeats: npt.ArrayLike) -> Points:
    """Points whose loss is asked for, broadcast to one shape; those with R = 1 are clean."""
    n, t, f, r = (np.array(a, float) for a in np.broadcast_arrays(params, tokens, fraction, repeats))
    return Points(n, t, np.where(r == 1, 0.0, f), r, np.full_like(n, np.nan))


def points_of(runs: "Runs") -> Points:
    """The finished runs of a study by parameters without embeddings; models of one layer are left out where there are deeper
    ones."""
    from analysis.runs import in_law

    table = in_law(runs)
    names = ("parameters_non_embedding", "trained_tokens", "repeated_fraction", "repeats", "final_test_loss")
    return Points(*(table[name].to_numpy(float) for name in names))


def read_points(path: Path) -> Points:
    """A user's runs from a CSV file with at least the columns of COLUMNS; lines that differ in `loss` alone are seeds.

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
    table = table[(table != "").any(axis=1)]  # blank lines count as lines
    if missing := [name for name in COLUMNS if name not in table]:
        raise InputError(
            f"{path}: no column {', '.join(missing)}; found {', '.join(table)}; needed {', '.join(COLUMNS)}"
        )
    if twice := [name for name in COLUMNS if f"{name}.1" in table]:
        raise InputError(f"{path}: two columns {', '.join(twice)}")
    if table.empty:
        raise InputError(f"{path}: no runs in it")

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
    nothing = (points.fraction == 0) & ~points.clean
    if nothing.any():
        at = line(int(nothing.argmax()))
        raise InputError(f"{path}, {at}: repeats above 1 of a fraction of 0; clean runs have repeats 1")
    again = pd.DataFrame(np.stack(columns, axis=1)).duplicated().to_numpy()
    if again.any():
        raise InputError(f"{path}, {line(int(again.argmax()))}: a run that stands there twice, loss and all")
    return replace(points, fraction=np.where(points.clean, 0.0, points.fraction))
