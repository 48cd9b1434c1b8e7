"""`repeat-study fit`: fit the laws of repetition to your own runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_prep.errors import InputError
from repeat_study.formatting import plural
from repeat_study_cli.arguments import ColumnsOption, console, require_writable
from repeat_study_cli.tables import WrappedTable

if TYPE_CHECKING:
    import pandas as pd

    from analysis.laws.fit import FittedLaw


PRIOR = "(prior)"  # printed beside a constant that the runs hardly determine


def fit(
    runs: Annotated[
        Path,
        typer.Argument(
            metavar="RUNS.csv",
            help="File with the columns params, tokens, fraction, repeats, loss and, optionally, seed, cell and clean_loss.",
        ),
    ],
    columns: ColumnsOption = None,
    law: Annotated[list[str] | None, typer.Option(metavar="LAW", help="Fit only this law; can be repeated.")] = None,
    json_: Annotated[
        Path | None, typer.Option("--json", help="Write constants, intervals and bootstrap resamples to this file.")
    ] = None,
) -> None:
    """Fit the laws of repetition to your own runs.

    Laws of repetition are fitted to the penalty, the loss above the clean run of the same size and tokens. Prints which runs were
    compared, the constants with 95% intervals, and each law's errors on runs that were left out of the fit.
    """
    from analysis.laws.cross_validation import cross_validate, verdict
    from analysis.laws.fit import MOSTLY_PRIOR
    from analysis.laws.registry import NAMES, OF_REPETITION
    from analysis.laws.runs_csv import parse_columns, read_points
    from data_prep.files import json_text, write_output
    from repeat_study_cli.fitting import fit_laws
    from repeat_study_cli.progress import show_progress

    require_writable(json_)
    if unknown := set(law or ()) - set(NAMES):
        raise InputError(f"--law {', '.join(sorted(unknown))}: unknown law; expected {', '.join(NAMES)}")
    pairing = read_points(runs, parse_columns(columns) if columns is not None else None)
    points = pairing.points
    console.print(f"{plural(len(points), 'run')}, {int(points.clean.sum())} clean. {pairing}\n")
    fits = fit_laws(points, str(runs), law)
    for fitted in fits:
        predicted = "loss" if fitted.law.clean_only else "penalty"
        console.print(
            f"{fitted.law.title} (--law {fitted.law.name}): {fitted.law.idea}. {fitted.points} runs; error of the"
            f" {predicted}: root mean square {fitted.error:.3g}, median {fitted.median_error:.3g} nats."
            f"{_failed(fitted)}"
        )
        console.print(_constants_table(fitted))
        if fitted.mostly_prior:
            console.print(
                f"{PRIOR}: the runs narrow the law's prior for this constant by less than {1 - MOSTLY_PRIOR:.0%}, so its value and"
                " interval come from the prior and not from your runs. A constant that depends on such an exponent has no meaning"
                " without it."
            )
        console.print()
    with show_progress() as report:
        compared = cross_validate(points, lambda share: report("cross-validation", share), OF_REPETITION)
    if compared.empty:
        console.print("cross-validation skipped: it needs at least three sizes or three values of R above 1")
    else:
        console.print("cross-validation on runs that were left out of the fit:")
        console.print(_cross_validation_table(compared))
        console.print("\n" + verdict(compared))
    if json_:
        left_out = compared.astype(object).where(compared.notna(), None).to_dict("records")
        written = {"paired": pairing.counts, "fits": [_record(fitted) for fitted in fits], "left_out": left_out}
        write_output(json_, json_text(written))
        console.print(f"written: {json_}")


def _failed(fitted: "FittedLaw") -> str:
    share = fitted.fitted.failed_starts
    return f" {share:.0%} of the starting points led to a worse fit." if share else ""


def _constants_table(fitted: "FittedLaw") -> WrappedTable:
    from analysis.formatting import NOTHING
    from analysis.laws.fit import NOT_DETERMINED

    table = WrappedTable("constant", "value", "95% interval")
    for constant in fitted.fitted.problem.free:
        name = constant.name
        low, high = fitted.interval(name)
        interval = NOTHING if low != low else f"{low:.4g} to {high:.4g}"
        exponents = [power.exponent for power in constant.multiplies if power.exponent in fitted.mostly_prior]
        if name in fitted.mostly_prior:
            interval += f" {PRIOR}"
        elif exponents:
            interval += f" (depends on {', '.join(map(str, exponents))})"
        table.add_row(
            name, f"{fitted.constants[name]:.4g}", NOT_DETERMINED if name in fitted.undetermined else interval
        )
    return table


def _cross_validation_table(compared: "pd.DataFrame") -> WrappedTable:
    from analysis.laws.registry import title_of

    headings = (
        "left out",
        "law",
        "runs",
        "error of the penalty (nats)",
        "median",
        "worst R (decades)",
        "in 95% interval",
    )
    table = WrappedTable(*headings, left=2)
    for row in compared.itertuples(index=False):
        values = (row.error, row.median, row.worst_repeats)
        numbers = ["" if value != value else f"{value:.4f}" for value in values]
        coverage = "" if row.coverage != row.coverage else f"{row.coverage:.0%}"
        beyond = f"{plural(row.implausible, 'prediction')} above any plausible loss" if row.implausible else ""
        table.add_row(row.held_out, title_of(row.law), str(row.runs), *numbers, coverage, note=row.reason or beyond)
    return table


def _record(fitted: "FittedLaw") -> dict[str, object]:
    return {
        "law": fitted.law.name,
        "runs": fitted.points,
        "penalty_error_rms_nats": fitted.error,
        "penalty_error_median_nats": fitted.median_error,
        "share_of_failed_starts": fitted.fitted.failed_starts,
        "constants": dict(fitted.constants),
        "intervals": {name: fitted.interval(name) if fitted.resamples else None for name in fitted.free},
        "mostly_prior": list(fitted.mostly_prior),
        "fitted_on": {name: getattr(fitted.domain, name) for name in ("params", "tokens", "fraction", "repeats")},
        "resamples": [dict(constants) for constants in fitted.resamples],
    }
