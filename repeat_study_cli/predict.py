"""`repeat-study predict`: predict the cost of repeating data before training."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.counts import ACCEPTED_COUNTS, parse_count
from data_prep.errors import InputError
from repeat_study_cli.arguments import ColumnsOption, RunsOption, SetOption, console, require_writable
from repeat_study_cli.tables import WrappedTable

if TYPE_CHECKING:
    from analysis.forecast.forecast import Forecast, Question
    from analysis.forecast.predictors import Predictor
    from analysis.laws.points import Points

SUFFIXES = (".pdf", ".png", ".svg")


def count(text: str) -> float:
    """Parse an argument such as 800M. Raises a usage error if it is not a count."""
    value = parse_count(text)
    if value is None:
        raise typer.BadParameter(f"{text!r} is not a count; expected {ACCEPTED_COUNTS}")
    return value


def predict(
    params: Annotated[
        float,
        typer.Option(parser=count, metavar="COUNT", help="Number of non-embedding model parameters, e.g. 800M."),
    ],
    tokens: Annotated[float, typer.Option(parser=count, metavar="COUNT", help="Number of training tokens, e.g. 100B.")],
    fraction: Annotated[
        float, typer.Option(help="Share of the tokens that come from the repeated subset, above 0 and up to 1.")
    ],
    repeats: Annotated[
        float | None,
        typer.Option(
            help="R, the number of times each token of the subset is seen. [default: the worst R of each law]"
        ),
    ] = None,
    subset_tokens: Annotated[
        float | None,
        typer.Option(
            parser=count, metavar="COUNT", help="Number of tokens in the subset, as an alternative to --repeats."
        ),
    ] = None,
    law: Annotated[list[str] | None, typer.Option(metavar="LAW", help="Use only this law; can be repeated.")] = None,
    study: Annotated[str | None, typer.Option(help="Also fit the laws to the finished runs of this study.")] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            help="Also fit the laws to the runs in this file, which must have the columns that `fit` expects."
        ),
    ] = None,
    columns: ColumnsOption = None,
    figure: Annotated[Path | None, typer.Option(help="Plot the curves to this file: .svg, .pdf or .png.")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="Write all numbers to this file.")] = None,
    set_: SetOption = None,
    runs_dir: RunsOption = Path("runs"),
) -> None:
    """Predict the cost of repeating data in a planned training run.

    Each law predicts how much repetition increases the test loss, how much effective model size it costs, and which R to avoid. R
    is the number of times each token of the repeated subset is seen.
    """
    from analysis.forecast.console import agreement, clean_losses, curves, curves_title, notes
    from analysis.forecast.forecast import Question, forecast
    from analysis.forecast.record import as_record
    from data_prep.files import json_text, write_output

    repeats = _check_repeats(fraction, tokens, repeats, subset_tokens)
    for path in (figure, json_):
        require_writable(path)
    if figure and json_ and os.path.realpath(figure) == os.path.realpath(json_):
        raise InputError(f"--figure and --json: both are {json_}; expected two files")
    if figure and figure.suffix not in SUFFIXES:
        raise InputError(f"{figure}: unknown figure format; expected {', '.join(SUFFIXES)}")
    predictors = _predictors(law, _points_to_fit(study, csv, columns, set_, runs_dir), str(csv or study))
    question = Question(params, tokens, fraction, repeats)
    forecasts = [forecast(predictor, question) for predictor in predictors]
    console.print(_description(question) + "\n")
    console.print(_table(forecasts, question))
    console.print("\n" + agreement(forecasts, question))
    if line := clean_losses(forecasts):
        console.print(line)
    console.print(f"\n{curves_title(forecasts)}:")
    for line in curves(forecasts, console.width):
        console.print(line)
    console.print()
    for prediction in forecasts:
        for note in notes(prediction):
            console.print(f"- {note}.")
    if json_:
        inputs = {"params": params, "tokens": tokens, "fraction": fraction, "repeats": repeats}
        write_output(
            json_, json_text({"question": inputs, "forecasts": [as_record(prediction) for prediction in forecasts]})
        )
        console.print(f"written: {json_}")
    if figure:
        from analysis.forecast.figure import plot

        plot(forecasts, question, figure)
        console.print(f"written: {figure}")


def _check_repeats(fraction: float, tokens: float, repeats: float | None, subset_tokens: float | None) -> float | None:
    """The value of R, given directly or computed from the subset size. None if neither is given. Raises InputError for a bad value."""
    from analysis.forecast.forecast import MOST_REPEATS

    if not 0 < fraction <= 1:
        raise InputError(f"--fraction {fraction:.12g}: expected a share above 0 and up to 1")
    if repeats is not None and subset_tokens is not None:
        raise InputError("--repeats and --subset-tokens: give only one of them")
    if subset_tokens is not None:
        repeats = fraction * tokens / subset_tokens
    if repeats is not None and not repeats <= MOST_REPEATS:
        raise InputError(f"--repeats {repeats:g}: expected a number from 1 to {MOST_REPEATS:g}")
    if repeats is not None and repeats < 1:
        given = f"--subset-tokens {subset_tokens:,.0f}" if subset_tokens else f"--repeats {repeats:g}"
        raise InputError(f"{given}: the subset would be seen {repeats:.3g} times; expected 1 or more")
    return repeats


def _points_to_fit(
    study: str | None, csv: Path | None, columns: str | None, set_: list[str] | None, runs_dir: Path
) -> "Points | None":
    """The runs from a study or a file to which laws are fitted. None if neither is given."""
    from repeat_study_cli.fitting import points_of_study

    if study and csv:
        raise InputError("--study and --csv: give only one of them")
    if set_ and not study:
        raise InputError("--set: requires --study")
    if columns is not None and not csv:
        raise InputError("--columns: requires --csv")
    if csv:
        from analysis.laws.runs_csv import parse_columns, read_points

        return read_points(csv, None if columns is None else parse_columns(columns))
    return points_of_study(study, set_, runs_dir) if study else None


def _predictors(names: list[str] | None, points: "Points | None", source: str) -> "list[Predictor]":
    """The published laws and the laws fitted to `points`. If `names` is given, only these laws are included.

    source: the file or study that the points come from.
    """
    from analysis.forecast.predictors import fitted_predictor, published_predictors

    predictors = published_predictors()
    if points is not None:
        from repeat_study_cli.fitting import fit_laws

        predictors += map(fitted_predictor, fit_laws(points, source, names, of_repetition=True))
    available = list(dict.fromkeys(predictor.name for predictor in predictors))
    if unknown := sorted(set(names or ()) - set(available)):
        hint = "" if points is not None else "; partial and lovelace require --study or --csv"
        raise InputError(f"--law {', '.join(unknown)}: unknown law; expected {', '.join(available)}{hint}")
    return [predictor for predictor in predictors if not names or predictor.name in names]


def _description(question: "Question") -> str:
    """Describe the planned run in one line."""
    from analysis.formatting import short_count

    share = f"{100 * question.fraction:.6g}% of them from a repeated subset"
    line = f"{short_count(question.params)} parameters, {short_count(question.tokens)} tokens, {share}"
    if not question.repeats:
        return f"{line}; any R"
    subset = question.fraction * question.tokens / question.repeats
    return f"{line}; R = {question.repeats:,.4g}, a subset of {short_count(subset)} tokens"


def _table(forecasts: "list[Forecast]", question: "Question") -> WrappedTable:
    from analysis.forecast.console import HEADINGS, table_row

    table = WrappedTable(*HEADINGS, left=2)
    for prediction in forecasts:
        table.add_row(*table_row(prediction, question))
    return table
