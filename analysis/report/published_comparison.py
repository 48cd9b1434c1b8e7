"""Compare the study's numbers with published ones. Scale, data and models differ, so only the direction is expected to agree."""

from collections.abc import Iterator

import pandas as pd

from analysis import published
from analysis.formatting import size_name
from analysis.intervals import NAN, Estimate, over_seeds, with_bounds
from analysis.measures import fine_tuning
from analysis.measures.compute_equivalent_loss import lost_compute
from analysis.measures.degradation import summary
from analysis.measures.effective_size import SIZE_METRICS, TEST_LOSS, NoLaw, size_multipliers, test_sets
from analysis.measures.peak_laws import PowerLawOfSize, at_worst, peak_law
from analysis.measures.peaks import Peak, peaks
from analysis.runs import Runs
from repeat_study.records.metric import Metric

COLUMNS = ["quantity", "where", "bound", "here", "low", "high", "published", "source"]
# [H22] reports these metrics only at f = 3%.
H22_AT_THREE_PERCENT = {
    "copying_loss": (published.H22_COPYING_MULTIPLIER, "H22, fig. 5"),
    "prefix_matching": (published.H22_PREFIX_MATCHING_MULTIPLIER, "H22, fig. 6"),
}
NOT_PUBLISHED = (NAN, "")

DOUBLE_DESCENT = {0.9: "H22, fig. 3: observed, no number given", 0.5: "H22, fig. 3: long plateaus"}


def table(runs: Runs) -> pd.DataFrame:
    """One row per quantity that this study measured.

    Columns: `quantity` with its unit, `where` (model and f), `here` (this study's value), its 95% interval `low` and `high` (NaN for a
    single seed), `bound` ("≤" or "≥" if `here` is only a bound), `published` (NaN if no paper gives it) and its `source`. Published
    values are for the same f, so pools of fixed size are left out. If a paper gives values for several sizes, the
    value for the nearest size is used.
    """
    rows = [
        row
        for label, variant in runs.variants()
        if len(variant.done) and not variant.has_fixed_pool
        for row in _rows(variant, label)
    ]
    rows += _fine_tuned(runs) if runs.fine_tuned and len(runs.fine_tuned.done) else []
    return pd.DataFrame(rows, columns=COLUMNS)


def _rows(runs: Runs, label: str) -> Iterator[tuple[object, ...]]:
    def row(
        quantity: str, where: str, estimate: Estimate, paper: tuple[float, str] = NOT_PUBLISHED
    ) -> tuple[object, ...]:
        where = f"{where}; {label}" if label else where
        return quantity, where, str(estimate.bound), estimate.value, estimate.low, estimate.high, *paper

    for fraction, where, rise, recovery in _double_descent(runs):
        paper = (NAN, DOUBLE_DESCENT[fraction]) if fraction in DOUBLE_DESCENT else NOT_PUBLISHED
        yield row("double descent: rise (nats)", where, rise, paper)
        yield row("double descent: won back (nats)", where, recovery, paper)
    all_peaks = peaks(runs)
    sizes = {metric: size_multipliers(runs, metric) for metric in (*SIZE_METRICS, *test_sets(runs))}
    compute = lost_compute(runs)
    for peak in all_peaks:
        where = f"{size_name(peak.model, peak.size)}, f = {peak.fraction:.0%}"
        worst = left = right = NOT_PUBLISHED
        if peak.fraction == published.C26_FRACTION:
            worst = (published.C26_WORST_REPEATS.at(peak.total), "C26, power law at this N")
        if peak.fraction == published.H22_BAND_FRACTION:
            left, right = (
                (edge.at(peak.size), "H22, fig. 4 right, power law at this N")
                for edge in (published.H22_LEFT_EDGE, published.H22_RIGHT_EDGE)
            )
        yield row("excess at the worst R (nats)", where, peak.height)
        yield row("worst R tried", where, peak.worst, worst)
        if peak.gaussian:
            yield row("worst R, Gaussian", where, peak.gaussian, worst)
        yield row("left edge of the harmful range (R)", where, peak.left, left)
        yield row("right edge of the harmful range (R)", where, peak.right, right)
        for metric in sizes:
            if size := at_worst(runs, peak, sizes[metric], ratio=True):
                yield row(f"size multiplier at the worst R, {metric.name}", where, size, _multiplier(metric, peak))
        if not isinstance(compute, NoLaw) and (lost := at_worst(runs, peak, compute.lost)):
            yield row("compute-equivalent loss at the worst R", where, lost, _lost(peak))
    for fraction in sorted({peak.fraction for peak in all_peaks}, reverse=True):
        fraction_peaks = [peak for peak in all_peaks if peak.fraction == fraction]
        for quantity, name, law, source in (
            ("left", "left edge", published.H22_LEFT_EDGE, "H22, fig. 4 right, f = 10%"),
            ("right", "right edge", published.H22_RIGHT_EDGE, "H22, fig. 4 right, f = 10%"),
            ("worst", "worst R tried", None, ""),
            ("gaussian", "worst R, Gaussian, all parameters", published.C26_WORST_REPEATS, "C26, f = 10%"),
            ("pool_at_gaussian", "pool at the worst R, all parameters", published.C26_WORST_POOL, "C26, f = 10%"),
        ):
            fit = peak_law(fraction_peaks, quantity)
            if isinstance(fit, PowerLawOfSize):
                where = f"{fit.sizes} sizes, f = {fraction:.0%}; interval: {fit.interval}"
                yield row(f"{name} = k·N^a: a", where, fit.exponent, (law.exponent, source) if law else NOT_PUBLISHED)
                yield row(
                    f"{name} = k·N^a: k", where, fit.coefficient, (law.coefficient, source) if law else NOT_PUBLISHED
                )


def _fine_tuned(runs: Runs) -> Iterator[tuple[object, ...]]:
    """Size multipliers of fine-tuned runs, one row per model and starting point."""
    numbers = fine_tuning.table(runs)
    if numbers.empty or (sized := numbers[numbers.multiplier.notna()]).empty:
        return
    by = ["parameters_non_embedding", "model", "start"]
    for arm in with_bounds(over_seeds(sized, by, "multiplier"), sized, by).itertuples(index=False):
        several = arm.seeds > 1 and not arm.bound
        interval = (arm.low, arm.high) if several else (NAN, NAN)
        repeated = (sized.parent_repeats[sized.start == arm.start] > 1).all()
        paper = (1 / published.H22_OSSIFICATION, "H22, figs. 12, 15") if repeated else NOT_PUBLISHED
        where = f"{size_name(arm.model, arm.parameters_non_embedding)}, {arm.start}"
        yield (
            "size multiplier after fine-tuning, relative to runs from scratch",
            where,
            arm.bound,
            arm.mean,
            *interval,
            *paper,
        )


def _double_descent(runs: Runs) -> Iterator[tuple[float, str, Estimate, Estimate]]:
    """For each fraction, the rise and recovery of the arm with the clearest double descent.

    This is the arm with the largest min(rise, recovery).
    """
    numbers = summary(runs)
    by = ["model", "parameters_non_embedding", "repeated_fraction", "repeats"]
    repeated = numbers[(numbers.repeats > 1) & (numbers.double_descent == True)]  # noqa: E712  (None: not judged)
    if repeated.empty:
        return
    rise, recovery = over_seeds(repeated, by, "rise"), over_seeds(repeated, by, "won_back")
    for fraction, arms in rise.groupby("repeated_fraction"):
        smaller = arms["mean"].clip(upper=recovery.loc[arms.index, "mean"])
        clearest = smaller.idxmax()
        arm = arms.loc[clearest]
        where = f"{size_name(arm.model, arm.parameters_non_embedding)}, f = {fraction:.0%}, R = {arm.repeats:g}"
        yield float(fraction), where, _over_seeds(arm), _over_seeds(recovery.loc[clearest])


def _over_seeds(arm: pd.Series) -> Estimate:
    several = arm.seeds > 1
    return Estimate(arm["mean"], arm.low if several else NAN, arm.high if several else NAN)


def _multiplier(metric: Metric, peak: Peak) -> tuple[float, str]:
    if metric.key == "test_loss" and peak.fraction in published.H22_WORST_MULTIPLIER:
        return published.H22_WORST_MULTIPLIER[peak.fraction], "H22, 800M"
    if metric.key == "test_loss" and peak.fraction == published.H22_BAND_FRACTION:
        multiplier = published.H22_ACTS_LIKE_MIDDLE / published.H22_ACTS_LIKE_SIZE
        return multiplier, f"H22, fig. 2 left, 800M at R = {published.H22_ACTS_LIKE_REPEATS:g}"
    if metric.key.startswith(f"{TEST_LOSS.key}_") and peak.fraction in published.H22_OUT_OF_DISTRIBUTION:
        return published.H22_OUT_OF_DISTRIBUTION[peak.fraction], "H22, fig. 10, English models on Python"
    return H22_AT_THREE_PERCENT.get(metric.key, NOT_PUBLISHED) if peak.fraction == 0.03 else NOT_PUBLISHED


def _lost(peak: Peak) -> tuple[float, str]:
    if peak.fraction != published.C26_FRACTION:
        return NOT_PUBLISHED
    size = min(published.C26_LOST_COMPUTE, key=lambda size: abs(size - peak.total))
    return published.C26_LOST_COMPUTE[size], f"C26, {size / 1e6:.0f}M"
