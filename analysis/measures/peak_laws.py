"""Fit power laws that describe how peaks move with model size [H22, fig. 4 right; C26], and average other measures at the worst R."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import linregress

from analysis.intervals import UNKNOWN, Estimate, percentile_interval, t_interval, t_quantile
from analysis.measures.effective_size import NoLaw
from analysis.measures.peaks import Peak
from analysis.published import PowerOfSize
from analysis.runs import Runs

MOST_HALF_WIDTH = 1.0  # half the width of an exponent's interval; if it is larger, the exponent is not determined
FEWEST_SIZES = 3  # two parameters and one degree of freedom for the residual
ESTIMATES = ("height", "worst", "left", "right", "gaussian", "pool_at_worst", "pool_at_gaussian")


@dataclass(frozen=True)
class PowerLawOfSize:
    """The power law k·N^a fitted to values at several sizes, with 95% intervals."""

    law: PowerOfSize
    coefficient: Estimate  # k
    exponent: Estimate  # a
    sizes: int
    interval: str  # the source of the intervals, for captions

    @property
    def is_determined(self) -> bool:
        """Whether the exponent's interval is narrow enough to draw a line."""
        return self.exponent.high - self.exponent.low <= 2 * MOST_HALF_WIDTH

    def equation(self, symbol: str) -> str:
        """The law as text, or that its exponent is not determined. symbol: the quantity, such as "R"."""
        a = self.exponent
        interval = f"[{a.low:.2f}, {a.high:.2f}; {self.interval}, {self.sizes} sizes]"
        if not self.is_determined:
            return f"exponent of {symbol} not determined: {a.value:.2f} {interval}"
        return f"{symbol} = {self.law.coefficient:.2g}·N^{a.value:.2f} {interval}"


def power_law_of_size(sizes: Sequence[float], values: Sequence[Estimate | None]) -> PowerLawOfSize | NoLaw:
    """Fit log value against log size by least squares, ignoring missing values and bounds.

    Returns NoLaw if fewer than FEWEST_SIZES sizes remain. Intervals come from fits to the bootstrap resamples over seeds. If any value
    has no resamples, they are t intervals from the regression, which reflect the scatter of the points around the law instead of the
    scatter between seeds.
    """
    exact = [(size, value) for size, value in zip(sizes, values, strict=True) if value and not value.bound]
    if (number := len({size for size, _ in exact})) < FEWEST_SIZES:
        return NoLaw(f"known exactly at {number} sizes; a power law needs {FEWEST_SIZES}")
    x = np.log([size for size, _ in exact])
    fit = linregress(x, np.log([value.value for _, value in exact]))
    law = PowerOfSize(float(np.exp(fit.intercept)), float(fit.slope), float(np.exp(x.min())), float(np.exp(x.max())))
    if all(len(value.resamples) for _, value in exact):
        logs = np.log(np.stack([value.resamples for _, value in exact]))
        intercepts, slopes = np.linalg.lstsq(
            np.stack([np.ones_like(x), x], 1), logs[:, np.isfinite(logs).all(0)], rcond=None
        )[0]
        limits_k, limits_a, source = (
            percentile_interval(np.exp(intercepts)),
            percentile_interval(slopes),
            "95% over seeds",
        )
    else:
        width = float(t_quantile(len(x) - 2))
        around = width * np.array([-fit.intercept_stderr, fit.intercept_stderr])
        limits_k = tuple(np.exp(np.clip(fit.intercept + around, -700, 700)))
        limits_a = (fit.slope - width * fit.stderr, fit.slope + width * fit.stderr)
        source = "95% from the regression"
    k = Estimate(law.coefficient, float(limits_k[0]), float(limits_k[1]))
    a = Estimate(law.exponent, float(limits_a[0]), float(limits_a[1]))
    return PowerLawOfSize(law, k, a, len(exact), source)


def peak_law(peaks: Sequence[Peak], quantity: str) -> PowerLawOfSize | NoLaw:
    """Fit a power law in model size to one of the quantities in ESTIMATES, for the peaks at one fraction.

    N counts all parameters for the Gaussian and for pools, as in C26. For the other quantities it excludes embeddings, as in H22.
    Peaks are left out if the interval for their height includes 0.
    """
    peaks = [peak for peak in peaks if not peak.height.low <= 0]  # peaks with NaN (a single seed) are kept
    by_total = quantity == "gaussian" or quantity.startswith("pool")
    return power_law_of_size(
        [peak.total if by_total else peak.size for peak in peaks], [_estimate(peak, quantity) for peak in peaks]
    )


def _estimate(peak: Peak, quantity: str) -> Estimate | None:
    if quantity.startswith("pool_at_"):
        repeats = _estimate(peak, quantity.removeprefix("pool_at_"))
        return repeats and peak.pool(repeats)
    estimates = {"height": peak.height, "worst": peak.worst, "left": peak.left, "right": peak.right}
    return peak.gaussian if quantity == "gaussian" else estimates[quantity]


def peak_table(peaks: Sequence[Peak]) -> pd.DataFrame:
    """One row per peak, with every quantity in ESTIMATES and its `_low`, `_high` and `_bound`, in R, tokens or nats."""
    rows = []
    for peak in peaks:
        row: dict[str, object] = {
            "model": peak.model,
            "parameters_non_embedding": peak.size,
            "parameters_total": peak.total,
            "repeated_fraction": peak.fraction,
            "seeds": peak.seeds,
            "repeats_tried": " ".join(f"{value:g}" for value in peak.repeats),
            "interior": peak.interior,
            "gaussian_misses": peak.gaussian_misses,
        }
        for name in ESTIMATES:
            estimate = _estimate(peak, name) or UNKNOWN
            row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
            row[f"{name}_bound"] = str(estimate.bound)
        rows.append(row)
    return pd.DataFrame(rows)


def at_worst(runs: Runs, peak: Peak, values: Mapping[str, Estimate], ratio: bool = False) -> Estimate | None:
    """Average values over the seeds at a peak's worst R, with a 95% t interval.

    values: the values by run name. ratio: whether to average logarithms. The result is a bound if any value is a bound, and None if no
    run has a value.
    """
    done = runs.done
    here = done[(done.model == peak.model) & (done.repeated_fraction == peak.fraction)]
    names = [name for name in here[here.repeats == peak.worst.value].name if name in values]
    if not names:
        return None
    numbers = np.array([values[name].value for name in names])
    bound = max((values[name].bound for name in names), key=len)
    if bound or len(numbers) == 1:
        return Estimate(float(numbers.mean()), bound=bound)
    if not ratio:
        return t_interval(numbers)
    logs = t_interval(np.log(numbers))
    value, low, high = (float(np.exp(end)) for end in (logs.value, logs.low, logs.high))
    return Estimate(value, low, high)
