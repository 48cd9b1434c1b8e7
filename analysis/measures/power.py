"""Estimate what difference a grid can detect, from the spread over seeds of finished runs.

The measure is the excess over clean: a repeated run's final test loss minus that of the clean run with the same seed.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from analysis.formatting import percent
from analysis.intervals import NAN, TAILS, Floats, t_quantile
from analysis.measures.headline import excess_by_seed
from analysis.runs import OF_EVALUATION, POOL_FIELDS, Runs
from repeat_study.config.run import Run

POWER = 0.8
MORE_SEEDS = (3, 5)  # shown for a grid with a single seed
FEWEST_DEGREES = 3  # at 2, the upper end of the 95% interval is six times the sd
# Correlation of the excesses of two runs over the same clean run, if all three losses are independent with equal variance
CORRELATION = 0.5
RESOLUTION = 400  # number of quantiles that represent a chi-squared distribution


@dataclass(frozen=True)
class Spread:
    """The standard deviation of the excess over seeds, in nats.

    low, high: the ends of its 95% interval. degrees: degrees of freedom. pairs, arms: the numbers of paired runs and of arms that it
    is based on. scope: the sizes and fractions of these arms, in words. of_sequences: standard deviation over test sequences of the
    seed-averaged excess, in nats; NaN if losses per sequence were not recorded.
    """

    sd: float
    low: float
    high: float
    degrees: float
    pairs: int
    arms: int
    scope: str
    of_sequences: float


@dataclass(frozen=True)
class Sensitivity:
    """What the arms of one size and fraction can detect with this number of seeds.

    fraction: f; None for pools of a fixed size, where f depends on R.
    half_width: root-mean-square half-width of the 95% t interval for an arm's excess, in nats. detectable: the excess at which this
    interval lies above 0 with a probability of POWER, in nats. Both are NaN for a single seed. test_error: half-width of the 95% interval
    due to the choice of `test_sequences` test sequences, in nats, for the excess averaged over seeds; NaN if it is unknown.
    """

    model: str
    fraction: float | None
    seeds: int
    spread: Spread
    half_width: float
    detectable: float
    test_sequences: int
    test_error: float


def sensitivities(planned: Sequence[Run], arms: pd.DataFrame) -> list[Sensitivity]:
    """One row per model size, fraction and number of seeds in the grid, in the order of the grid.

    arms: finished arms, from `spreads_of_arms`. A grid with a single seed also gets rows for MORE_SEEDS. Returns [] if there are no
    finished arms, or if no arm of the grid has clean runs with the same seeds.
    """
    if arms.empty:
        return []
    rows = []
    for (model, fraction), counts in paired_seeds(planned).items():
        spread = pooled_spread(arms, model, fraction)
        tested = planned[0].evaluation.test_sequences
        test_error = float(t_quantile(tested - 1)) * spread.of_sequences / tested**0.5
        for seeds in sorted({*counts, *(MORE_SEEDS if counts == {1} else ())}):
            half, detectable = NAN, NAN
            if seeds > 1:
                half = float(t_quantile(seeds - 1)) * spread.sd / seeds**0.5
                detectable = detectable_in_sd(seeds, spread.degrees) * spread.sd
            rows.append(Sensitivity(model, fraction, seeds, spread, half, detectable, tested, test_error))
    return rows


def paired_seeds(runs: Sequence[Run]) -> dict[tuple[str, float | None], set[int]]:
    """For every model size and fraction, the numbers of seeds in which an arm and its clean control are both declared.

    Fine-tuned runs are left out, because they are compared with runs from clean parents.
    """
    from_scratch = [run for run in runs if run.parent is None]
    controls = {_control(run) for run in from_scratch if run.is_clean_control}
    arms: dict[tuple[str, float | None, str], set[int]] = defaultdict(set)
    for run in from_scratch:
        if run.repeats > 1 and _control(run) in controls:
            arm = _fields(run, {"seed", "pool_seed"})
            arms[run.model, None if run.fixed_pool else run.repeated_fraction, arm].add(run.seed)
    counts: dict[tuple[str, float | None], set[int]] = defaultdict(set)
    for (model, fraction, _), seeds in arms.items():
        counts[model, fraction].add(len(seeds))
    return counts


def _control(run: Run) -> str:
    """The fields in which a run agrees with its clean control."""
    of_pool = {*POOL_FIELDS, "repeats", "repeated_fraction", "pool_seed"}
    return _fields(run, of_pool | ({"unit"} if run.has_separate_pool else set()))


def _fields(run: Run, ignored: set[str]) -> str:
    return run.model_dump_json(exclude={*OF_EVALUATION, *ignored})


def spreads_of_arms(runs: Runs) -> pd.DataFrame:
    """One row per arm with at least two finished pairs.

    The columns are `model`, `repeated_fraction`, `fixed_pool`, `pairs`, `variance` (of the excess over seeds) and `of_sequences` (the
    variance over test sequences of the excess averaged over seeds; NaN if losses per sequence were not recorded).
    """
    if runs.done.empty:
        return pd.DataFrame()
    by = ["variant", "model", "repeated_fraction", "repeats", "fixed_pool"]
    pairs = pd.concat([excess_by_seed(variant).assign(variant=name) for name, variant in runs.variants()])
    pairs = pairs.merge(runs.table[["name", "fixed_pool"]], on="name")
    pairs = pairs.drop_duplicates([*by, "seed"])  # the pool seeds of a seed share its clean run
    pairs = pairs[pairs.groupby(by).name.transform("size") > 1]
    arms = pairs.groupby(by)
    variances = arms.excess.agg(variance="var", pairs="count")
    names = {name for column in ("name", "name_clean") for name in pairs[column]}
    losses = {name: runs.final_test_sequences(name) for name in names}
    return variances.assign(of_sequences=[_over_sequences(arm, losses) for _, arm in arms]).reset_index()


def _over_sequences(arm: pd.DataFrame, losses: Mapping[str, Floats | None]) -> float:
    """Variance over test sequences of an arm's excess, which is averaged over seeds for each sequence; NaN if it is unknown."""
    pairs = [(losses[repeated], losses[clean]) for repeated, clean in zip(arm.name, arm.name_clean, strict=True)]
    excess = [after - before for after, before in pairs if after is not None and before is not None]
    if len(excess) < len(pairs) or len({len(differences) for differences in excess}) > 1:
        return NAN
    return float(np.mean(excess, axis=0).var(ddof=1)) if len(excess[0]) > 1 else NAN


def pooled_spread(arms: pd.DataFrame, model: str, fraction: float | None) -> Spread:
    """Pool the variances over the finished arms that are most similar to the arms of this size and fraction.

    arms: all finished arms, from `spreads_of_arms`. Those of the same size and fraction are pooled if they have FEWEST_DEGREES degrees
    of freedom; otherwise those of the same size if they have as many; otherwise all.
    """
    same_size = arms.model == model
    same_fraction = (
        (arms.fixed_pool > 0) if fraction is None else (arms.repeated_fraction == fraction) & (arms.fixed_pool == 0)
    )
    pool = "fixed pool" if fraction is None else f"f = {percent(fraction)}"
    group, scope = arms, "all sizes"
    for rows, name in ((same_size & same_fraction, f"{model}, {pool}"), (same_size, model)):
        if rows.any() and degrees_of_freedom(arms[rows]) >= FEWEST_DEGREES:
            group, scope = arms[rows], name
            break
    degrees = degrees_of_freedom(group)
    variance = float(np.average(group.variance, weights=group.pairs - 1))
    high, low = (float((variance / square) ** 0.5) for square in _mean_squares(degrees, np.array(TAILS)))
    of_sequences = float(group.of_sequences.mean() ** 0.5)
    return Spread(variance**0.5, low, high, degrees, int(group.pairs.sum()), len(group), scope, of_sequences)


def degrees_of_freedom(arms: pd.DataFrame) -> float:
    """Effective degrees of freedom of the pooled variance, by Satterthwaite's formula.

    The degrees of freedom of independent arms add up. Arms of one size share their clean runs, so their excesses are assumed to have
    this CORRELATION, and their variances its square.
    """
    each = (arms.pairs - 1).to_numpy(float)
    sharing = arms.groupby("model").model.transform("size").to_numpy(float)
    return float(each.sum() ** 2 / (each * (1 + (sharing - 1) * CORRELATION**2)).sum())


@lru_cache
def detectable_in_sd(seeds: int, degrees: float) -> float:
    """The mean excess, in units of the estimated sd, at which an arm's 95% t interval lies above 0 with a probability of POWER.

    seeds: the number of seeds of the arm, at least 2. degrees: the degrees of freedom of the estimated sd. The probability is averaged
    over the errors of this estimate and over the sd of the arm itself, so fewer degrees of freedom require a larger excess.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtr

    levels = (np.arange(RESOLUTION) + 0.5) / RESOLUTION
    # Both in units of the true sd. The mean's error is normal and independent of the arm's own sd, which sets the threshold.
    threshold = t_quantile(seeds - 1) * np.sqrt(_mean_squares(seeds - 1, levels))[:, None]
    estimate = np.sqrt(_mean_squares(degrees, levels))
    return float(brentq(lambda excess: ndtr(excess * seeds**0.5 * estimate - threshold).mean() - POWER, 0, 1e6))


def _mean_squares(degrees: float, levels: Floats) -> Floats:
    """Quantiles of an estimated variance relative to the true variance: chi-squared divided by its degrees of freedom."""
    from scipy.special import gammaincinv

    return np.asarray(2 * gammaincinv(degrees / 2, levels) / degrees)
