"""Functions that `predict` and `fit` share: read a study's runs as data points and fit the laws to them."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.errors import InputError
from repeat_study_cli.arguments import console, load
from repeat_study_cli.progress import show_progress

if TYPE_CHECKING:
    from analysis.laws.fit import FittedLaw
    from analysis.laws.pairing import Pairing
    from analysis.laws.points import Points


def points_of_study(study: str, set_: list[str] | None, runs_dir: Path) -> "Pairing":
    """A study's finished runs, paired with clean runs.

    Raises InputError if there are none or they come from several experiments.
    """
    from analysis.declared_runs import declared_names
    from analysis.laws.study_fits import study_points
    from analysis.runs import left_out_of_laws, load_runs

    declared = load(study, set_)
    folder = runs_dir / declared.name
    runs = load_runs(folder, declared_names(folder, declared))
    if len(variants := runs.variants()) > 1:
        names = "; ".join(name for name, _ in variants)
        raise InputError(
            f"{folder}: the runs belong to {len(variants)} experiments ({names}); a law can be fitted to only one"
        )
    if runs.done.empty:
        raise InputError(f"{folder}: no runs have finished yet")
    if left_out := left_out_of_laws(runs):
        console.print(left_out)
    return study_points(runs)


def fit_laws(points: "Points", source: str, names: list[str] | None, of_repetition: bool = False) -> "list[FittedLaw]":
    """Fit every law, or only the laws in `names`, and print a reason for each law that cannot be fitted. Raises InputError if none
    can.

    source: the file or study that the points come from, for the error message. of_repetition: skip the laws that describe only clean runs.
    """
    from analysis.laws.fit import CannotFit, fit
    from analysis.laws.registry import LAWS

    laws = [law for law in LAWS if (not names or law.name in names) and not (of_repetition and law.clean_only)]
    fits, reasons = [], []
    with show_progress() as report:
        for law in laws:
            try:
                fits.append(fit(law, points, progress=partial(report, f"fitting {law.title}")))
            except CannotFit as error:
                reasons.append(f"{law.title}: {error}")
    if not fits:
        raise InputError("; ".join([f"{source}: no law can be fitted", *reasons]))
    for reason in reasons:
        console.print(f"not fitted: {reason}")
    return fits
