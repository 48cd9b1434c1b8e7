"""Verbs that answer before money is spent: predict and fit."""

import re
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated

import typer

from data_prep.errors import InputError
from data_prep.files import write_json
from repeat_study_cli.arguments import RunsOption, SetOption, console, load
from repeat_study_cli.plan_tables import plain_table

if TYPE_CHECKING:
    from analysis.laws.fit import Fitted
    from analysis.laws.points import Points

FACTORS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
COUNT = r"(?:\d{1,3}(?:[,_]\d{3})+|\d+)"  # thousands may be set apart
SUFFIXES = {".svg", ".pdf", ".png"}


def amount(text: str) -> float:
    """A count that may end in k, M, B or T."""
    found = re.fullmatch(rf"({COUNT}(?:\.\d+)?(?:e[+-]?\d+)?)\s*([kmbgt]?)", text.strip(), re.IGNORECASE)
    try:
        value = float(found[1].replace(",", "").replace("_", "")) * FACTORS[found[2].lower()] if found else 0.0
    except ValueError:
        value = 0.0
    if not 0 < value < 1e30:
        raise typer.BadParameter(
            f"{text!r} is no count; accepted are numbers above 0 such as 800M, 1.5B, 100_000 or 3e9"
        )
    return value


def predict(
    params: Annotated[
        float, typer.Option(parser=amount, metavar="COUNT", help="size of the model, e.g. 800M, without embeddings")
    ],
    tokens: Annotated[float, typer.Option(parser=amount, metavar="COUNT", help="tokens of the whole run, e.g. 100B")],
    fraction: Annotated[float, typer.Option(help="share of them that comes from the repeated subset, above 0 to 1")],
    repeats: Annotated[
        float | None, typer.Option(help="how often each token of the subset is seen; default: each law's worst")
    ] = None,
    subset_tokens: Annotated[
        float | None,
        typer.Option(parser=amount, metavar="COUNT", help="its size instead: repeats = fraction · tokens / size"),
    ] = None,
    law: Annotated[list[str] | None, typer.Option(help="only this law; may be given again")] = None,
    study: Annotated[str | None, typer.Option(help="also fit the laws on the finished runs of this study")] = None,
    csv: Annotated[Path | None, typer.Option(help="also fit the laws on the runs of this file, as `fit` does")] = None,
    figure: Annotated[Path | None, typer.Option(help="draw the curves into this file: .svg, .pdf or .png")] = None,
    json_: Annotated[Path | None, typer.Option("--json", help="write every number to this file")] = None,
    set_: SetOption = None,
    runs_dir: RunsOption = Path("runs"),
) -> None:
    """How often may a subset be repeated? The loss that it costs, the smaller model that it amounts to, which R to avoid."""
    from analysis.forecast.console import COLUMNS, agreement, curves, notes, row
    from analysis.forecast.forecast import MOST_REPEATS, Question, answer, record
    from analysis.forecast.predictors import teller_of, tellers_published
    from analysis.formatting import short_count

    if not 0 < fraction <= 1:
        raise InputError(f"--fraction {fraction:g}: accepted is a share above 0, up to 1")
    if repeats is not None and subset_tokens is not None:
        raise InputError("--repeats and --subset-tokens: one follows from the other; give one")
    if subset_tokens is not None:
        repeats = fraction * tokens / subset_tokens
    if repeats is not None and not repeats <= MOST_REPEATS:
        raise InputError(f"--repeats {repeats:g}: accepted is a number from 1 to {MOST_REPEATS:g}")
    if repeats is not None and repeats < 1:
        given = f"--subset-tokens {subset_tokens:,.0f}" if subset_tokens else f"--repeats {repeats:g}"
        raise InputError(f"{given}: the subset would be seen {repeats:.3g} times; accepted is 1 or more")
    for path in (figure, json_):
        _can_be_written(path)
    if figure and figure.suffix not in SUFFIXES:
        raise InputError(f"{figure}: figures end in {', '.join(sorted(SUFFIXES))}")
    predictors = tellers_published()
    if study or csv:
        predictors += [teller_of(one) for one in _fits(_points(study, csv, set_, runs_dir), law, of_repetition=True)]
    if unknown := set(law or ()) - {predictor.name for predictor in predictors}:
        known = ", ".join(dict.fromkeys(predictor.name for predictor in predictors))
        raise InputError(
            f"--law {', '.join(sorted(unknown))}: no such law here; there are {known}"
            + ("" if study or csv else "; partial and lovelace have to be fitted first, with --study or --csv")
        )
    question = Question(params, tokens, fraction, repeats)
    answers = [answer(predictor, question) for predictor in predictors if not law or predictor.name in law]
    asked = f"R = {repeats:,.4g}, a subset of {short_count(fraction * tokens / repeats)} tokens" if repeats else "any R"
    console.print(
        f"{short_count(params)} parameters, {short_count(tokens)} tokens, {fraction:.3g} of them from a repeated subset; {asked}\n"
    )
    table = plain_table(*COLUMNS)
    for found in answers:
        table.add_row(*row(found, question))
    console.print(table)
    console.print("\n" + agreement(answers, question))
    console.print("\npenalty over R:")
    for line in curves(answers):
        console.print(line)
    console.print()
    for found in answers:
        for note in notes(found):
            console.print(f"- {note}")
    if json_:
        asked_for = {"params": params, "tokens": tokens, "fraction": fraction, "repeats": repeats}
        write_json(json_, {"question": asked_for, "answers": [record(found) for found in answers]})
        console.print(f"written: {json_}")
    if figure:
        from analysis.forecast.figure import draw

        draw(answers, question, figure)
        console.print(f"drawn: {figure}")


def fit(
    runs: Annotated[Path, typer.Argument(metavar="RUNS.csv", help="columns params, tokens, fraction, repeats, loss")],
    law: Annotated[list[str] | None, typer.Option(help="only this law; may be given again")] = None,
    json_: Annotated[
        Path | None, typer.Option("--json", help="write constants, intervals and draws to this file")
    ] = None,
) -> None:
    """Fit the laws on your own runs: constants with intervals, where they hold, and how they predict runs left out."""
    from analysis.laws.cross_validation import compare, verdict
    from analysis.laws.fit import NOT_DETERMINED
    from analysis.laws.registry import NAMES

    _can_be_written(json_)
    if unknown := set(law or ()) - set(NAMES):
        raise InputError(f"--law {', '.join(sorted(unknown))}: no such law; there are {', '.join(NAMES)}")
    points = _points(None, runs, None, Path("runs"))
    clean = int(points.clean.sum())
    console.print(f"{len(points)} runs, {clean} of them clean\n")
    fits = _fits(points, law)
    for fitted in fits:
        console.print(
            f"{fitted.law.title} ({fitted.law.name}), {fitted.points} runs, off by {fitted.error:.3g} nats (root mean square)"
        )
        table = plain_table("constant", "value", "95% interval")
        for name in fitted.free:
            low, high = fitted.interval(name)
            spread = "–" if low != low else f"{low:.4g} to {high:.4g}"
            table.add_row(
                name, f"{fitted.constants[name]:.4g}", NOT_DETERMINED if name in fitted.undetermined else spread
            )
        console.print(table)
        console.print()
    with console.status("comparing on runs left out"):
        compared = compare(points)
    if compared.empty:
        console.print("no comparison on runs left out: it needs four sizes, or five R")
    else:
        table = plain_table("left out", "law", "runs", "error (nats)", "median", "worst R (decades)")
        for one in compared.itertuples(index=False):
            numbers = [
                one.reason or f"{one.error:.3f}",
                *("" if x != x else f"{x:.3f}" for x in (one.median, one.peak)),
            ]
            table.add_row(one.left_out, one.law, str(one.runs), *numbers)
        console.print("predictions of runs that were left out:")
        console.print(table)
        console.print("\n" + verdict(compared))
    if json_:
        left_out = compared.astype(object).where(compared.notna(), None).to_dict("records")
        write_json(json_, {"fits": [_record(fitted) for fitted in fits], "left_out": left_out})
        console.print(f"written: {json_}")


def _points(study: str | None, csv: Path | None, set_: list[str] | None, runs_dir: Path) -> "Points":
    """What is known: the runs of the file, or the finished ones of the study."""
    from analysis.laws.points import points_of, read_points

    if study and csv:
        raise InputError("--study and --csv: give one")
    if csv:
        return read_points(csv)
    from analysis.runs import load_runs, names_in

    declared = load(study or "", set_)
    folder = runs_dir / declared.name
    runs = load_runs(folder, names_in(folder, declared))
    if len(variants := runs.variants()) > 1:
        raise InputError(
            f"{folder}: its runs are {len(variants)} experiments ({'; '.join(name for name, _ in variants)}); no one law holds"
        )
    if runs.done.empty:
        raise InputError(f"{folder}: no run is finished yet")
    return points_of(runs)


def _fits(points: "Points", names: list[str] | None, of_repetition: bool = False) -> "list[Fitted]":
    """Every law, or those of `names`, that the runs determine; says why of the others. InputError where none is."""
    from analysis.laws.fit import CannotFit
    from analysis.laws.fit import fit as fitted
    from analysis.laws.registry import LAWS

    found, reasons = [], []
    for law in LAWS:
        if (names and law.name not in names) or (of_repetition and law.only_clean):
            continue
        try:
            with console.status(f"fitting {law.name}"):
                found.append(fitted(law, points))
        except CannotFit as error:
            reasons.append(f"{law.name}: {error}")
    if not found:
        raise InputError(f"no law can be fitted{'; ' if reasons else ''}{'; '.join(reasons)}")
    for reason in reasons:
        console.print(f"not fitted: {reason}")
    return found


def _record(fitted: "Fitted") -> dict[str, object]:
    return {
        "law": fitted.law.name,
        "runs": fitted.points,
        "error_nats": fitted.error,
        "constants": dict(fitted.constants),
        "intervals": {name: fitted.interval(name) if fitted.draws else None for name in fitted.free},
        "fitted_on": {name: getattr(fitted.domain, name) for name in ("params", "tokens", "fraction", "repeats")},
        "draws": [dict(draw) for draw in fitted.draws],
    }


def _can_be_written(path: Path | None) -> None:
    if not path:
        return
    if not path.resolve().parent.is_dir():
        raise InputError(f"{path}: no such folder; accepted is a file in one that is there")
    try:
        TemporaryFile(dir=path.resolve().parent).close()
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error
