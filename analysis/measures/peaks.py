"""Locate the worst R, and measure how much harm it does and how wide the harmful range around it is [H22, fig. 4 right; C26]."""

import zlib
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.interpolate import PchipInterpolator

from analysis.intervals import NAN, Bound, Estimate, Floats
from analysis.runs import Runs

RESAMPLES = 500
# The maximum is not interior if the smallest or largest R is the worst in more than this share of resamples.
NOT_INTERIOR = 0.05
FEWEST_REPEATS = 2  # number of distinct R above 1 that a peak requires
FEWEST_FOR_A_GAUSSIAN = 4  # a Gaussian has three parameters
NO_PEAK = (
    "needs finished runs of one size and fraction at two or more values of R above 1, a finished clean run of that size,"
    " and a loss above the clean run's"
)


@dataclass(frozen=True)
class Peak:
    """The peak of excess loss as a function of R, for one size and fraction.

    The excess is the mean final test loss minus that of the clean runs of the same size. If the runs at every R have the same seeds and
    each seed has a clean run, only these clean runs count, and resamples are paired by seed. Between the tested values of R, the excess
    is interpolated with a monotone cubic (PCHIP) in log R through the means over seeds, starting from 0 at R = 1. Such a curve peaks at
    one of the tested values. Therefore, `worst` is a tested value, and its interval extends halfway to the neighboring ones. `gaussian`
    can lie between tested values.
    """

    model: str
    size: float  # N, parameters without embeddings
    total: float  # all parameters
    fraction: float
    tokens: float  # T
    repeats: tuple[float, ...]  # tested values of R above 1
    seeds: int  # smallest number of runs at any R, where clean runs count as R = 1
    height: Estimate  # largest mean excess, nats
    worst: Estimate  # its R
    # Between `left` and `right`, the excess is at least half of the height [H22, fig. 4 right].
    left: Estimate
    right: Estimate
    # Center of a Gaussian in log R [C26]; None if there are fewer than four R or no interior maximum.
    gaussian: Estimate | None
    gaussian_misses: float  # largest |Gaussian - mean excess| at the tested R, nats; NaN without a Gaussian

    @property
    def interior(self) -> bool:
        """Whether smaller and larger values of R were tested and clearly do less harm; see `worst_repeats`.

        Without an interior maximum, the worst R is a bound, and there is no Gaussian center.
        """
        return self.worst.bound is Bound.EXACT

    def pool(self, repeats: Estimate) -> Estimate:
        """The size of the pool in tokens, D_r = f·T/R."""
        return self.fraction * self.tokens / repeats


def peaks(runs: Runs) -> list[Peak]:
    """Find the peak for every size and fraction among the finished runs, sorted by decreasing fraction, then by size."""
    done, unsorted = runs.done, []
    clean = done[done.is_clean_control]
    by = ["repeated_fraction", "parameters_non_embedding", "model"]
    for (fraction, size, model), repeated in done[done.repeats > 1].groupby(by):
        control = clean[clean.model == model]
        if control.empty or repeated.repeats.nunique() < FEWEST_REPEATS:
            continue
        tried = tuple(float(R) for R in sorted(repeated.repeats.unique()))
        arms = _groups(repeated.repeats, repeated.final_test_loss, repeated.seed)
        if arms.shared_seeds and set(repeated.seed) <= set(control.seed):
            control = control[control.seed.isin(repeated.seed)]
        compared = pd.concat([control.assign(repeats=1), repeated])
        groups = _groups(compared.repeats, compared.final_test_loss, compared.seed)
        shape = _shape(tried, groups, arms)
        if shape is None:
            continue
        first = repeated.iloc[0]
        total, tokens = float(first.parameters_total), float(first.trained_tokens)
        seeds = min(map(len, groups.losses))
        unsorted.append(Peak(str(model), float(size), total, float(fraction), tokens, tried, seeds, *shape))
    return sorted(unsorted, key=lambda peak: (-peak.fraction, peak.size, peak.model))


@dataclass(frozen=True)
class _Groups:
    """The final test losses of one size and fraction, one group of runs per R.

    losses: one group per R, in order of R. Within a group, losses are in order of seed if seeds are shared, and sorted otherwise.
    shared_seeds: whether every group has one run for each of the same seeds.
    """

    losses: tuple[tuple[float, ...], ...]
    shared_seeds: bool


def _groups(repeats: pd.Series, losses: pd.Series, seeds: pd.Series) -> _Groups:
    """Group runs by R. repeats, losses, seeds: R, final test loss and seed of every run."""
    runs = pd.DataFrame({"repeats": repeats, "loss": losses, "seed": seeds}).sort_values(["repeats", "seed"])
    by_repeats = [group for _, group in runs.groupby("repeats")]
    first = by_repeats[0].seed.tolist()
    shared = len(set(first)) == len(first) and all(group.seed.tolist() == first for group in by_repeats)
    return _Groups(tuple(tuple(group.loss) if shared else tuple(sorted(group.loss)) for group in by_repeats), shared)


def worst_repeats(repeats: pd.Series, losses: pd.Series, seeds: pd.Series) -> tuple[int, Bound]:
    """Find the R with the highest mean loss, and whether the true maximum may lie outside the tested range.

    repeats, losses, seeds: R, final test loss and seed of every run with one size and fraction.

    This R is only a bound if it is the smallest or largest tested R. It is also a bound if the smallest or the largest R is the worst in
    more than 5% of the bootstrap resamples over seeds, because noise between seeds can then explain an interior maximum. There are no
    resamples if any R has only one run.
    """
    index, bound = _worst_arm(_groups(repeats, losses, seeds))
    return int(sorted(repeats.unique())[index]), bound


@lru_cache(maxsize=4096)  # figures, tables and sentences in one report need the same arms
def _worst_arm(arms: _Groups) -> tuple[int, Bound]:
    """The index of the worst R and its bound, as in `worst_repeats`."""
    worst, last = int(np.argmax([np.mean(losses) for losses in arms.losses])), len(arms.losses) - 1
    if worst in (0, last):
        return worst, Bound.AT_MOST if worst == 0 else Bound.AT_LEAST
    if min(map(len, arms.losses)) < 2:
        return worst, Bound.EXACT
    stream = np.random.default_rng(zlib.crc32(repr(arms).encode()))
    resampled = _resampled_means(stream, arms).argmax(1)
    at_first, at_last = (float((resampled == end).mean()) for end in (0, last))
    if max(at_first, at_last) <= NOT_INTERIOR:
        return worst, Bound.EXACT
    return worst, Bound.AT_MOST if at_first > at_last else Bound.AT_LEAST


@lru_cache(maxsize=4096)  # several figures and a table need the same peaks
def _shape(
    tried: tuple[float, ...], groups: _Groups, arms: _Groups
) -> tuple[Estimate, Estimate, Estimate, Estimate, Estimate | None, float] | None:
    """Compute the last six fields of `Peak`; None if no R does harm.

    tried: every R above 1. groups: the clean runs, then the runs at every R in `tried`. arms: the same without the clean runs.
    """
    log_repeats = np.log(tried)
    means = np.array([np.mean(losses) for losses in groups.losses])
    measured = means[1:] - means[0]
    if measured.max() <= 0:
        return None
    # The first row of `excess` is measured, and the others are resamples. The losses seed the random stream, so every size and
    # fraction has its own stream.
    excess = measured[None]
    stream = np.random.default_rng(zlib.crc32(repr((tried, groups)).encode()))
    if min(map(len, groups.losses)) > 1:
        resampled = _resampled_means(stream, groups)
        excess = np.vstack([excess, resampled[:, 1:] - resampled[:, :1]])
    worst, height, left, right = _half_height_range(log_repeats, excess)
    at = worst[0]
    # If the peak lies outside the tested range, its true height is larger, so the true half-height edges are closer to it than measured.
    beyond = _worst_arm(arms)[1]
    left_bound = beyond or (Bound.AT_MOST if left[0] <= log_repeats[0] else Bound.EXACT)
    right_bound = beyond or (Bound.AT_LEAST if right[0] >= log_repeats[-1] else Bound.EXACT)
    # Each resampled worst R is spread uniformly in log R, up to halfway to its neighbors.
    steps = np.concatenate([[0.0], log_repeats, log_repeats[-1:]])
    lower, upper = (steps[worst] + log_repeats[worst]) / 2, (steps[worst + 2] + log_repeats[worst]) / 2
    spread = np.concatenate([log_repeats[at : at + 1], stream.uniform(lower[1:], upper[1:])])
    center, misses = None, NAN
    if len(tried) >= FEWEST_FOR_A_GAUSSIAN and not beyond:  # without an interior maximum, there is no center to fit
        centers, misses = _gaussian_centers(log_repeats, excess)
        outside = Bound.AT_MOST if centers[0] <= log_repeats[0] else Bound.AT_LEAST
        inside = log_repeats[0] < centers[0] < log_repeats[-1]
        center = _first_with_interval(np.exp(centers), Bound.EXACT if inside else outside)
    return (
        _first_with_interval(height, Bound.AT_LEAST if beyond else Bound.EXACT),
        # The value is set to the exact R, because runs are looked up by it.
        replace(_first_with_interval(np.exp(spread), beyond), value=tried[at]),
        _first_with_interval(np.exp(left), left_bound),
        _first_with_interval(np.exp(right), right_bound),
        center,
        misses,
    )


def _resampled_means(stream: np.random.Generator, groups: _Groups) -> Floats:
    """Means of RESAMPLES bootstrap resamples of every group, shape [RESAMPLES, groups].

    If the groups share seeds, every resample takes the same seeds in all groups, so differences between groups are paired by seed. The
    spread of the means is scaled up, because bootstrap variance is too small by a factor of (n-1)/n.
    """
    columns, drawn = [], None
    for losses in groups.losses:
        values, n = np.array(losses), len(losses)
        if drawn is None or not groups.shared_seeds:
            drawn = stream.integers(n, size=(RESAMPLES, n))
        means = values[drawn].mean(1)
        columns.append(values.mean() + (means - values.mean()) * (n / (n - 1)) ** 0.5)
    return np.stack(columns, 1)


def _half_height_range(log_repeats: Floats, excess: Floats) -> tuple[np.ndarray, Floats, Floats, Floats]:
    """For every row of `excess`, shape [rows, R]: index of the worst R, height, and log R of both half-height edges.

    Edges outside the tested range are moved to the smallest or largest R. Height and edges are NaN in rows without harm.
    """
    x = np.concatenate([[0.0], log_repeats])
    fine = np.union1d(np.linspace(0, x[-1], 500), x)
    curve = PchipInterpolator(x, np.pad(excess, ((0, 0), (1, 0))), axis=1)(fine)
    worst = excess.argmax(1)
    row, place = np.arange(len(excess)), np.arange(len(fine))
    height = np.where(excess[row, worst] > 0, excess[row, worst], np.nan)
    at = np.searchsorted(fine, log_repeats[worst])[:, None]
    below = curve < height[:, None] / 2
    before = np.where(below & (place < at), place, 0).max(1)
    after = np.where(below & (place > at), place, len(fine)).min(1)

    def crossing(out: np.ndarray, into: np.ndarray) -> Floats:
        with np.errstate(
            divide="ignore", invalid="ignore"
        ):  # if the curve never crosses half height, the result is not used
            share = (height / 2 - curve[row, out]) / (curve[row, into] - curve[row, out])
        return fine[out] + share * (fine[into] - fine[out])

    left = crossing(before, before + 1)
    end = np.minimum(after, len(fine) - 1)
    right = np.where(after < len(fine), crossing(end, end - 1), fine[-1])
    missing = np.isnan(height)
    left, right = np.maximum(left, log_repeats[0]), np.minimum(right, log_repeats[-1])
    return worst, height, np.where(missing, np.nan, left), np.where(missing, np.nan, right)


def _gaussian_centers(log_repeats: Floats, excess: Floats) -> tuple[Floats, float]:
    """Fit a Gaussian in log R by least squares to every row of `excess`, shape [rows, R].

    Returns the centers in log R, and the largest residual of the first row. The Gaussian is h·exp(-(log R - c)² / 2w²). The best h has
    a closed form for given c and w, so the fit repeatedly refines a grid of c and w around its best point, for all rows in parallel.
    The grid extends beyond the tested range by half its width on each side. A center outside the tested range is moved to its nearest end.
    """
    low, high = log_repeats[0], log_repeats[-1]
    step_c, step_w = (high - low) / 20, 0.25
    center, width = np.full(len(excess), (low + high) / 2), np.full(len(excess), 0.75)  # width is log w
    for refinement in range(22):
        reach_c, reach_w = (20, 8) if refinement == 0 else (2, 2)
        c = center[:, None] + step_c * np.arange(-reach_c, reach_c + 1)
        w = np.clip(width[:, None] + step_w * np.arange(-reach_w, reach_w + 1), np.log(0.3), np.log(20))
        if refinement == 0:  # all rows share the first grid, so its Gaussians are computed once
            c, w = c[:1], w[:1]
        away = (log_repeats - c[:, :, None, None]) / np.exp(w)[:, None, :, None]
        shape = np.exp(-(away**2) / 2)  # [rows, c, w, R]
        fit = np.maximum(np.einsum("bcwr,br->bcw", np.broadcast_to(shape, (len(excess), *shape.shape[1:])), excess), 0)
        explained = (fit**2 / (shape**2).sum(-1)).reshape(len(excess), -1)
        best_c, best_w = np.divmod(explained.argmax(1), w.shape[1])
        row = np.arange(len(excess)) % len(c)
        center, width = c[row, best_c], w[row, best_w]
        # A factor of 0.5 would shrink the grid too fast to follow the narrow valley towards a distant center.
        step_c, step_w = 0.7 * step_c, 0.7 * step_w
    shape = np.exp(-(((log_repeats - center[0]) / np.exp(width[0])) ** 2) / 2)
    misses = np.abs(shape * (shape @ excess[0]) / (shape @ shape) - excess[0]).max()
    return np.clip(center, low, high), float(misses)


def _first_with_interval(values: Floats, bound: Bound) -> Estimate:
    """An estimate whose value is the first of `values` and whose resamples are the others."""
    return Estimate.from_resamples(float(values[0]), values[1:], bound)
