"""Simulate runs that follow a law exactly, and measure how often the intervals of the laws contain the runs that are left out of a fit.

    python -m analysis.laws.simulate OUT.csv [SIMULATIONS]

writes one row per true law, fitted law and kind of runs left out. Two laws are fitted to the runs that follow a law: this law, and our own.
The number of a simulation is its seed, so the same command writes the same file.
"""

import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.laws import chudnovsky, clean, hernandez, lovelace, muennighoff, partial, powers
from analysis.laws.cross_validation import cross_validate, summarize
from analysis.laws.law import Constants, Law
from analysis.laws.points import Floats, Points, prediction_points
from data_prep.errors import InputError
from data_prep.files import write_output

SIMULATIONS = 10
NOISE = 0.002  # standard deviation of the log of the loss between runs
SIZES = (2e5, 1e6, 5e6, 3e7)
TOKENS_PER_PARAM = 20
REPEATS = (1, 4, 12, 40, 120, 400, 1200)
FRACTIONS = (0.5, 0.9)
COLUMNS = ["runs_follow", "law", "kind", "simulations", "runs", "error", "median", "coverage", "reason"]
TRUE: dict[str, tuple[Law, dict[str, float]]] = {
    "clean_size": (clean.IN_SIZE, {"E": 1.8, "A": 20.0, "alpha": 0.2}),
    "clean_compute": (clean.IN_COMPUTE, {"E": 1.8, "A": 2000.0, "alpha": 0.2}),
    "muennighoff": (muennighoff.LAW, muennighoff.CONSTANTS),
    "lovelace": (lovelace.LAW, {"P": 0.02, "delta": 0.8, "kappa": 0.4}),
    "hernandez": (
        hernandez.LAW,
        {"E": 1.8, "A": 20.0, "alpha": 0.2, "depth": 4.0, "gamma": 0.8, "k_left": 2e4, "a_left": -0.5}
        | {"k_right": 4e5, "a_right": -0.45},
    ),
    "chudnovsky": (
        chudnovsky.LAW,
        {"E": 1.8, "A": 2000.0, "alpha": 0.2, "odds": 0.05, "growth": 0.2, "k": 1e5, "a": -0.5, "sigma": 0.6},
    ),
    "powers": (
        powers.LAW,
        {
            "B": 60.0,
            "P": 2.0,
            "eta": -0.1,
            "gamma": 1.5,
            "rise": 2.0,
            "fall": 0.8,
            "k": 9e3,
            "a": -0.4,
            "b": 0.0,
            "c": -0.2,
        },
    ),
    "partial": (
        partial.LAW,
        {
            "B": 60.0,
            "P": 2.0,
            "eta": -0.1,
            "gamma": 1.5,
            "kappa": 0.8,
            "s": 2.5,
            "k": 9e3,
            "a": -0.4,
            "b": 0.0,
            "c": -0.2,
        },
    ),
}
# The clean law for laws of repetition without one of their own.
CLEAN = {"E": 1.8, "A": 20.0, "alpha": 0.2, "B": 20.0, "beta": 0.3}


def true_loss(law: Law, constants: Constants, points: Points) -> Floats:
    """The loss of runs that follow the law exactly."""
    if law.clean_loss:
        return law.loss(constants, points)
    return clean.by_size_and_tokens(CLEAN, points) + law.penalty(constants, points)


def simulated(law: Law, constants: Constants, seed: int) -> Points:
    """Two runs per size, fraction and R, with noise. A law without f has one fraction; the law of M23 has f = 1 and R up to 40."""
    fractions = FRACTIONS[:1] if law.ignores_fraction else FRACTIONS
    grid = [(n, TOKENS_PER_PARAM * n, f, r) for n in SIZES for f in fractions for r in REPEATS]
    if law is muennighoff.LAW:
        grid = [(n, t, 1.0, r) for n in (1e7, 1e8, 1e9, 5e9) for t in (1e9, 1e10, 1e11) for r in (1, 2, 5, 15, 40)]
    points = prediction_points(*np.array(grid * 2, float).T)
    noise = NOISE * np.random.default_rng(seed).standard_normal(len(points))
    return replace(points, loss=true_loss(law, constants, points) * np.exp(noise))


def coverage(simulations: int, names: Sequence[str] | None = None) -> pd.DataFrame:
    """Cross-validate on simulated runs. Returns one row per true law, fitted law and kind of runs left out, with the columns COLUMNS.

    names: the true laws; all laws of repetition by default. error, median and coverage as in `cross_validation.summarize`.
    """
    rows = []
    for name in names or [name for name, (law, _) in TRUE.items() if not law.clean_only]:
        law, constants = TRUE[name]
        fitted = [law] if law is partial.LAW else [law, partial.LAW]
        errors = [cross_validate(simulated(law, constants, seed), laws=fitted) for seed in range(simulations)]
        summary = summarize(pd.concat(errors, ignore_index=True))
        of_laws = summary[summary.law.isin([each.name for each in fitted])]
        rows.append(of_laws.assign(runs_follow=name, simulations=simulations))
        print(rows[-1][COLUMNS].to_string(index=False, header=len(rows) == 1, float_format="%.4g"), flush=True)
    return pd.concat(rows, ignore_index=True)[COLUMNS].sort_values(
        "law", key=lambda law: law == partial.LAW.name, kind="stable", ignore_index=True
    )


def main(arguments: list[str]) -> None:
    """Simulate, print and write."""
    number = arguments[1] if len(arguments) == 2 else str(SIMULATIONS)
    if len(arguments) not in (1, 2) or not number.isdecimal() or int(number) < 1:
        raise InputError("expected OUT.csv and, optionally, a number of simulations")
    out = Path(arguments[0])
    if not out.parent.is_dir():
        raise InputError(f"{out}: the folder {out.parent} does not exist")
    warnings.simplefilter("ignore")
    write_output(out, coverage(int(number)).to_csv(index=False, float_format="%.4g").encode())


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(f"simulate: {error}")
