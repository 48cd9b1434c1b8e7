"""Power laws of how peaks move with model size [H22, fig. 4 right; C26], and other numbers at the worst R."""

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

FEWEST_SIZES = 3  # for two parameters and a residual
ESTIMATES = ("height", "worst", "left", "right", "gaussian", "pool_at_worst", "pool_at_gaussian")


@dataclass(frozen=True)
class PowerLawOfSize:
    """k·N^a, fitted to values at several sizes, with 95% intervals."""

    law: PowerOfSize
    coefficient: Estimate  # k
    exponent: Estimate  # a
    sizes: int
    interval: str  # the source of the intervals, for captions

    def __str__(self) -> str:
        a = self.exponent
        return f"{self.law.coefficient:.2g}·N^{a.value:.2f} [{a.low:.2f}, {a.high:.2f}; {self.interval}, {self.sizes} sizes]"


def power_law_of_size(sizes: Sequence[float], values: Sequence[Estimate | None]) -> PowerLawOfSize | NoLaw:
    """Least squares of log value on log size, without missing values and bounds; NoLaw for fewer than FEWEST_SIZES sizes.

    Intervals come from refitting the bootstrap resamples over seeds. If a value has none, they are the t intervals of the
    regression, which measure how far the sizes scatter around the law rather than how far the seeds scatter.
    """
    known = [(size, value) for size, value in zip(sizes, values, strict=True) if value and not value.bound]
    if (number := len({size for size, _ in known})) < FEWEST_SIZES:
        return NoLaw(f"known exactly at {number} sizes; a power law needs {FEWEST_SIZES}")
    x = np.log([size for size, _ in known])
    fit = linregress(x, np.log([value.value for _, value in known]))
    law = PowerOfSize(float(np.exp(fit.intercept)), float(fit.slope), float(np.exp(x.min())), float(np.exp(x.max())))
    if all(len(value.resamples) for _, value in known):
        logs = np.log(np.stack([value.resamples for _, value in known]))
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
        source = "95% of the regression"
    k = Estimate(law.coefficient, float(limits_k[0]), float(limits_k[1]))
    a = Estimate(law.exponent, float(limits_a[0]), float(limits_a[1]))
    return PowerLawOfSize(law, k, a, len(known), source)


def peak_law(found: Sequence[Peak], quantity: str) -> PowerLawOfSize | NoLaw:
    """The power law of one of ESTIMATES over the peaks of one fraction.

    N is without embeddings as in H22; for the Gaussian and for pools, it counts all parameters as in C26. Peaks whose interval
    includes no harm are left out.
    """
    found = [peak for peak in found if not peak.height.low <= 0]  # NaN for one seed, which is kept
    by_total = quantity == "gaussian" or quantity.startswith("pool")
    return power_law_of_size(
        [peak.total if by_total else peak.size for peak in found], [_estimate(p, quantity) for p in found]
    )


def _estimate(peak: Peak, quantity: str) -> Estimate | None:
    if quantity.startswith("pool_at_"):
        repeats = _estimate(peak, quantity.removeprefix("pool_at_"))
        return repeats and peak.pool(repeats)
    found = {"height": peak.height, "worst": peak.worst, "left": peak.left, "right": peak.right}
    return peak.gaussian if quantity == "gaussian" else found[quantity]


def peak_table(found: Sequence[Peak]) -> pd.DataFrame:
    """A row per peak: model, fraction, and every one of ESTIMATES with `_low`, `_high` and `_bound`; R, tokens and nats."""
    rows = []
    for peak in found:
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
    """Mean over seeds, at the worst R of a peak, of values by run name, with its 95% t interval.

    ratio: average logarithms. The result is a bound if a value is one, and None if no run has a value.
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
