"""Fit and cross-validate all laws on the finished runs of a study."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache

import numpy as np
import pandas as pd

from analysis.laws.cross_validation import cross_validate, verdict
from analysis.laws.fit import CannotFit, FittedLaw, Progress, fit
from analysis.laws.pairing import Pairing, paired
from analysis.laws.points import Points
from analysis.laws.registry import LAWS, OF_REPETITION
from analysis.runs import Runs, scaling_runs

COLUMNS = tuple(field.name for field in fields(Points))
RESAMPLES = 100
MISSING = -1.0  # no column of Points is negative
MOST_RUNS = 150  # larger studies are fitted on means over seeds, which takes a third of the time
FIXED_POOL = "the pool has a fixed size, so f and R grow together and a fit cannot separate their effects"
SHARE_OF_FITS = 0.2  # of the running time; cross-validation takes the rest


@dataclass(frozen=True)
class StudyFits:
    """All laws that were fitted to the runs in one study.

    points: the runs used in the fits. pairing: a sentence that says which runs were compared. fits: the fitted laws by name.
    reasons: why each of the other laws could not be fitted, by name.
    cross_validation: the table returned by `cross_validate`; empty if no law of repetition was fitted.
    """

    points: Points
    fits: dict[str, FittedLaw]
    reasons: dict[str, str]
    cross_validation: pd.DataFrame
    pairing: str = ""

    def verdict(self, names: Mapping[str, str]) -> str:
        """Sentences that say which law predicts held-out runs best; empty without cross-validation.

        names: the names to write instead of those in the column `held_out`, such as names of model sizes.
        """
        errors = self.cross_validation
        return verdict(errors.replace({"held_out": dict(names)})) if len(errors) else ""

    def constants(self) -> pd.DataFrame:
        """One row per law and fitted constant: its `value` and the ends `low` and `high` of its 95% interval.

        `determined` is false if the constant stopped at a bound of the search.
        """
        rows = [
            {"law": name, "runs": fitted.points, "error": fitted.error, "constant": constant}
            | {"value": fitted.constants[constant]}
            | dict(zip(("low", "high"), fitted.interval(constant), strict=True))
            | {"determined": constant not in fitted.undetermined}
            for name, fitted in self.fits.items()
            for constant in fitted.free
        ]
        return pd.DataFrame(rows, columns=["law", "runs", "error", "constant", "value", "low", "high", "determined"])


def study_points(runs: Runs) -> Pairing:
    """A study's finished runs, where N excludes embeddings, paired with clean runs of the same seed.

    One-layer models are left out if there are deeper ones.
    """
    table = scaling_runs(runs)
    names = ("parameters_non_embedding", "trained_tokens", "repeated_fraction", "repeats", "final_test_loss")
    points = Points(*(table[name].to_numpy(float) for name in names))
    return paired(points, table.seed.astype(str).tolist())


def fit_study(runs: Runs, progress: Progress | None = None) -> StudyFits:
    """Fit and cross-validate all laws on a study's finished runs."""
    if runs.has_fixed_pool:
        empty = Points(*(np.empty(0) for _ in range(5)))
        return StudyFits(empty, {}, dict.fromkeys((law.name for law in LAWS), FIXED_POOL), pd.DataFrame())
    pairing = study_points(runs) if len(runs.done) else None
    points = pairing.points if pairing else None
    if points is None or not points.clean.any() or points.clean.all():
        kind = "clean" if points is None or not points.clean.any() else "repeated"
        empty = points if points is not None else Points(*(np.empty(0) for _ in range(5)))
        return StudyFits(empty, {}, {law.name: f"no finished {kind} run" for law in LAWS}, pd.DataFrame())
    columns = (np.nan_to_num(getattr(points, name), nan=MISSING) for name in COLUMNS)
    return _fit_columns(_Job(tuple(map(tuple, columns)), str(pairing), progress))


@dataclass(frozen=True)
class _Job:
    """A cache key that ignores the progress callback. Missing numbers are MISSING, because NaN does not equal itself."""

    columns: tuple[tuple[float, ...], ...]
    pairing: str
    progress: Progress | None = field(compare=False)


@lru_cache(maxsize=64)  # figures, tables and the summary of one report share the same fits
def _fit_columns(job: _Job) -> StudyFits:
    points = Points(*(np.where(np.array(column) == MISSING, np.nan, column) for column in job.columns))
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
        report = lambda share: progress(SHARE_OF_FITS + (1 - SHARE_OF_FITS) * share)  # noqa: E731
        errors = cross_validate(points, report, OF_REPETITION)
    progress(1.0)
    return StudyFits(points, fits, reasons, errors, job.pairing)


def means(points: Points) -> Points:
    """Replace runs that differ only in their seed with a single point at their mean loss and mean control."""
    table = pd.DataFrame({name: getattr(points, name) for name in COLUMNS})
    table = table.groupby(list(COLUMNS[:4]), as_index=False).mean()
    return Points(*(table[name].to_numpy(float) for name in COLUMNS))
