"""All laws fitted on the finished runs of one study, with cross-validation."""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pandas as pd

from analysis.laws.cross_validation import cross_validate, verdict
from analysis.laws.fit import CannotFit, FittedLaw, Progress, fit
from analysis.laws.points import Points
from analysis.laws.registry import LAWS
from analysis.runs import Runs, scaling_runs

RESAMPLES = 100
MOST_RUNS = 150  # with more, the means over seeds are fitted, which takes a third of the time
SHARE_OF_FITS = 0.43  # of the time, 4.8 of 11.2 s for the 104 runs of repeats_axis; the rest is cross-validation


@dataclass(frozen=True)
class StudyFits:
    """The laws of a study.

    points: what they are fitted on; fits: by name of the law; reasons: why the other laws could not be fitted, by name;
    cross_validation: the table of `cross_validate`, empty without a law of repetition.
    """

    points: Points
    fits: dict[str, FittedLaw]
    reasons: dict[str, str]
    cross_validation: pd.DataFrame

    @property
    def verdict(self) -> str:
        """Which law predicts held-out runs best, in sentences; empty without cross-validation."""
        return verdict(self.cross_validation) if len(self.cross_validation) else ""

    def constants(self) -> pd.DataFrame:
        """A row per law and fitted constant: `value` with its 95% interval `low`, `high`; `determined` is false at a bound."""
        rows = [
            {"law": name, "runs": fitted.points, "error": fitted.error, "constant": constant}
            | {"value": fitted.constants[constant]}
            | dict(zip(("low", "high"), fitted.interval(constant), strict=True))
            | {"determined": constant not in fitted.undetermined}
            for name, fitted in self.fits.items()
            for constant in fitted.free
        ]
        return pd.DataFrame(rows, columns=["law", "runs", "error", "constant", "value", "low", "high", "determined"])


def study_points(runs: Runs) -> Points:
    """The finished runs of a study, N without embeddings; one-layer models only if there are no deeper ones."""
    table = scaling_runs(runs)
    names = ("parameters_non_embedding", "trained_tokens", "repeated_fraction", "repeats", "final_test_loss")
    return Points(*(table[name].to_numpy(float) for name in names))


def fit_study(runs: Runs, progress: Progress | None = None) -> StudyFits:
    """Fit and cross-validate all laws; `reasons` tells which could not be fitted, and why."""
    points = study_points(runs) if len(runs.done) else None
    if points is None or not points.clean.any() or points.clean.all():
        kind = "clean" if points is None or not points.clean.any() else "repeated"
        empty = points if points is not None else Points(*(np.empty(0) for _ in range(5)))
        return StudyFits(empty, {}, {law.name: f"no finished {kind} run" for law in LAWS}, pd.DataFrame())
    columns = (points.params, points.tokens, points.fraction, points.repeats, points.loss)
    return _fit_columns(_Job(tuple(tuple(column) for column in columns), progress))


@dataclass(frozen=True)
class _Job:
    """A cache key that ignores who watches the progress."""

    columns: tuple[tuple[float, ...], ...]
    progress: Progress | None = field(compare=False)


@lru_cache(maxsize=64)  # figures, tables and the summary of one report use the same fits
def _fit_columns(job: _Job) -> StudyFits:
    points = Points(*(np.array(column) for column in job.columns))
    if len(points) > MOST_RUNS:
        points = means(points)
    progress = job.progress or (lambda share: None)
    fits, reasons = {}, {}
    for number, law in enumerate(LAWS):
        progress(SHARE_OF_FITS * number / len(LAWS))
        try:
            fits[law.name] = fit(law, points, resamples=RESAMPLES)
        except CannotFit as error:
            reasons[law.name] = str(error)
    errors = pd.DataFrame()
    if any(not fitted.law.clean_only for fitted in fits.values()):
        errors = cross_validate(points, lambda share: progress(SHARE_OF_FITS + (1 - SHARE_OF_FITS) * share))
    progress(1.0)
    return StudyFits(points, fits, reasons, errors)


def means(points: Points) -> Points:
    """One point for the seeds of each arm, with their mean loss."""
    names = ["params", "tokens", "fraction", "repeats"]
    table = pd.DataFrame({name: getattr(points, name) for name in [*names, "loss"]})
    table = table.groupby(names, as_index=False).loss.mean()
    return Points(*(table[name].to_numpy(float) for name in [*names, "loss"]))
