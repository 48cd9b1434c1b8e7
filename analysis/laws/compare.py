"""Cross-validate the laws on several tables of runs, and leave out one laboratory at a time.

    python -m analysis.laws.compare OUT.csv laboratory=TABLE.csv[,TABLE.csv] ...

writes the errors and the coverage of every law on every table and prints them. The tables have the columns that `repeat-study fit` expects.
"""

import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.laws import partial, powers
from analysis.laws.cross_validation import cross_validate, summarize
from analysis.laws.points import Points
from analysis.laws.pool import Pool, fit_pool, leave_laboratories_out, pooled
from analysis.laws.runs_csv import read_points
from data_prep.errors import InputError

GRID = 0.35  # spacing of the tried values that pooled.py lists, in factors of e


def main(arguments: list[str]) -> None:
    """Compare the laws on the given tables."""
    if len(arguments) < 2:
        raise InputError("expected OUT.csv and at least one LABORATORY=TABLE.csv[,TABLE.csv]")
    out, *listed = arguments
    tables: list[pd.DataFrame] = []
    laboratories: dict[str, list[Points]] = {}
    for entry in listed:
        laboratory, equals, files = entry.partition("=")
        if not equals:
            raise InputError(f"{entry}: expected LABORATORY=TABLE.csv")
        for file in files.split(","):
            pairing = read_points(Path(file))
            laboratories.setdefault(laboratory, []).append(pairing.points)
            began = time.monotonic()
            errors = cross_validate(pairing.points)
            print(f"{file}: {pairing} {time.monotonic() - began:.0f} s", flush=True)
            if not errors.empty:
                tables.append(summarize(errors).assign(table=Path(file).stem))
    pool = pooled({name: _together(points) for name, points in laboratories.items()})
    left_out = leave_laboratories_out(pool, (partial.LAW, powers.LAW))
    tables.append(left_out.rename(columns={"held_out": "table"}).assign(folds=1))
    columns = [
        "table",
        "kind",
        "law",
        "folds",
        "runs",
        "error",
        "median",
        "worst_repeats",
        "coverage",
        "implausible",
        "reason",
    ]
    together = pd.concat(tables, ignore_index=True)[columns]
    together.to_csv(out, index=False, float_format="%.4g")
    print(together.drop(columns="reason").to_string(index=False, float_format="%.4g"))
    print("\nconstants of our law, fitted to all laboratories, for pooled.py:\n" + _pooled_constants(pool))


def _pooled_constants(pool: Pool) -> str:
    """The part of pooled.py that follows from the tables."""
    fitted = fit_pool(pool)
    repeated = pool.points
    lines = [f"THETA = {tuple(_rounded(fitted.theta))}", "COVARIANCE = ("]
    lines += [f"    {tuple(_rounded(row))}," for row in fitted.covariance]
    lines += [
        ")",
        f"REFERENCE = { ({name: float(f'{value:.8g}') for name, value in fitted.problem.reference.items()}) }",
    ]
    lines += [f"SPREAD = {fitted.spread}", "TRIED = {"]
    for column in ("params", "tokens", "fraction", "repeats"):
        values = getattr(repeated, column)
        cells = np.unique(np.round(np.log(values) / GRID))
        inner = [value for value in np.exp(cells * GRID) if values.min() < value < values.max()]
        lines.append(f'    "{column}": {tuple(_rounded([values.min(), *inner, values.max()]))},')
    return "\n".join([*lines, "}", f"RUNS = {len(repeated)}"])


def _rounded(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def _together(points: list[Points]) -> Points:
    columns = ("params", "tokens", "fraction", "repeats", "loss", "control")
    return Points(*(np.concatenate([getattr(each, column) for each in points]) for column in columns))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(f"compare: {error}")
