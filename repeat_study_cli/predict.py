"""`repeat-study predict`: predict the cost of repeating data before training."""

import os
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.counts import ACCEPTED_COUNTS, parse_count
from data_prep.errors import InputError
from repeat_study_cli.arguments import ColumnsOption, RunsOption, SetOption, console, require_writable
from repeat_study_cli.tables import WrappedTable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from analysis.forecast.forecast import Forecast, Question
    from analysis.forecast.predictors import Predictor
    from analysis.forecast.subset import Row
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
        float | None,
        typer.Option(
            help="Share of the tokens that come from the repeated subset, above 0 and up to 1. Without it, --subset-tokens is required."
        ),
    ] = None,
    repeats: Annotated[
        float | None,
        typer.Option(
            help="R, the number of times each token in the subset is seen. [default: each law's worst R, or a series of values with"
            " --subset-tokens]"
        ),
    ] = None,
    subset_tokens: Annotated[
        float | None,
        typer.Option(
            parser=count,
            metavar="COUNT",
            help="Number of tokens in the subset. Without --fraction, the subset has this size for every R, and the fraction follows.",
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
    table: Annotated[
        Path | None, typer.Option(help="Without --fraction: write the table, one row per R and law, to this CSV file.")
    ] = None,
    set_: SetOption = None,
    runs_dir: RunsOption = Path("runs"),
) -> None:
    """Predict the cost of repeating data in a planned training run.

    Each law predicts how much repetition increases the test loss, how much effective model size it costs, and which R to avoid. R
    is the number of times each token in the repeated subset is seen. Give the size of your subset to compare values of R, or give its
    share of the training tokens.
    """
    from analysis.forecast.console import agreement, clean_losses, curves, curves_title, notes
    from analysis.forecast.forecast import forecast
    from analysis.forecast.record import as_record
    from analysis.forecast.subset import records, subset_rows
    from data_prep.files import json_text, write_output

    question = _question(params, tokens, fraction, repeats, subset_tokens)
    of_subset = question.subset_tokens is not None
    if table and not of_subset:
        raise InputError("--table: requires --subset-tokens without --fraction")
    _check_outputs({"--figure": figure, "--json": json_, "--table": table})
    if figure and figure.suffix not in SUFFIXES:
        raise InputError(f"{figure}: unknown figure format; expected {', '.join(SUFFIXES)}")
    predictors = _predictors(law, _points_to_fit(study, csv, columns, set_, runs_dir), str(csv or study))
    forecasts = [forecast(predictor, question) for predictor in predictors]
    console.print(_description(question) + "\n")
    rows = subset_rows(forecasts, question) if of_subset else []
    for part in _subset_lines(rows, forecasts, question) if of_subset else [_table(forecasts, question)]:
        console.print(part)
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
        inputs = {"params": params, "tokens": tokens, "fraction": fraction, "repeats": question.repeats}
        written: dict[str, object] = {"question": inputs}
        if of_subset:
            written = {"question": inputs | {"subset_tokens": subset_tokens}}
            written["table"] = records(rows, forecasts, question)
        write_output(json_, json_text(written | {"forecasts": [as_record(prediction) for prediction in forecasts]}))
        console.print(f"written: {json_}")
    if table:
        _write_csv(table, records(rows, forecasts, question))
        console.print(f"written: {table}")
    if figure:
        from analysis.forecast.figure import plot

        plot(forecasts, question, figure)
        console.print(f"written: {figure}")


def _check_outputs(paths: "dict[str, Path | None]") -> None:
    """Raise InputError if an output cannot be written or two outputs are the same file."""
    outputs = {option: path for option, path in paths.items() if path}
    for path in outputs.values():
        require_writable(path)
    for (first, path), (second, other) in combinations(outputs.items(), 2):
        if os.path.realpath(path) == os.path.realpath(other):
            raise InputError(f"{first} and {second}: both are {path}; expected two files")


def _write_csv(path: Path, rows: "list[dict[str, object]]") -> None:
    import csv
    import io

    from analysis.forecast.subset import COLUMNS
    from data_prep.files import write_output

    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_output(path, text.getvalue().encode())


def _question(
    params: float, tokens: float, fraction: float | None, repeats: float | None, subset_tokens: float | None
) -> "Question":
    """The planned run. Raises InputError for a bad value."""
    from analysis.forecast.forecast import MOST_REPEATS, Question

    if fraction is not None:
        return Question(params, tokens, fraction, _check_repeats(fraction, tokens, repeats, subset_tokens))
    if subset_tokens is None:
        raise InputError("--fraction and --subset-tokens: expected at least one of them")
    most = min(MOST_REPEATS, tokens / subset_tokens)
    if most <= 1:
        raise InputError(
            f"--subset-tokens {subset_tokens:,.0f}: expected fewer than the {tokens:,.0f} tokens of the run"
        )
    if repeats is not None and not 1 <= repeats <= most:
        raise InputError(
            f"--repeats {repeats:g}: expected a number from 1 to {most:.6g}, because f = R·D/T cannot exceed 1"
            if repeats > 1
            else f"--repeats {repeats:g}: expected 1 or more"
        )
    return Question(params, tokens, repeats=repeats, subset_tokens=subset_tokens)


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
    from analysis.laws.registry import OF_REPETITION

    predictors = published_predictors()
    if points is not None:
        from repeat_study_cli.fitting import fit_laws

        predictors += map(fitted_predictor, fit_laws(points, source, names, of_repetition=True))
    available = list(dict.fromkeys(predictor.name for predictor in predictors))
    if unknown := sorted(set(names or ()) - set(available)):
        unpublished = " and ".join(law.name for law in OF_REPETITION if law.name not in available)
        hint = "" if points is not None else f"; {unpublished} require --study or --csv"
        raise InputError(f"--law {', '.join(unknown)}: unknown law; expected {', '.join(available)}{hint}")
    return [predictor for predictor in predictors if not names or predictor.name in names]


def _description(question: "Question") -> str:
    """Describe the planned run in one line."""
    from analysis.formatting import short_count

    if question.subset_tokens is not None:
        size, given, total = map(short_count, (question.params, question.subset_tokens, question.tokens))
        return f"{size} parameters, {total} tokens, a subset of {given} tokens seen R times; f = R·{given}/{total}"
    share = f"{100 * question.fraction:.6g}% of them from a repeated subset"
    line = f"{short_count(question.params)} parameters, {short_count(question.tokens)} tokens, {share}"
    if not question.repeats:
        return f"{line}; any R"
    subset = question.fraction * question.tokens / question.repeats
    return f"{line}; R = {question.repeats:,.4g}, a subset of {short_count(subset)} tokens"


def _subset_lines(
    rows: "list[Row]", forecasts: "list[Forecast]", question: "Question"
) -> "Iterator[WrappedTable | str]":
    """The table for a subset of fixed size, and what its columns mean."""
    from analysis.forecast.console import HEADINGS, safe_range
    from analysis.forecast.subset import OUTSIDE, table_headings, table_row

    table = WrappedTable(*table_headings(forecasts), left=0, notes="")
    for row in rows:
        table.add_row(*table_row(row, forecasts, question), note=row.reason)
    yield table
    explanation = (
        "\nEach law's column shows its penalty in nats per token, relative to a run of the same length without repetition."
        " The laws assume that the subset comes from the same distribution as the other tokens and the test text."
    )
    if without := [prediction.predictor.label for prediction in forecasts if prediction.predictor.ignores_fraction]:
        explanation += (
            f" The formula of {', '.join(without)} does not contain f, so it cannot account for the size of the subset."
        )
    if any(answer.outside for row in rows for answer in row.answers):
        explanation += f" {OUTSIDE}: f or R is outside the range that the law was fitted on."
    yield explanation
    for prediction in forecasts:
        yield f"{HEADINGS[-1]}, {prediction.predictor.label}: {safe_range(prediction)}"


def _table(forecasts: "list[Forecast]", question: "Question") -> WrappedTable:
    from analysis.forecast.console import HEADINGS, table_row

    table = WrappedTable(*HEADINGS, left=2)
    for prediction in forecasts:
        table.add_row(*table_row(prediction, question))
    return table
