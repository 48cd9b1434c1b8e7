"""The laws of one study: what could be fitted on its finished runs, and how the fits predict runs that were left out."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from analysis.laws.cross_validation import compare, verdict
from analysis.laws.fit import CannotFit, Fitted, fit
from analysis.laws.points import Points, points_of
from analysis.laws.registry import LAWS
from analysis.runs import Runs

DRAWS = 100
MOST_RUNS = 150  # of more, the means over seeds are fitted: it takes a third of the time


@dataclass(frozen=True)
class StudyLaws:
    """fits: of the laws that the runs determine; reasons: why not, of the others, by name; compared: `held_out.compare`."""

    points: Points
    fits: dict[str, Fitted]
    reasons: dict[str, str]
    compared: pd.DataFrame

    @property
    def verdict(self) -> str:
        """Which law predicts best, in sentences."""
        return verdict(self.compared) if len(self.compared) else ""

    def constants(self) -> pd.DataFrame:
        """A row per law and constant that was fitted, with its 95% interval."""
        rows = [
            {"law": name, "runs": found.points, "error": found.error, "constant": constant}
            | {"value": found.constants[constant]}
            | dict(zip(("low", "high"), found.interval(constant), strict=True))
            | {"determined": constant not in found.undetermined}
            for name, found in self.fits.items()
            for constant in found.free
        ]
        return pd.DataFrame(rows, columns=["law", "runs", "error", "constant", "value", "low", "high", "determined"])


def laws_of(runs: Runs) -> StudyLaws:
    """Fit and compare; what cannot be is in `reasons`."""
    points = points_of(runs) if len(runs.done) else None
    if points is None or not points.clean.any() or points.clean.all():
        kind = "clean" if points is None or not points.clean.any() else "repeated"
        empty = points if points is not None else Points(*(np.empty(0) for _ in range(5)))
        return StudyLaws(empty, {}, {law.name: f"no finished {kind} run" for law in LAWS}, pd.DataFrame())
    columns = (points.params, points.tokens, points.fraction, points.repeats, points.loss)
    return _laws_of(tuple(tuple(column) for column in columns))


@lru_cache(maxsize=64)
def _laws_of(columns: tuple[tuple[float, ...], ...]) -> StudyLaws:
    """Figures, tables and the summary of one report read the same."""
    points = Points(*(np.array(column) for column in columns))
    if len(points) > MOST_RUNS:
        points = means(points)
    fits, reasons = {}, {}
    for law in LAWS:
        try:
            fits[law.name] = fit(law, points, draws=DRAWS)
        except CannotFit as error:
            reasons[law.name] = str(error)
    compared = compare(points) if any(not found.law.only_clean for found in fits.values()) else pd.DataFrame()
    return StudyLaws(points, fits, reasons, compared)


def means(points: Points) -> Points:
    """One point for the seeds of each arm."""
    names = ["params", "tokens", "fraction", "repeats"]
    table = pd.DataFrame({name: getattr(points, name) for name in [*names, "loss"]})
    table = table.groupby(names, as_index=False).loss.mean()
    return Points(*(table[name].to_numpy(float) for name in [*names, "loss"]))
