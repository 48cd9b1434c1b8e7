"""Where on the R axis repetition does most harm, how wide the harmful region is, and how both move with size [H22, fig. 4
right; C26]."""

import zlib
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.interpolate import PchipInterpolator

from analysis.intervals import NAN, Bound, Estimate, Floats
from analysis.runs import Runs

RESAMPLES = 500
FEWEST_REPEATS = 2  # with one R > 1 there is a worst one, but nothing that it is worse than
FEWEST_FOR_A_GAUSSIAN = 4  # of three parameters
NO_PEAK = (
    "needs finished runs of one size and fraction at two or more R above 1, a finished clean run beside them, and more"
    " loss than that has"
)


@dataclass(frozen=True)
class Peak:
    """The excess of final test loss over clean runs of the same size, along R, at one fraction.

    The curve is a PCHIP in log R through the means over seeds, from the clean runs at R = 1. It has no maximum but at its
    points, so `worst` is one of the R tried, and its interval reaches half-way to their neighbours; `gaussian` lies between.
    """

    model: str
    size: float  # N, parameters without embeddings
    total: float  # all parameters
    fraction: float
    tokens: float  # T
    repeats: tuple[float, ...]  # R > 1 tried
    seeds: int  # fewest runs of any R, clean included
    height: Estimate  # nats
    worst: Estimate  # R of the largest mean excess
    left: Estimate  # R from which on ...
    right: Estimate  # ... and to which the excess is at least half of the largest [H22, fig. 4 right]
    gaussian: Estimate | None  # R at the centre of a Gaussian in log R [C26]; None for fewer than four R
    gaussian_misses: float  # nats, at most, of the mean excess at the R tried; NaN without one

    @property
    def interior(self) -> bool:
        """Whether both fewer and more repeats were tried and do less harm."""
        return self.worst.bound is Bound.EXACT

    def pool(self, repeats: Estimate) -> Estimate:
        """D_r = f·T/R in tokens."""
        return self.fraction * self.tokens / repeats


def peaks(runs: Runs) -> list[Peak]:
    """The peak of every size and fraction of the finished runs that has one, largest fraction first, then by size."""
    done, found = runs.done, []
    clean = done[done.repeats == 1]
    by = ["repeated_fraction", "parameters_non_embedding", "model"]
    for (fraction, size, model), runs_here in done[done.repeats > 1].groupby(by):
        control = tuple(clean[clean.model == model].final_test_loss)
        arms = tuple((float(R), tuple(arm.final_test_loss)) for R, arm in runs_here.groupby("repeats"))
        if not control or len(arms) < FEWEST_REPEATS:
            continue
        first = runs_here.iloc[0]
        total, tokens = float(first.parameters_total), float(first.trained_tokens)
        places = _places(control, arms)
        if places is None:
            continue
        seeds = min(len(control), *(len(losses) for _, losses in arms))
        tried = tuple(R for R, _ in arms)
        found.append(Peak(str(model), float(size), total, float(fraction), tokens, tried, seeds, *places))
    return sorted(found, key=lambda peak: (-peak.fraction, peak.size, peak.model))


@lru_cache(maxsize=4096)  # several figures and a table ask for the same peaks
def _places(
    control: tuple[float, ...], arms: tuple[tuple[float, tuple[float, ...]], ...]
) -> tuple[Estimate, Estimate, Estimate, Estimate, Estimate | None, float] | None:
    """Height, worst R, left edge, right edge, Gaussian centre and what the Gaussian misses; None where no R does harm."""
    log_repeats = np.log([R for R, _ in arms])
    measured = np.array([np.mean(losses) for _, losses in arms]) - np.mean(control)
    if measured.max() <= 0:
        return None
    rows = measured[None]
    several = min(len(control), *(len(losses) for _, losses in arms)) > 1
    # A stream of its own for every size and fraction, named by the losses: no two share their luck.
    stream = np.random.default_rng(zlib.crc32(repr((control, arms)).encode()))
    if several:
        clean = _resampled(stream, control)
        rows = np.vstack([rows, *[np.stack([_resampled(stream, losses) for _, losses in arms], 1) - clean[:, None]]])
    worst, height, left, right = _along(log_repeats, rows)
    last = len(arms) - 1
    at = worst[0]
    side = Bound.AT_MOST if at == 0 else Bound.AT_LEAST if at == last else Bound.EXACT
    # A peak beyond the R tried is higher than what was seen there, and its half-height lies nearer to it.
    low = side or (Bound.AT_MOST if left[0] <= log_repeats[0] else Bound.EXACT)
    high = side or (Bound.AT_LEAST if right[0] >= log_repeats[-1] else Bound.EXACT)
    steps = np.concatenate([[0.0], log_repeats, log_repeats[-1:]])
    near, far = (steps[worst] + log_repeats[worst]) / 2, (steps[worst + 2] + log_repeats[worst]) / 2
    anywhere = np.concatenate([log_repeats[at : at + 1], stream.uniform(near[1:], far[1:])])
    centre, misses = None, NAN
    if len(arms) >= FEWEST_FOR_A_GAUSSIAN:
        centres, misses = _gaussian_centres(log_repeats, rows)
        outside = Bound.AT_MOST if centres[0] <= log_repeats[0] else Bound.AT_LEAST
        within = log_repeats[0] < centres[0] < log_repeats[-1]
        centre = _first_with_interval(np.exp(centres), Bound.EXACT if within else outside)
    found = _first_with_interval(height, Bound.AT_LEAST if side else Bound.EXACT)
    edges = (_first_with_interval(np.exp(left), low), _first_with_interval(np.exp(right), high))
    most = replace(
        _first_with_interval(np.exp(anywhere), side), value=arms[at][0]
    )  # exactly, for runs are looked up by it
    return found, most, *edges, centre, misses


def _resampled(stream: np.random.Generator, losses: tuple[float, ...]) -> Floats:
    """Means of RESAMPLES draws with replacement. Those of n have (n-1)/n of the variance of a mean, hence the root."""
    values, n = np.array(losses), len(losses)
    means = values[stream.integers(n, size=(RESAMPLES, n))].mean(1)
    return values.mean() + (means - values.mean()) * (n / (n - 1)) ** 0.5


def _along(log_repeats: Floats, excess: Floats) -> tuple[np.ndarray, Floats, Floats, Floats]:
    """Index of the worst R, height, and logs of the edges of the half-height region around it, for rows of excess [rows, R].

    Edges end at the R tried; where nothing does harm all three are NaN.
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
        with np.errstate(divide="ignore", invalid="ignore"):  # where the curve never falls below; that is not taken
            share = (height / 2 - curve[row, out]) / (curve[row, into] - curve[row, out])
        return fine[out] + share * (fine[into] - fine[out])

    left = crossing(before, before + 1)
    end = np.minimum(after, len(fine) - 1)
    right = np.where(after < len(fine), crossing(end, end - 1), fine[-1])
    missing = np.isnan(height)
    left, right = np.maximum(left, log_repeats[0]), np.minimum(right, log_repeats[-1])
    return worst, height, np.where(missing, np.nan, left), np.where(missing, np.nan, right)


def _gaussian_centres(log_repeats: Floats, excess: Floats) -> tuple[Floats, float]:
    """Centre in log R of the least-squares h·exp(-(log R - c)² / 2w²) for rows of excess [rows, R], and the
    largest residual of the first row.

    A centre outside of the R tried ends at their edge; it is looked for up to half of their range beyond. For given c and w
    the best h is known, so a grid over these two is refined around its best point: the same answer as an optimiser's, for
    hundreds of resamples at once.
    """
    low, high = log_repeats[0], log_repeats[-1]
    step_c, step_w = (high - low) / 20, 0.25
    centre, width = np.full(len(excess), (low + high) / 2), np.full(len(excess), 0.75)  # width: log of it
    for refinement in range(22):
        reach_c, reach_w = (20, 8) if refinement == 0 else (2, 2)
        c = centre[:, None] + step_c * np.arange(-reach_c, reach_c + 1)
        w = np.clip(width[:, None] + step_w * np.arange(-reach_w, reach_w + 1), np.log(0.3), np.log(20))
        if refinement == 0:  # the same grid for all: its shapes are made once
            c, w = c[:1], w[:1]
        away = (log_repeats - c[:, :, None, None]) / np.exp(w)[:, None, :, None]
        shape = np.exp(-(away**2) / 2)  # [rows, c, w, R]
        fit = np.maximum(np.einsum("bcwr,br->bcw", np.broadcast_to(shape, (len(excess), *shape.shape[1:])), excess), 0)
        explained = (fit**2 / (shape**2).sum(-1)).reshape(len(excess), -1)
        best_c, best_w = np.divmod(explained.argmax(1), w.shape[1])
        row = np.arange(len(excess)) % len(c)
        centre, width = c[row, best_c], w[row, best_w]
        step_c, step_w = 0.7 * step_c, 0.7 * step_w  # halves would stall in the narrow valley of a far centre
    shape = np.exp(-(((log_repeats - centre[0]) / np.exp(width[0])) ** 2) / 2)
    misses = np.abs(shape * (shape @ excess[0]) / (shape @ shape) - excess[0]).max()
    return np.clip(centre, low, high), float(misses)


def _first_with_interval(values: Floats, bound: Bound) -> Estimate:
    """The first value, with the interval of the others, which are its resamples."""
    return Estimate.from_resamples(float(values[0]), values[1:], bound)
