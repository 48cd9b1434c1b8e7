"""What happened, in at most five sentences; `findings` has the details. All computed from the summary."""

import pandas as pd

from analysis.formatting import plural, short_count, span
from analysis.intervals import Bound, t_half_width
from analysis.runs import Runs


def in_short(runs: Runs, numbers: pd.DataFrame) -> list[str]:
    """Which study; the worst R; double descent; what it costs; induction and copying. Nulls are said as plainly as effects.

    numbers: `degradation.summary`, empty where no run is finished.
    """
    said = [_study(runs)]
    if numbers.empty or not (numbers.repeats > 1).any():
        return [*said, "No repeated run has finished yet: nothing can be said of what repeats do."]
    worst = worst_arms(numbers)
    return [*said, _worst(worst), _double_descent(numbers), _cost(worst), _heads_and_copying(numbers, worst)]


def worst_arms(numbers: pd.DataFrame) -> pd.DataFrame:
    """A row per model and fraction: its worst R for mean test loss and the means there, `inside` (fewer and more repeats
    were tried), `bound` of the size multiplier, and the `noise` of its clean seeds in nats, NaN for one seed."""
    rows = []
    clean = numbers[numbers.repeats == 1].groupby("model").test_loss.std(ddof=1)
    for (fraction, model), here in numbers[numbers.repeats > 1].groupby(["repeated_fraction", "model"]):
        means = here.groupby("repeats")[["test_loss", "excess_over_clean", "size_multiplier"]].mean()
        worst = means.test_loss.idxmax()
        rows.append(
            {
                "repeated_fraction": fraction,
                "model": model,
                "repeats": worst,
                "inside": means.index.min() < worst < means.index.max(),
                "noise": 2 * clean.get(model, float("nan")),
                "bound": "".join(sorted(set(here[here.repeats == worst].size_multiplier_bound))),
                **means.loc[worst],
            }
        )
    return pd.DataFrame(rows)


def _study(runs: Runs) -> str:
    table = runs.table
    repeated = table[table.repeats > 1]
    sizes, seeds = table.parameters_non_embedding.unique(), table.seed.nunique()
    said = f"{runs.folder.resolve().name}: {plural(len(table) + len(runs.absent), 'run')}, {len(runs.done)} of them finished; "
    said += f"{plural(len(sizes), 'model size')} ({span(sizes, short_count)} parameters without embeddings)"
    if len(repeated):
        fractions = " and ".join(f"{fraction:.0%}" for fraction in sorted(repeated.repeated_fraction.unique()))
        said += f", f = {fractions}, R from {span(repeated.repeats, '{:,}'.format)}"
        said += " beside clean runs" if (table.repeats == 1).any() else " and no clean run"
    said += f", {plural(seeds, 'seed')}, {span(table.trained_tokens, short_count)} tokens each"
    return said.replace("R from", "R =" if repeated.repeats.nunique() == 1 else "R from") + "."


def _worst(worst: pd.DataFrame) -> str:
    said = []
    for fraction, here in worst.groupby("repeated_fraction", sort=False):
        harmed = here[~(here.excess_over_clean <= here.noise.fillna(0.0))]
        if harmed.empty:
            said.append(f"f = {fraction:.0%}, none ({plural(len(here), 'size')})")
            continue
        inside = int(harmed.inside.sum())
        share = "" if inside == len(harmed) else f"in {inside} of them "
        edge = f", {share}with less harm at fewer and at more repeats" if inside else ", the edge of the range"
        values = span(harmed.repeats, "{:,}".format)
        said.append(f"f = {fraction:.0%}, R = {values} ({len(harmed)} of {plural(len(here), 'size')}{edge})")
    judged = " beyond what clean seeds vary by" if worst.noise.notna().all() else ""
    return f"The R, of those finished, that harms test loss most{judged}: {'; '.join(said)}."


def _double_descent(numbers: pd.DataFrame) -> str:
    repeated = numbers[numbers.repeats > 1]
    if repeated.double_descent.isna().all():
        return "Whether there is double descent cannot be said: no clean run shows what noise is."
    found = repeated[repeated.double_descent == True]  # noqa: E712  (None where nothing is known)
    if found.empty:
        return f"No double descent in any of {len(repeated)} repeated runs: no test loss rises and falls again by more than noise."
    shares = [
        f"f = {fraction:.0%} in {int((here.double_descent == True).sum())} of {len(here)} runs"  # noqa: E712
        for fraction, here in repeated.groupby("repeated_fraction")
    ]
    best = found.loc[found[["rise", "won_back"]].min(axis=1).idxmax()]
    return (
        f"Double descent of test loss over training: {', '.join(shares)}; the clearest ({best.label}) rises by {best.rise:.2f} nats"
        f" and wins {best.won_back:.2f} back."
    )


def _cost(worst: pd.DataFrame) -> str:
    known = worst[worst.excess_over_clean.notna()]
    if known.empty:
        return "What repeats cost cannot be said: no clean run of these sizes has finished."
    said = []
    for fraction, here in known.groupby("repeated_fraction", sort=False):
        told = f"f = {fraction:.0%}, {span(here.excess_over_clean, '{:+.3f}'.format)} nats over clean"
        sized = here[here.size_multiplier.notna()].sort_values("size_multiplier")
        sized = sized[(sized.bound != Bound.AT_MOST) | (sized.size_multiplier < 1)]  # at most its own size says nothing
        if len(sized):
            ends = [f"{row.bound}{row.size_multiplier:.2g}" for row in sized.itertuples()]
            told += (
                f", as of clean models {ends[0] if len(set(ends)) == 1 else f'{ends[0]} to {ends[-1]}'} times the size"
            )
        said.append(told)
    unsized = " (in size: not to be said, see below)" if known.size_multiplier.isna().all() else ""
    return f"What the worst R costs{unsized}: {'; '.join(said)}."


def _heads_and_copying(numbers: pd.DataFrame, worst: pd.DataFrame) -> str:
    deep = numbers[(numbers.layers > 1) & numbers.prefix_matching.notna()]
    if deep.empty:
        said = "Induction heads were not measured"
    elif deep.heads_formed_at.isna().all():
        said = f"No induction head formed in any of {plural(len(deep), 'run')}, so nothing is said of what repeats do to them"
    else:
        kept = deep.heads_formed_at.notna() & deep.heads_lost_at.isna()
        shares = [
            f"{int(kept[arm.index].sum())} of {plural(len(arm), name)}"
            for name, arm in (("clean run", deep[deep.repeats == 1]), ("repeated run", deep[deep.repeats > 1]))
            if len(arm)
        ]
        said = f"Induction heads formed and stayed in {' and '.join(shares)}"
    lower, higher, changes, single = 0, 0, [], True
    clean = numbers[numbers.repeats == 1].set_index(["model", "seed"]).copying_gain
    for arm in worst.itertuples():
        runs = numbers[(numbers.model == arm.model) & (numbers.repeated_fraction == arm.repeated_fraction)]
        runs = runs[runs.repeats == arm.repeats].set_index(["model", "seed"])
        change = (runs.copying_gain - clean.reindex(runs.index)).dropna()
        if change.empty:
            continue
        half = 0.0
        if len(change) > 1:
            single, half = False, t_half_width(change)
        changes.append(change.mean())
        lower, higher = lower + (change.mean() + half < 0), higher + (change.mean() - half > 0)
    if changes:
        rest = len(changes) - lower - higher
        judged = "one seed, no intervals" if single else f"not told apart within 95% intervals over seeds in {rest}"
        said += (
            f"; at the worst R the gain from copies of a paragraph is lower than clean in {lower} of {len(changes)} sizes and"
            f" fractions and higher in {higher} ({judged}), by {span(changes, '{:+.3f}'.format)} nats"
        )
    return said + "."
