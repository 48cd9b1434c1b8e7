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

    from analysis.forecast.census import Price
    from analysis.forecast.forecast import Forecast
    from analysis.forecast.predictors import Predictor
    from analysis.forecast.question import Question
    from analysis.laws.pairing import Pairing

SAME_DISTRIBUTION = (
    "The loss is that on unseen text from the same distribution as the subset and the other tokens. What the model learns about another"
    " domain from your subset does not count."
)
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
    table: Annotated[Path | None, typer.Option(help="Write one row per R and law to this CSV file.")] = None,
    max_cost: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT", help="Also print the largest R that costs at most this much of the loss, e.g. 0.5%."
        ),
    ] = None,
    histogram: Annotated[
        Path | None,
        typer.Option(
            help="Price the duplicates in a corpus. A CSV file with the columns copies and tokens, as `inspect --histogram` writes it."
        ),
    ] = None,
    set_: SetOption = None,
    runs_dir: RunsOption = Path("runs"),
) -> None:
    """Predict the cost of repeating data in a planned training run.

    The answer is the share of the loss that repetition costs, with a 95% interval, and the size of a model that would reach the same
    loss without repetition. R is the number of times each token in the repeated subset is seen. Give the size of your subset to compare
    values of R, or give its share of the training tokens.
    """
    from analysis.forecast.console import clean_losses, curves, curves_title, notes
    from analysis.forecast.forecast import forecast
    from analysis.forecast.record import answer_record, as_record, price_record
    from analysis.forecast.record import table as table_records
    from data_prep.files import json_text, write_output

    share = None if max_cost is None else _max_cost(max_cost)
    _check_outputs({"--figure": figure, "--json": json_, "--table": table})
    if figure and figure.suffix not in SUFFIXES:
        raise InputError(f"{figure}: unknown figure format; expected {', '.join(SUFFIXES)}")
    if histogram:
        _require_no_subset(fraction, repeats, subset_tokens, max_cost, figure, table)
    predictors = _predictors(law, _points_to_fit(study, csv, columns, set_, runs_dir), str(csv or study))
    inputs: dict[str, object] = {"params": params, "tokens": tokens}
    if histogram:
        priced = _price_histogram(histogram, predictors, params, tokens)
        if json_:
            plan = inputs | {"histogram": str(histogram)}
            write_output(json_, json_text({"plan": plan, "duplicates": price_record(priced)}))
            console.print(f"written: {json_}")
        return
    question = _question(params, tokens, fraction, repeats, subset_tokens)
    forecasts = [forecast(predictor, question) for predictor in predictors]
    for part in _answer(forecasts, share):
        console.print(part)
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
        inputs |= {"fraction": fraction, "repeats": question.repeats, "subset_tokens": subset_tokens}
        record: dict[str, object] = {"plan": inputs} | answer_record(forecasts, share)
        write_output(json_, json_text(record | {"forecasts": [as_record(prediction) for prediction in forecasts]}))
        console.print(f"written: {json_}")
    if table:
        _write_csv(table, table_records(forecasts))
        console.print(f"written: {table}")
    if figure:
        from analysis.forecast.figure import plot

        plot(forecasts, question, figure)
        console.print(f"written: {figure}")


def _max_cost(text: str) -> float:
    """Parse a cost such as 0.5% or 0.5, both in percent. Raises InputError if it is not a share of the loss."""
    from analysis.counts import parse_number

    value = parse_number(text.strip().removesuffix("%"))
    if value is None or not 0 < value <= 100:
        raise InputError(f"--max-cost {text}: expected a percentage of the loss above 0 and up to 100, such as 0.5%")
    return value / 100


def _require_no_subset(
    fraction: float | None,
    repeats: float | None,
    subset_tokens: float | None,
    max_cost: str | None,
    figure: Path | None,
    table: Path | None,
) -> None:
    """Raise InputError for options that do not apply to a census of duplicates."""
    options = {
        "--fraction": fraction,
        "--repeats": repeats,
        "--subset-tokens": subset_tokens,
        "--max-cost": max_cost,
        "--figure": figure,
        "--table": table,
    }
    if given := [option for option, value in options.items() if value is not None]:
        raise InputError(
            f"--histogram and {', '.join(given)}: the census already says what repeats; expected only one of them"
        )


def _price_histogram(path: Path, predictors: "list[Predictor]", params: float, tokens: float) -> "Price":
    """Print what the duplicates in a census cost. Raises InputError if our law gives no number for this plan."""
    from analysis.forecast.answer import PARTIAL
    from analysis.forecast.census import price, read_census
    from analysis.forecast.console import PRICE_HEADINGS, price_row, price_sentence
    from analysis.forecast.forecast import distance, too_far
    from analysis.forecast.question import Question
    from analysis.formatting import short_count

    census = read_census(path)
    question = Question(params, tokens, max(census.repeated_share, 1e-9))
    ours = [predictor for predictor in predictors if predictor.name == PARTIAL]
    if not ours:
        raise InputError(f"--histogram: requires --law {PARTIAL}, the only law with intervals")
    predictor = min(reversed(ours), key=lambda each: distance(each, question, 2.0))
    if reason := too_far(predictor, question, 2.0):
        raise InputError(f"--histogram: no number: {reason}")
    priced = price(census, predictor, question)
    passes = tokens / census.total
    epochs = "is one epoch" if abs(passes - 1) < 0.005 else f"is {passes:.3g} epochs"
    console.print(price_sentence(priced))
    console.print(
        f"Of the {short_count(census.total)} tokens in the census,"
        f" {100 * census.repeated_share:.3g}% occur more than once; the run {epochs}."
        f" {predictor.label} priced each number of copies separately. The costs and the ends of their intervals were added, so the upper"
        " end of the sum is an upper bound, not the end of a 95% interval.\n"
    )
    rows = WrappedTable(*PRICE_HEADINGS, left=0)
    for row in priced.rows:
        rows.add_row(*price_row(row, passes))
    console.print(rows)
    return priced


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

    from analysis.forecast.record import TABLE_COLUMNS
    from data_prep.files import write_output

    text = io.StringIO()
    writer = csv.DictWriter(text, TABLE_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_output(path, text.getvalue().encode())


def _question(
    params: float, tokens: float, fraction: float | None, repeats: float | None, subset_tokens: float | None
) -> "Question":
    """The planned run. Raises InputError for a bad value."""
    from analysis.forecast.question import MOST_REPEATS, Question

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
    from analysis.forecast.question import MOST_REPEATS

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
) -> "Pairing | None":
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


def _predictors(names: list[str] | None, pairing: "Pairing | None", source: str) -> "list[Predictor]":
    """The pooled and published laws, and the laws fitted to the runs in `pairing`. If `names` is given, only these laws are included.

    source: the file or study that the runs come from.
    """
    from analysis.forecast.predictors import fitted_predictor, published_predictors, with_clean_law
    from analysis.laws.registry import OF_REPETITION

    predictors = published_predictors()
    if pairing is not None:
        from repeat_study_cli.fitting import fit_laws

        console.print(f"{pairing}\n")
        fits = fit_laws(pairing.points, source, names, of_repetition=True)
        predictors = [with_clean_law(predictors[0], fits), *predictors[1:], *map(fitted_predictor, fits)]
    available = list(dict.fromkeys(predictor.name for predictor in predictors))
    if unknown := sorted(set(names or ()) - set(available)):
        unpublished = " and ".join(law.name for law in OF_REPETITION if law.name not in available)
        hint = "" if pairing is not None else f"; {unpublished} require --study or --csv"
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


def _answer(forecasts: "list[Forecast]", max_cost: float | None) -> "Iterator[WrappedTable | str]":
    """The answer: a sentence, a small table, and the laws."""
    from analysis.forecast import answer
    from analysis.forecast.console import COST_HEADINGS, LAW_HEADINGS, cost_row, law_row

    question = forecasts[0].question
    answering = answer.primary(forecasts)
    if answering is None:
        yield answer.refusal(forecasts)
    else:
        if max_cost is not None:
            yield answer.limit_sentence(answering, max_cost)
        if with_cost := max_cost is None or question.repeats is not None:
            yield answer.sentence(answering)
        yield answer.confidence(answering, with_cost)
        yield SAME_DISTRIBUTION
        yield answer.rule_of_thumb(answering)[1]
        if sentence := answer.indistinguishable_sentence(answering):
            yield sentence
    yield f"\n{_description(question)}"
    if answering is not None:
        costs = WrappedTable(*COST_HEADINGS, left=0)
        too_far, some_not_useful = "", False
        for repeats in question.listed_repeats:
            too_far = too_far or answering.too_far_at(repeats)
            if not too_far:
                cost = answering.cost_at(repeats)
                some_not_useful |= not answer.has_upper_end(cost.share)
                costs.add_row(*cost_row(cost, answering))
        yield costs
        if some_not_useful:
            yield answer.WHY_NOT_USEFUL
        if too_far:
            yield f"No number for larger R: {too_far}."
        yield ""
    laws = WrappedTable(*LAW_HEADINGS)
    for prediction in forecasts:
        laws.add_row(*law_row(prediction))
    yield laws
    if sentence := answer.disagreement(forecasts):
        yield f"\n{sentence}"
    for prediction in forecasts:
        if prediction.predictor.ignores_fraction:
            yield f"The formula of {prediction.predictor.label} does not contain f, so it cannot account for the size of the subset."
