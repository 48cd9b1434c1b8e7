"""Write the first screen of the page: the question, the answer with its interval, and how to train the runs again."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from analysis.figures.plot import SavedPlot
from analysis.formatting import listed, nats_digits, percent, plural, short_count, size_name, span
from analysis.measures.headline import Headline, Kind, headline
from analysis.runs import ORDER, Runs
from repeat_study.config.model_sizes import shape_of

MOST_VALUES = 6  # values of a factor that are listed one by one; longer lists are given as a range
NEAR_UNIFORM = 0.5  # nats; a loss this far below that of a uniform guess or closer is compared with it
FEWEST_FOR_SELECTION = 3  # with fewer arms, selecting the largest difference hardly matters
FACTOR_NAMES = {
    **dict.fromkeys(ORDER, "the order of the copies"),
    "fixed_pool": "the size of the pool",
    "hold_fixed": "which tokens are held fixed",
    "corpus": "the training data",
    "mix": "the training data",
    "pool_corpus": "the text of the pool",
    "unit": "the unit that is repeated",
    "order": "the order of the copies",
    "model": "the model size",
    "repeats": "the number of repeats",
    "repeated_fraction": "the repeated share",
    "tokens": "the number of training tokens",
    "parent_repeats": "the parent's repeats",
    "parent_fraction": "the parent's repeated share",
    "is_fine_tuned": "the starting point",
}
NO_ANSWER = (
    "No finished run can be compared with a finished control of the same size and seed, so there is no answer yet."
)


@dataclass(frozen=True)
class FirstScreen:
    """The first screen. All texts are sentences, except for `varied`, which lists factors and their values."""

    question: str
    varied: list[tuple[str, str]]
    answer: str
    certainty: str
    command: str  # shell commands, one per line
    figure: SavedPlot | None
    terms: str = ""  # defines the symbols on the screen


def first_screen(runs: Runs, figure: SavedPlot | None, command: str, training_text: str = "") -> FirstScreen:
    """The first screen of a study's page.

    figure: the figure `headline`, or None if it is missing. training_text: what the models are trained on; empty if it is unknown.
    """
    result = headline(runs)
    answer, certainty = (_answer(result), _certainty(result)) if result else (NO_ANSWER, "")
    if result and result.kind is Kind.REPEATS:
        answer += _uniform_guess(runs, result.arm)
    varied = [*([("trained on", training_text)] if training_text else []), *_varied(runs)]
    return FirstScreen(_question(runs, result), varied, answer, certainty, command, figure, _terms(runs))


def _question(runs: Runs, result: Headline | None) -> str:
    if runs.fine_tuned is not None:
        return "Does training on repeated data first make fine-tuning on new text worse?"
    if runs.has_named_pool:
        return "What does a model gain from reading a pool of extra text R times, and what does it cost elsewhere?"
    factors = runs.varied_factors()
    if len(runs.variants()) > 1:
        return f"Does the cost of repeating data depend on {listed(_factor_names(factors))}?"
    repeated = runs.table[runs.table.repeats > 1]
    if repeated.empty:
        return "How does test loss depend on model size without any repeated data?"
    shares = listed([percent(share) for share in sorted(repeated.repeated_fraction.unique())])
    times = span(repeated.repeats, "{:,}".format)
    return f"What does it cost if {shares.replace(' and ', ' or ')} of the training tokens repeat a pool {times} times?"


def _terms(runs: Runs) -> str:
    """Define f, R, the pool, and the names of model sizes."""
    smallest = runs.combined.table.sort_values("parameters_non_embedding").iloc[0]
    size = size_name(smallest.model, smallest.parameters_non_embedding)
    text = ""
    if (runs.table.repeats > 1).any() or runs.fine_tuned is not None:
        text = (
            "f is the share of training tokens that come from a repeated pool of sequences, and R is the number of times that each"
            " sequence in the pool is read. "
        )
    layers, width = plural(int(smallest.layers), "layer"), shape_of(smallest.model).d_model
    count = short_count(smallest.parameters_non_embedding)
    return f"{text}{size} has {layers}, a width of {width}, and {count} non-embedding parameters."


def _uniform_guess(runs: Runs, arm: pd.Series) -> str:
    """A sentence that compares the arm's test loss with that of a uniform guess, with a leading space. Empty if it is far below."""
    done = runs.done
    same = (done[["model", "repeated_fraction", "repeats"]] == arm[["model", "repeated_fraction", "repeats"]]).all(
        axis=1
    )
    loss, uniform = done[same].final_test_loss.mean(), math.log(done[same].vocabulary.iloc[0])
    if loss < uniform - NEAR_UNIFORM:
        return ""
    place = "close to" if abs(loss - uniform) <= NEAR_UNIFORM else "worse than"
    return f" The loss is {loss:.2f}, {place} that of a uniform guess over the vocabulary ({uniform:.2f})."


def _factor_names(factors: list[str]) -> list[str]:
    return list(dict.fromkeys(map(factor_name, factors)))


def factor_name(field: str) -> str:
    """The name of a field in sentences, such as "the learning rate"."""
    return FACTOR_NAMES.get(field, f"the {field.replace('_', ' ')}")


def _varied(runs: Runs) -> Iterator[tuple[str, str]]:
    """Every factor that differs between runs, with its values."""
    table = runs.combined.table
    repeated = table[table.repeats > 1]
    sizes = table.drop_duplicates("model").sort_values("parameters_non_embedding")
    if len(sizes) > 1:
        yield "model size", _values(list(_sizes(runs, sizes)))
    if runs.fine_tuned is not None:
        parents = runs.fine_tuned.table.drop_duplicates(["parent_fraction", "parent_repeats"])
        rows = parents.sort_values(["parent_fraction", "parent_repeats"]).itertuples()
        names = [
            f"f = {percent(row.parent_fraction)}, R = {row.parent_repeats:,}" if row.parent_repeats > 1 else "clean"
            for row in rows
        ]
        yield "starting point", _values(["from scratch", *(f"parent: {name}" for name in names)])
    if repeated.repeats.nunique() > 1:
        yield "repeats R", _values([f"{value:,}" for value in sorted(repeated.repeats.unique())])
    if repeated.repeated_fraction.nunique() > 1 and not runs.has_fixed_pool:
        yield "repeated share f", _values([percent(value) for value in sorted(repeated.repeated_fraction.unique())])
    factors = runs.varied_factors()
    names = [name for name, _ in runs.variants()]
    if len(names) > 1:
        yield listed([name.removeprefix("the ") for name in _factor_names(factors)]), _values(names)
    control = "R = 0" if runs.has_named_pool else "clean runs"
    if len(repeated) and (runs.table.repeats == 1).any():
        yield "compared with", f"{control} that see every sequence once" if control == "clean runs" else control
    yield "seeds", str(table.seed.nunique())


def _sizes(runs: Runs, sizes: pd.DataFrame) -> Iterator[str]:
    """Every size, with a note if it only has controls."""
    tuned = runs.fine_tuned.table if runs.fine_tuned is not None else None
    treated = runs.table[runs.table.repeats > 1] if tuned is None else tuned
    note = "clean only" if tuned is None else "from scratch only"
    for row in sizes.itertuples():
        is_treated = treated.empty or (treated.model == row.model).any()
        name = size_name(str(row.model), float(row.parameters_non_embedding))
        yield name if is_treated else f"{name[:-1]}; {note})"


def _values(names: list[str]) -> str:
    separator = "; " if any(", " in name for name in names) else ", "
    return separator.join(names) if len(names) <= MOST_VALUES else f"{names[0]} to {names[-1]} ({len(names)} values)"


def _answer(result: Headline) -> str:
    arm = result.arm
    size, change, clear = size_name(arm.model, arm.parameters_non_embedding), nats(arm), is_clear(arm)
    if result.kind is Kind.FINE_TUNING:
        parent = f"f = {percent(arm.parent_fraction_repeated)} and R = {arm.parent_repeats_repeated:,}"
        if clear is False:
            text = (
                f"Fine-tuning {size} from a parent with {parent} does not differ clearly from a clean parent: {change}."
            )
        else:
            direction = "higher" if arm["mean"] > 0 else "lower"
            text = f"After fine-tuning {size}, final test loss is {amount(arm)} {direction} if the parent has {parent} than if it is clean."
    elif result.kind is Kind.NAMED_POOL:
        effect = "lowers" if arm["mean"] < 0 else "does not lower"
        sure = ", though not clearly" if clear is False and arm["mean"] < 0 else ""
        text = f"Reading the pool {arm.repeats:g} times {effect} the loss on unseen text like it the most{sure}: {change} for {size}."
        general = result.lines[(result.lines.repeats == arm.repeats) & (result.lines.measure != arm.measure)]
        if len(general):
            text = f"{text[:-1]}, and changes the loss on other text by {nats(general.iloc[0])}."
    elif result.kind is Kind.VARIANTS:
        where, higher = _where(arm), arm["mean"] > 0
        effect = f"final test loss is {amount(arm)} {'higher' if higher else 'lower'}"
        if arm.repeats > 1:
            effect = f"repetition costs {amount(arm)} {'more' if higher else 'less'}"
        text = f"The largest difference: {effect} with {arm.variant} than with {arm.reference}, {where}."
        if clear is False:
            text = f"There is no clear difference: the largest, {arm.variant} compared with {arm.reference}, {where}, is {change}."
        if result.clean is not None:
            text += f" In clean runs, the difference in final test loss is {nats(result.clean)}."
    elif arm["mean"] <= 0 or clear is False:
        text = (
            f"Repetition costs nothing measurable: the largest difference from clean runs is {change}, {_where(arm)}."
        )
    else:
        worst = (
            f"The worst of {result.arms} arms is R = {arm.repeats:,}:"
            if result.arms > 1
            else f"At R = {arm.repeats:,},"
        )
        arm_name = f"{arm.model}, f = {percent(arm.repeated_fraction)}"
        text = f"{worst} final test loss is {amount(arm)} higher than without repetition ({arm_name})."
    return text


def _where(arm: pd.Series) -> str:
    size = size_name(arm.model, arm.parameters_non_embedding)
    share = f" and f = {percent(arm.repeated_fraction)}" if arm.repeated_fraction else " in clean runs"
    repeats = f", R = {arm.repeats:,}" if "variant" in arm and arm.repeats > 1 else ""
    return f"for {size}{share}{repeats}"


def nats(arm: pd.Series) -> str:
    """A difference in nats per token with its sign and interval. arm: a row with `mean`, `low`, `high` and `seeds`."""
    return _nats(arm["mean"], arm.low, arm.high, int(arm.seeds), "+")


def amount(arm: pd.Series) -> str:
    """The size of a difference in nats per token, without its sign, with its interval. The words around it give the direction."""
    ends = (arm.low, arm.high) if arm["mean"] >= 0 else (-arm.high, -arm.low)
    return _nats(abs(arm["mean"]), *ends, int(arm.seeds), "")


def _nats(mean: float, low: float, high: float, seeds: int, sign: str) -> str:
    has_interval = seeds > 1 and low == low
    form = f"{sign}.{nats_digits(mean, low, high)}f"
    return f"{mean:{form}} nats/token" + (f" [{low:{form}}, {high:{form}}]" if has_interval else "")


def is_clear(arm: pd.Series) -> bool | None:
    """Whether the interval excludes 0; None for a single seed."""
    return None if arm.seeds < 2 or arm.low != arm.low else bool(arm.low > 0 or arm.high < 0)


def _certainty(result: Headline) -> str:
    arm = result.arm
    if arm.seeds < 2:
        text = (
            "There is one seed, so there is no interval: another seed could give a different number. Run more seeds to estimate the"
            " spread."
        )
    else:
        text = f"Brackets: 95% interval over {plural(int(arm.seeds), 'seed')}. Each run is compared with the control of the same seed."
    if result.arms >= FEWEST_FOR_SELECTION:
        text += f" The difference was selected as the largest of {result.arms}, so it is probably somewhat smaller in new runs."
    return text
