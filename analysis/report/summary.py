"""Summarize a study in up to five points, computed from the summary table. `findings` adds the details."""

from collections.abc import Iterator

import pandas as pd

from analysis.formatting import any_of, percent, plural, short_count, signed_span, span
from analysis.intervals import Bound, t_half_width
from analysis.measures.peaks import worst_repeats
from analysis.report import double_descent
from analysis.runs import Runs, left_out_of_laws


def summarize(runs: Runs, numbers: pd.DataFrame) -> list[str]:
    """One or more sentences each about the study, the worst R, double descent, the cost of repetition, and induction heads with copying.

    Null results are reported too. numbers: `degradation.summary`, empty if no run has finished.
    """
    if numbers.empty or not (numbers.repeats > 1).any():
        return [_study(runs), "No repeated run has finished yet, so the effect of repetition is unknown."]
    if runs.has_fixed_pool:  # every R has its own f, so no R is the worst at its f
        return [_study(runs), _double_descent(numbers), f"{_heads(numbers)}."]
    worst = worst_arms(numbers)
    heads = f"{_heads(numbers)}{_copying(numbers, worst)}."
    return [_study(runs), _worst(worst), _double_descent(numbers), _cost(worst), heads]


def worst_arms(numbers: pd.DataFrame) -> pd.DataFrame:
    """One row per model and fraction, with the R that has the highest mean test loss and the means at this R.

    Other columns: `interior` (both fewer and more repeats do less harm; see `worst_repeats`), `at_edge` (the worst R is the smallest or
    largest R tried), `bound` of the size multiplier, and `noise`, twice the standard deviation of test loss over the clean seeds, in
    nats (NaN for a single seed).
    """
    rows = []
    clean = numbers[numbers.repeats == 1].groupby("model").test_loss.std(ddof=1)
    for (fraction, model), arms in numbers[numbers.repeats > 1].groupby(["repeated_fraction", "model"]):
        means = arms.groupby("repeats")[["test_loss", "excess_over_clean", "size_multiplier"]].mean()
        worst, bound = worst_repeats(arms.repeats, arms.test_loss, arms.seed)
        rows.append(
            {
                "repeated_fraction": fraction,
                "model": model,
                "repeats": worst,
                "interior": bound is Bound.EXACT,
                "at_edge": worst in (means.index.min(), means.index.max()),
                "noise": 2 * clean.get(model, float("nan")),
                "bound": "".join(sorted(set(arms[arms.repeats == worst].size_multiplier_bound))),
                **means.loc[worst],
            }
        )
    return pd.DataFrame(rows)


def _study(runs: Runs) -> str:
    table = runs.table
    repeated = table[table.repeats > 1]
    sizes = table.parameters_non_embedding.unique()
    count = len(table) + len(runs.not_started)
    facts = [
        f"{plural(count, 'run')} ({'all' if len(runs.done) == count else len(runs.done)} finished)",
        f"{plural(len(sizes), 'model size')} ({span(sizes, short_count)} non-embedding parameters)",
    ]
    if len(repeated):
        fractions = " and ".join(map(percent, sorted(repeated.repeated_fraction.unique())))
        between = "=" if repeated.repeats.nunique() == 1 else "from"
        clean = "with clean runs" if (table.repeats == 1).any() else "without clean runs"
        facts += [f"f = {fractions}", f"R {between} {span(repeated.repeats, '{:,}'.format)}, {clean}"]
    facts += [plural(table.seed.nunique(), "seed"), f"{span(table.trained_tokens, short_count)} tokens per run"]
    left_out = left_out_of_laws(runs)
    return f"{runs.folder.resolve().name}: {'; '.join(facts)}.{' ' if left_out else ''}{left_out}"


def _worst(worst: pd.DataFrame) -> str:
    arms = []
    for fraction, sizes in worst.groupby("repeated_fraction", sort=False):
        harmed = sizes[~(sizes.excess_over_clean <= sizes.noise.fillna(0.0))]
        if harmed.empty:
            arms.append(f"at f = {percent(fraction)}, none ({plural(len(sizes), 'size')})")
            continue
        interior = int(harmed.interior.sum())
        if interior:
            edge = "fewer and more repeats do less harm"
        elif harmed.at_edge.all():
            edge = "at the edge of the range tried"
        else:
            edge = "given the noise between seeds, the true worst R may be at the edge of the range tried"
        some = f" for {interior} of them" if 0 < interior < len(harmed) else ""
        repeats = span(harmed.repeats, "{:,}".format)
        arms.append(
            f"at f = {percent(fraction)}, R = {repeats} ({len(harmed)} of {plural(len(sizes), 'size')}; {edge}{some})"
        )
    noise = ", counting only harm beyond the noise between clean seeds" if worst.noise.notna().all() else ""
    return f"Worst R by test loss among finished runs{noise}: {'; '.join(arms)}."


def _double_descent(numbers: pd.DataFrame) -> str:
    repeated = numbers[numbers.repeats > 1]
    if repeated.double_descent.isna().all():
        return f"Double descent {double_descent.CANNOT_BE_JUDGED}."
    descents, note = double_descent.with_double_descent(repeated), double_descent.note_on_cruder_threshold(repeated)
    if descents.empty:
        return (
            f"No double descent in {any_of(len(repeated), 'repeated run')}. Double descent means that test loss rises and then falls"
            f" again, with both changes exceeding {double_descent.threshold(repeated)}.{note}"
        )
    shares = [
        f"in {len(double_descent.with_double_descent(arms))} of {plural(len(arms), 'run')} at f = {percent(fraction)}"
        for fraction, arms in repeated.groupby("repeated_fraction")
    ]
    clearest = double_descent.clearest_case(descents)
    return (
        f"Double descent occurs {' and '.join(shares)}. In the clearest case, {clearest.label}, test loss rises"
        f" by {double_descent.size_of(clearest)} and then falls by {double_descent.recovery_of(clearest)} nats.{note}"
    )


def _cost(worst: pd.DataFrame) -> str:
    comparable = worst[worst.excess_over_clean.notna()]
    if comparable.empty:
        return "The cost of repetition is unknown, because no clean run of these sizes has finished."
    arms = []
    for fraction, sizes in comparable.groupby("repeated_fraction", sort=False):
        text = f"at f = {percent(fraction)}, test loss differs from that of clean runs by {signed_span(sizes.excess_over_clean)} nats"
        sized = sizes[sizes.size_multiplier.notna()].sort_values("size_multiplier")
        sized = sized[
            (sized.bound != Bound.AT_MOST) | (sized.size_multiplier < 1)
        ]  # the bound "at most its own size" carries no information
        if len(sized):
            smallest, *_, largest = [f"{row.bound}{row.size_multiplier:.2g}" for row in sized.itertuples()] * 2
            text += f", matching clean models of {smallest if smallest == largest else f'{smallest} to {largest}'} times the size"
        arms.append(text)
    unsized = " (effective sizes are unknown, see below)" if comparable.size_multiplier.isna().all() else ""
    return f"Cost of the worst R{unsized}: {'; '.join(arms)}."


def _heads(numbers: pd.DataFrame) -> str:
    """A sentence, without its period, about the number of runs in which induction heads formed and lasted."""
    deep = numbers[(numbers.layers > 1) & numbers.prefix_matching.notna()]
    if deep.empty:
        return "Induction heads were not measured"
    if deep.heads_formed_at.isna().all():
        return f"No induction head formed in {any_of(len(deep), 'run')}, so the effect of repetition on induction heads is unknown"
    kept = deep.heads_formed_at.notna() & deep.heads_lost_at.isna()
    shares = [
        f"{int(kept[arm.index].sum())} of {plural(len(arm), name)}"
        for name, arm in (("clean run", deep[deep.repeats == 1]), ("repeated run", deep[deep.repeats > 1]))
        if len(arm)
    ]
    return f"Induction heads formed and lasted in {' and '.join(shares)}"


def _copying(numbers: pd.DataFrame, worst: pd.DataFrame) -> str:
    """How copying changes at the worst R, as text to append to the sentence about induction heads."""
    measured = {
        name: list(_changes(numbers, worst, key))
        for key, name in (("copying_loss", "copying loss"), ("copying_gain", "copying gain"))
    }
    texts = [f"{name} {_change(changes)}" for name, changes in measured.items() if changes]
    if not texts:
        return ""
    loss, gain = (sum(change.mean() for change in changes) for changes in measured.values())
    note = (
        ". A higher gain does not mean better copying here, because the first copy became harder to predict as well"
        if loss > 0 and gain > 0
        else ""
    )
    return f". Compared with clean runs, at the worst R and on copied text: {'; '.join(texts)}{note}"


def _change(changes: list[pd.Series]) -> str:
    """How a metric changes in every combination of size and fraction, and whether the intervals exclude 0."""
    means = [change.mean() for change in changes]
    halves = [t_half_width(change) if len(change) > 1 else 0.0 for change in changes]
    size = f"{signed_span(means)} nats"
    lower = sum(mean + half < 0 for mean, half in zip(means, halves, strict=True))
    higher = sum(mean - half > 0 for mean, half in zip(means, halves, strict=True))
    one_seed = all(len(change) == 1 for change in changes)
    if len(changes) == 1 and one_seed:
        return f"changes by {size} (one seed, no interval)"
    if not lower and not higher and not one_seed:
        return f"does not differ clearly from clean ({size}; {'the interval includes' if len(changes) == 1 else 'all intervals include'} 0)"
    if len(changes) == 1:
        return f"changes by {size} (the 95% interval over seeds excludes 0)"
    judged = "one seed, no intervals" if one_seed else "by 95% intervals over seeds"
    return f"changes by {size} (higher for {higher} and lower for {lower} of {len(changes)} combinations of size and fraction; {judged})"


def _changes(numbers: pd.DataFrame, worst: pd.DataFrame, key: str) -> Iterator[pd.Series]:
    """For every model and fraction, a metric at the worst R minus that of the clean run with the same seed."""
    clean = numbers[numbers.repeats == 1].set_index(["model", "seed"])[key]
    for arm in worst.itertuples():
        runs = numbers[(numbers.model == arm.model) & (numbers.repeated_fraction == arm.repeated_fraction)]
        runs = runs[runs.repeats == arm.repeats].set_index(["model", "seed"])
        change = (runs[key] - clean.reindex(runs.index)).dropna()
        if len(change):
            yield change
