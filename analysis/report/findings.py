"""Write the detailed findings: sentences on each fraction and model size, computed from the summary table."""

from collections.abc import Iterator

import pandas as pd

from analysis.formatting import any_of, bracketed, percent, plural, size_name, span
from analysis.intervals import Bound, t_half_width
from analysis.measures.peaks import worst_repeats
from analysis.report import double_descent
from repeat_study.records.metrics import METRICS


def findings(numbers: pd.DataFrame, fixed_pool: bool = False) -> list[str]:
    """Sentences about double descent, the worst R for every size and fraction, and induction heads. Null results are reported too.

    numbers: `degradation.summary`. Losses and multipliers are averaged over the runs with the same R. fixed_pool: whether the pool has
    the same size for every R. In that case, every R has its own f, so no worst R is reported.
    """
    sentences = []
    for fraction, arms in numbers[numbers.repeats > 1].groupby("repeated_fraction"):
        if fixed_pool:
            break
        sentences.append(_double_descent(fraction, arms))
        sentences += [
            _worst(size_name(model, size), fraction, runs)
            for (size, model), runs in arms.groupby(["parameters_non_embedding", "model"])
        ]
    if not (numbers.repeats > 1).any():
        sentences = ["No repeated run has finished yet."]
    return [*sentences, *_induction(numbers)]


def _double_descent(fraction: float, runs: pd.DataFrame) -> str:
    if runs.double_descent.isna().all():
        return f"Double descent at f = {percent(fraction)} {double_descent.CANNOT_BE_JUDGED}."
    descents, note = double_descent.with_double_descent(runs), double_descent.note_on_cruder_threshold(runs)
    threshold = double_descent.threshold(runs)
    if descents.empty:
        return (
            f"No double descent at f = {percent(fraction)} in {plural(len(runs), 'run')}. Double descent means that test loss rises above"
            f" its earlier minimum and then falls again, with both changes exceeding {threshold}.{note}"
        )
    clearest = double_descent.clearest_case(descents)
    return (
        f"Double descent at f = {percent(fraction)}: in {len(descents)} of {plural(len(runs), 'run')}, test loss rises above its earlier"
        f" minimum and then falls again, and both changes exceed {threshold}. In the clearest case, {clearest.run}, test loss rises"
        f" by {double_descent.size_of(clearest)}, peaks at {clearest.rise_at_tokens:,.0f} training tokens and then falls by"
        f" {double_descent.recovery_of(clearest)} nats.{note}"
    )


def _worst(size: str, fraction: float, runs: pd.DataFrame) -> str:
    means = runs.groupby("repeats")[["test_loss", "excess_over_clean", "size_multiplier"]].mean()
    worst, bound = worst_repeats(runs.repeats, runs.test_loss, runs.seed)
    at_worst, worst_runs = means.loc[worst], runs[runs.repeats == worst]
    text = f"{size}, f = {percent(fraction)}: the worst R is {worst:,} ({plural(len(means), 'value')} tried)"
    text += f", with a test loss of {at_worst.test_loss:.3f}"
    if pd.notna(at_worst.excess_over_clean):
        interval = ""
        if len(worst_runs) == 1:  # with several seeds, the interval that matters is the one over seeds
            low, high = worst_runs[["excess_low", "excess_high"]].iloc[0]
            interval = (
                bracketed(low, high, "{:+z.3f}".format)
                and f"; 95% interval across test sequences:{bracketed(low, high, '{:+z.3f}'.format)}"
            )
        text += f" ({at_worst.excess_over_clean:+z.3f} compared with clean runs{interval})"
    if pd.notna(at_worst.size_multiplier):
        bounds = set(worst_runs.size_multiplier_bound)
        at_most = "at most " if Bound.AT_MOST in bounds else "at least " if Bound.AT_LEAST in bounds else ""
        text += f", matching a clean model of {at_most}{at_worst.size_multiplier:.3g} times its size"
    if len(worst_runs) > 1:
        text += f" (means over {len(worst_runs)} seeds)"
    if worst in (means.index.min(), means.index.max()):
        return f"{text}. This R is at the edge of the range tried."
    if bound:
        return f"{text}. Given the noise between seeds, the true worst R may be at the edge of the range tried."
    return f"{text}. Fewer and more repeats both do less harm."


def _induction(numbers: pd.DataFrame) -> Iterator[str]:
    """Whether and when induction heads formed, and whether they lasted."""
    scored = numbers[numbers.prefix_matching.notna()]
    if scored.empty:
        return
    formed = scored.heads_formed_at.notna()
    deep = scored[scored.layers > 1]
    if not formed.any():
        best = scored.loc[scored.prefix_matching.idxmax()]
        one_layer = len(scored) - len(deep)
        counted = any_of(len(deep), "run") if len(deep) else any_of(one_layer, "one-layer run")
        if len(deep) and one_layer:
            counted += f" with two or more layers, nor in {plural(one_layer, 'one-layer run')}, which cannot form any"
        yield (
            f"No induction head formed in {counted}: prefix matching never stays above twice its null (the"
            f" highest final score is {best.prefix_matching:.3f}, in {best.run}; its null is {best.prefix_matching_null:.3f}). This"
            " study therefore cannot show how repetition affects induction heads."
        )
        return
    for (parameters, model), runs in scored.groupby(["parameters_non_embedding", "model"]):
        size = size_name(model, parameters)
        if (runs.layers == 1).all():
            formed_here = formed[runs.index].any()
            yield (
                f"{size} has one layer and cannot form induction heads,"
                f" {'yet its prefix matching exceeds twice its null' if formed_here else 'and none formed'} (highest final score"
                f" {runs.prefix_matching.max():.3f})."
            )
        else:
            yield from _induction_of(size, runs)


def _induction_of(size: str, runs: pd.DataFrame) -> Iterator[str]:
    clean = runs[runs.repeats == 1]
    if len(clean):
        yield f"Induction heads in clean {size}: {_formed(clean)}."
    for fraction, repeated in runs[runs.repeats > 1].groupby("repeated_fraction"):
        arms = "; ".join(f"R = {repeats:,}: {_formed(arm)}" for repeats, arm in repeated.groupby("repeats"))
        yield f"Induction heads in {size}, f = {percent(fraction)}: {arms}."
        worst = repeated.groupby("repeats").test_loss.mean().idxmax()
        if len(clean):
            yield _clean_and_worst(f"{size}, f = {percent(fraction)}", clean, repeated[repeated.repeats == worst])


def _formed(arm: pd.DataFrame) -> str:
    """When heads formed in the runs at one R."""
    seeds = len(arm)
    formed_at, lost_at = arm.heads_formed_at.dropna(), arm.heads_lost_at.dropna()
    if formed_at.empty:
        return f"none in {seeds} seeds" if seeds > 1 else "none"
    text = f"formed by {span(formed_at, '{:,.0f}'.format)} tokens"
    text += f" in {len(formed_at)} of {seeds} seeds" if seeds > 1 else ""
    if len(lost_at):
        text += f", lost again by {lost_at.max():,.0f} tokens{f' in {len(lost_at)} of them' if seeds > 1 else ''}"
    return text


def _clean_and_worst(arm: str, clean: pd.DataFrame, worst: pd.DataFrame) -> str:
    """Final metrics of the clean runs and of the runs at the R with the highest test loss.

    Runs with the same seed start from the same weights and train on the same unique text, so changes are computed per seed.
    """
    pairs = clean.merge(worst, on="seed", suffixes=("", "_repeated"))
    changes = []
    for metric in (metric for metric in METRICS if metric.compared):
        change = (pairs[f"{metric.key}_repeated"] - pairs[metric.key]).dropna()
        if change.empty:
            continue
        before, after = (pairs.loc[change.index, column].mean() for column in (metric.key, f"{metric.key}_repeated"))
        changes.append(f"{metric.name} {before:.3f} and {after:.3f} ({_with_interval(change)})")
    intervals = f"means over {len(pairs)} seeds, changes with 95% intervals" if len(pairs) > 1 else "one seed"
    repeats = f"R = {worst.repeats.iloc[0]:,}, where test loss is highest"
    return f"{arm}, final metrics without repetition and at {repeats} ({intervals}): {'; '.join(changes)}."


def _with_interval(change: pd.Series) -> str:
    """Mean change over seeds, ± half the width of its 95% t interval."""
    if len(change) < 2:
        return f"{change.mean():+z.3f}"
    return f"{change.mean():+z.3f} ± {t_half_width(change):.3f}"
