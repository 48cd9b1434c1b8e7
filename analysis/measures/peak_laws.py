"""How peaks move with size, as power laws [H22, fig. 4 right; C26], and what other numbers are at the worst R."""

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

FEWEST_SIZES = 3  # of two parameters
ESTIMATES = ("height", "worst", "left", "right", "gaussian", "pool_at_worst", "pool_at_gaussian")


@dataclass(frozen=True)
class PowerLawOfSize:
    """k·N^a through values of several sizes, with 95% intervals."""

    law: PowerOfSize
    coefficient: Estimate  # k
    exponent: Estimate  # a
    sizes: int
    interval: str  # what the intervals are over

    def __str__(self) -> str:
        a = self.exponent
        return f"{self.law.coefficient:.2g}·N^{a.value:.2f} [{a.low:.2f}, {a.high:.2f}; {self.interval}, {self.sizes} sizes]"


def power_law_of_size(sizes: Sequence[float], values: Sequence[Estimate | None]) -> PowerLawOfSize | NoLaw:
    """Least squares of log value on log size, over the values that are there and no bounds.

    Intervals come from refitting the resamples over seeds, or where a size has one seed from the regression's t. In the
    second case they are of how far sizes lie off the law, in the first of how seeds scatter.
    """
    known = [(size, value) for size, value in zip(sizes, values, strict=True) if value and not value.bound]
    if len({size for size, _ in known}) < FEWEST_SIZES:
        return NoLaw(
            f"known (and no bound) at {len({size for size, _ in known})} sizes; a power law needs {FEWEST_SIZES}"
        )
    x = np.log([size for size, _ in known])
    fit = linregress(x, np.log([value.value for _, value in known]))
    law = PowerOfSize(float(np.exp(fit.intercept)), float(fit.slope), float(np.exp(x.min())), float(np.exp(x.max())))
    if all(len(value.resamples) for _, value in known):
        logs = np.log(np.stack([value.resamples for _, value in known]))
        intercepts, slopes = np.linalg.lstsq(
            np.stack([np.ones_like(x), x], 1), logs[:, np.isfinite(logs).all(0)], rcond=None
        )[0]
        limits_k, limits_a, kind = (
            percentile_interval(np.exp(intercepts)),
            percentile_interval(slopes),
            "95% over seeds",
        )
    else:
        reach = float(t_quantile(len(x) - 2))
        around = reach * np.array([-fit.intercept_stderr, fit.intercept_stderr])
        limits_k = tuple(np.exp(np.clip(fit.intercept + around, -700, 700)))
        limits_a = (fit.slope - reach * fit.stderr, fit.slope + reach * fit.stderr)
        kind = "95% of the regression"
    k = Estimate(law.coefficient, float(limits_k[0]), float(limits_k[1]))
    a = Estimate(law.exponent, float(limits_a[0]), float(limits_a[1]))
    return PowerLawOfSize(law, k, a, len(known), kind)


def laws(found: Sequence[Peak], quantity: str) -> PowerLawOfSize | NoLaw:
    """The power law of one of ESTIMATES over the peaks of one fraction: by N without embeddings as H22 has it, or by all
    parameters, as C26 has it, for the Gaussian and for pools. Peaks that seeds do not tell from none enter no law."""
    found = [peak for peak in found if not peak.height.low <= 0]  # NaN: one seed, which cannot tell
    by_total = quantity == "gaussian" or quantity.startswith("pool")
    return power_law_of_size(
        [peak.total if by_total else peak.size for peak in found], [_of(p, quantity) for p in found]
    )


def _of(peak: Peak, quantity: str) -> Estimate | None:
    if quantity.startswith("pool_at_"):
        repeats = _of(peak, quantity.removeprefix("pool_at_"))
        return repeats and peak.pool(repeats)
    found = {"height": peak.height, "worst": peak.worst, "left": peak.left, "right": peak.right}
    return peak.gaussian if quantity == "gaussian" else found[quantity]


def peak_table(found: Sequence[Peak]) -> pd.DataFrame:
    """A row per peak: where it is, every one of ESTIMATES with `_low`, `_high` and `_bound`; R, tokens and nats."""
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
            estimate = _of(peak, name) or UNKNOWN
            row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
            row[f"{name}_bound"] = str(estimate.bound)
        rows.append(row)
    return pd.DataFrame(rows)


def at_worst(runs: Runs, peak: Peak, values: Mapping[str, Estimate], ratio: bool = False) -> Estimate | None:
    """Mean over seeds of what runs have (by name) at the worst R of a peak, with its 95% t interval, of a ratio by its
    logarithm; a bound where one of them is; None where no run has any."""
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
