"""What happened, in sentences and in a table for people; both computed from the summary."""

import pandas as pd

from analysis.formatting import cell
from analysis.intervals import t_half_width

COMPARED = {
    "test_loss": "test loss",
    "prefix_matching": "prefix matching",
    "copying_score": "copying score of the best head",
    "random_copying_gain": "copying gain on random tokens",
    "copying_loss": "copying loss",
    "copying_gain": "copying gain on a paragraph",
    "in_context_score": "in-context score",
}
OF_HEADS = ("copying ×", "prefix ×", "prefix matching", "null score", "heads from")  # left out where no run has any


def findings(numbers: pd.DataFrame) -> list[str]:
    """Sentences on double descent, on the worst R of every size and fraction and on induction heads; nulls are said as
    plainly as effects.

    numbers: `degradation.summary`. Losses and multipliers are means over the runs of one R, or say that they are not.
    """
    sentences = []
    for fraction, here in numbers[numbers.repeats > 1].groupby("repeated_fraction"):
        sentences.append(_double_descent(fraction, here))
        sentences += [_worst(model, fraction, line) for model, line in here.groupby("model")]
    return (sentences or ["No repeated run has finished yet."]) + _induction(numbers)


def _double_descent(fraction: float, here: pd.DataFrame) -> str:
    if here.double_descent.isna().all():
        return f"Whether there is double descent at f = {fraction:.0%} cannot be said without a clean run to judge by."
    found = here[here.double_descent == True]  # noqa: E712  (the column may hold None: no clean run to judge by)
    if found.empty:
        return f"No double descent at f = {fraction:.0%} in {len(here)} runs."
    best = found.loc[found[["rise", "won_back"]].min(axis=1).idxmax()]
    return (
        f"Double descent at f = {fraction:.0%}: in {len(found)} of {len(here)} runs test loss rises above its earlier"
        f" minimum and falls again, both by more than twice the noise of clean runs. The clearest is {best.run}: it rises by"
        f" {best.rise:.2f} nats up to {best.rise_at_tokens:,.0f} tokens and falls by {best.won_back:.2f} from there to the end."
    )


def _worst(model: str, fraction: float, line: pd.DataFrame) -> str:
    means = line.groupby("repeats")[["test_loss", "excess_over_clean", "size_multiplier"]].mean()
    worst = means.test_loss.idxmax()
    at_worst, runs = means.loc[worst], line[line.repeats == worst]
    said = f"{model}, f = {fraction:.0%}: the worst of the {len(means)} R tried is {worst:,} with test loss {at_worst.test_loss:.3f}"
    if pd.notna(at_worst.excess_over_clean):
        said += f" ({at_worst.excess_over_clean:+.3f} over clean)"
    if pd.notna(at_worst.size_multiplier):
        bounds = "".join(sorted(set(runs.size_multiplier_bound)))
        said += f", the loss of a clean model {bounds}{at_worst.size_multiplier:.3g} times its size"
    if len(runs) > 1:
        said += f" (means over {len(runs)} seeds)"
    inside = means.index.min() < worst < means.index.max()
    return said + ("; fewer and more repeats both do less harm." if inside else "; it is the edge of the range tried.")


def _induction(numbers: pd.DataFrame) -> list[str]:
    """Whether induction heads formed, when, and what repeats left of them; where none did, that nothing is claimed."""
    if numbers.prefix_matching.isna().all():
        return []
    known = numbers[numbers.prefix_matching.notna()]
    formed = known.heads_formed_at.notna()
    if not formed.any():
        best = known.loc[known.prefix_matching.idxmax()]
        return [
            f"No induction head formed in any of {len(known)} runs: no best head's prefix matching stays above twice its null"
            f" (the highest at the end is {best.prefix_matching:.3f}, in {best.run}; its null is"
            f" {best.prefix_matching_null:.3f}). About what repeats do to induction heads this study says nothing."
        ]
    sentences = []
    for (_, model), here in known.groupby(["parameters_non_embedding", "model"]):
        if (here.layers == 1).all():
            found = "none formed" if not formed[here.index].any() else "its score exceeds twice its null all the same"
            best = here.prefix_matching.max()
            sentences.append(
                f"{model} has one layer and cannot form induction heads: {found} (best score at the end {best:.3f})."
            )
            continue
        clean = here[here.repeats == 1]
        if len(clean):
            sentences.append(f"Induction heads in {model}: {_formed(clean)}.")
        for fraction, repeated in here[here.repeats > 1].groupby("repeated_fraction"):
            arms = "; ".join(f"R = {value:,}: {_formed(arm)}" for value, arm in repeated.groupby("repeats"))
            sentences.append(f"Induction heads in {model}, f = {fraction:.0%}: {arms}.")
            worst = repeated.groupby("repeats").test_loss.mean().idxmax()
            if len(clean):
                sentences.append(_beside(f"{model}, f = {fraction:.0%}", clean, repeated[repeated.repeats == worst]))
    return sentences


def _formed(arm: pd.DataFrame) -> str:
    """When heads formed in the runs of one R."""
    name = "clean" if (arm.repeats == 1).all() else ""
    when, lost = arm.heads_formed_at.dropna(), arm.heads_lost_at.dropna()
    if when.empty:
        return f"{name} none{f' in {len(arm)} seeds' if len(arm) > 1 else ''}".strip()
    first, last = f"{when.min():,.0f}", f"{when.max():,.0f}"
    said = f"formed by {first if first == last else f'{first} to {last}'} tokens"
    said += f" in {len(when)} of {len(arm)} seeds" if len(arm) > 1 else ""
    if len(lost):
        said += f" and lost again{f' in {len(lost)}' if len(arm) > 1 else ''} by {lost.max():,.0f}"
    return f"{name} {said}".strip()


def _beside(where: str, clean: pd.DataFrame, worst: pd.DataFrame) -> str:
    """The end of the clean runs beside the worst R for test loss, which is not chosen by what is compared here. Runs of a
    seed start from the same weights and see the same unique text, so differences are taken seed by seed."""
    pairs = clean.merge(worst, on="seed", suffixes=("", "_repeated"))
    said = []
    for column, name in COMPARED.items():
        change = (pairs[f"{column}_repeated"] - pairs[column]).dropna()
        if change.empty:
            continue
        before, after = pairs.loc[change.index, column].mean(), pairs.loc[change.index, f"{column}_repeated"].mean()
        said.append(f"{name} {before:.3f} against {after:.3f} ({_with_interval(change)})")
    intervals = (
        f"means of {len(pairs)} seeds, differences with 95% intervals over them" if len(pairs) > 1 else "one seed"
    )
    repeats = f"R = {worst.repeats.iloc[0]:,} (the worst for test loss)"
    return f"{where}, at the end, clean against {repeats}; {intervals}: {'; '.join(said)}."


def _with_interval(change: pd.Series) -> str:
    """Mean change over seeds and half its 95% t interval."""
    if len(change) < 2:
        return f"{change.mean():+.3f}"
    return f"{change.mean():+.3f} ± {t_half_width(change):.3f}"


def short_summary(numbers: pd.DataFrame) -> pd.DataFrame:
    """The summary for people: rounded, bounds written out, one row per run; a rise within the noise is left out."""

    def text(column: pd.Series, form: str) -> list[str]:
        return [cell(value, form) for value in column]

    def sizes(column: str) -> list[str]:
        values = text(numbers[column], ".3f")
        return [bound + value for bound, value in zip(numbers[f"{column}_bound"], values, strict=True)]

    rise = numbers.where(numbers.rise_counts != False)  # noqa: E712  (None: no clean run to judge by)
    short = pd.DataFrame(
        {
            "run": numbers.label,
            "N": text(numbers.parameters_non_embedding, ",d"),
            "f": [f"{value:.0%}" if value else "clean" for value in numbers.repeated_fraction],
            "R": numbers.repeats,
            "test loss": text(numbers.test_loss, ".3f"),
            "over clean": text(numbers.excess_over_clean, "+.3f"),
            "size ×": sizes("size_multiplier"),
            "rise": text(rise.rise, ".3f"),
            "at tokens": text(rise.rise_at_tokens, ",.0f"),
            "won back": text(rise.won_back, ".3f"),
            "pool loss": text(numbers.pool_loss, ".3f"),
            "copying loss": text(numbers.copying_loss, ".3f"),
            "copying gain": text(numbers.copying_gain, ".3f"),
            "its null": text(numbers.copying_gain_null, ".3f"),
            "copying ×": sizes("copying_multiplier"),
            "prefix ×": sizes("prefix_matching_multiplier"),
            "prefix matching": text(numbers.prefix_matching, ".3f"),
            "null score": text(numbers.prefix_matching_null, ".3f"),
            "heads from": text(numbers.heads_formed_at, ",.0f"),
        }
    )
    return short.drop(columns=[name for name in OF_HEADS if (short[name] == "–").all()])
