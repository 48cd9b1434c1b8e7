"""Estimates with 95% intervals or bounds: t intervals over seeds and percentile intervals over bootstrap resamples.

scipy is imported on first use, because evaluating published laws does not need it.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float64]

NAN = float("nan")
TAILS = (0.025, 0.975)  # the quantiles at the ends of a 95% interval
CHANCE = 0.05  # the false-positive rate of the test for a rise
# With two seeds, the 95% interval is 13 times as wide as the difference between them. With three evenly spaced seeds, it is 2.5
# times as wide as their range. And if heads form in only some of the seeds, the range shows it, but an interval around the mean
# does not.
FEWEST_SEEDS = 5


class Bound(StrEnum):
    """Whether an estimate is exact or only a bound on the true value; prints as "", "≤" or "≥"."""

    EXACT = ""
    AT_MOST = "≤"
    AT_LEAST = "≥"

    @property
    def flipped(self) -> "Bound":
        """The corresponding bound on the negated or reciprocal value."""
        return {Bound.AT_MOST: Bound.AT_LEAST, Bound.AT_LEAST: Bound.AT_MOST}.get(self, self)


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval, or a bound.

    low, high: the ends of the interval; NaN for a bound or a single seed. resamples: the bootstrap resamples that the interval was
    computed from, shape [resamples]; empty without a bootstrap.
    """

    value: float
    low: float = NAN
    high: float = NAN
    bound: Bound = Bound.EXACT
    resamples: Floats = field(default_factory=lambda: np.empty(0), repr=False, compare=False)

    def __rtruediv__(self, numerator: float) -> "Estimate":
        """numerator / estimate. The ends of the interval are swapped, and the bound is flipped."""
        low, high = numerator / self.high, numerator / self.low
        return Estimate(numerator / self.value, low, high, self.bound.flipped, numerator / self.resamples)

    def __rsub__(self, minuend: float) -> "Estimate":
        """minuend - estimate. The ends of the interval are swapped, and the bound is flipped."""
        low, high = minuend - self.high, minuend - self.low
        return Estimate(minuend - self.value, low, high, self.bound.flipped, minuend - self.resamples)

    @classmethod
    def from_resamples(cls, value: float, resamples: Floats, bound: Bound = Bound.EXACT) -> "Estimate":
        """An estimate with the percentile interval of its finite resamples. A bound keeps its resamples but gets no interval."""
        low, high = (NAN, NAN) if bound else percentile_interval(resamples)
        return cls(value, low, high, bound, resamples)


UNKNOWN = Estimate(NAN)


def t_quantile(degrees: Any) -> Any:
    """Half-width of a 95% t interval in standard errors. `degrees`, the degrees of freedom, can be a number or an array."""
    from scipy.special import stdtrit  # scipy.stats takes half a second longer to import

    return stdtrit(degrees, TAILS[1])


def t_half_width(values: npt.ArrayLike) -> float:
    """Half-width of the 95% t interval for the mean; NaN for fewer than two values."""
    array = np.asarray(values, float)
    if len(array) < 2:
        return NAN
    return float(t_quantile(len(array) - 1) * array.std(ddof=1) / len(array) ** 0.5)


def t_interval(values: npt.ArrayLike) -> Estimate:
    """The mean with its 95% t interval. A single value has no interval."""
    mean, half = np.asarray(values, float).mean(), t_half_width(values)
    return Estimate(float(mean), float(mean - half), float(mean + half))


@dataclass(frozen=True)
class PairedDifference:
    """The mean difference between two sets of losses on the same sequences, with its standard error.

    The standard error reflects the uncertainty due to the choice of sequences, but not the variation between seeds.
    """

    mean: float
    standard_error: float  # NaN for a single pair
    pairs: int

    @property
    def estimate(self) -> Estimate:
        """The mean with its 95% t interval."""
        if self.pairs < 2:
            return Estimate(self.mean)
        half = float(t_quantile(self.pairs - 1)) * self.standard_error
        return Estimate(self.mean, self.mean - half, self.mean + half)

    @property
    def in_standard_errors(self) -> float:
        """The mean divided by its standard error. If all differences are equal, the result is 0 or infinite."""
        if self.standard_error == 0:
            return float(np.copysign(np.inf, self.mean)) if self.mean else 0.0
        return self.mean / self.standard_error

    def is_rise(self, comparisons: int = 1) -> bool:
        """Whether the mean is significantly above 0 in a one-sided t test at the 5% level. False for a single pair.

        comparisons: how many differences this one was selected from, for a Bonferroni correction.
        """
        from scipy.stats import t as student_t

        if self.pairs < 2:
            return False
        threshold = float(student_t.isf(CHANCE / max(comparisons, 1), self.pairs - 1))
        return self.in_standard_errors > threshold


def paired_difference(after: npt.ArrayLike, before: npt.ArrayLike) -> PairedDifference:
    """The mean of `after` minus `before`. Both list losses on the same sequences in the same order.

    They come from two evaluations of one run, or from two runs with the same test set.
    """
    differences = np.asarray(after, float) - np.asarray(before, float)
    count = len(differences)
    error = float(differences.std(ddof=1) / count**0.5) if count > 1 else NAN
    return PairedDifference(float(differences.mean()), error, count)


def percentile_interval(values: npt.ArrayLike, keep_infinite: bool = False) -> tuple[float, float]:
    """95% percentile interval of the finite values; NaN if there are none.

    With `keep_infinite`, non-finite values count as infinitely large, so either end of the interval can be infinite.
    """
    array = np.asarray(values, float)
    finite = np.isfinite(array)
    array = np.where(finite, array, 1e300) if keep_infinite else array[finite]
    if not len(array):
        return NAN, NAN
    low, high = (float(end) for end in np.quantile(array, TAILS))
    if keep_infinite:
        low, high = (end if end < 1e299 else float("inf") for end in (low, high))
    return low, high


def percentile_band(curves: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Pointwise 95% percentile intervals of `curves`, an array of shape [resamples, points]."""
    low, high = np.quantile(np.asarray(curves, float), TAILS, axis=0)
    return low, high


def over_seeds(table: "pd.DataFrame", by: list[str], column: str) -> "pd.DataFrame":
    """Average `column` over the rows that agree in the columns `by`. Returns one row per group.

    The result has the columns in `by`, then `mean`, `seeds` (the number of rows averaged), and `low` and `high` (the ends of the 95%
    t interval). For a single seed, both ends equal the mean.
    """
    grouped = table.groupby(by)[column].agg(["mean", "std", "count"]).reset_index()
    half = t_quantile(grouped["count"].clip(lower=2) - 1) * grouped["std"].fillna(0.0) / np.sqrt(grouped["count"])
    return (
        grouped.assign(low=grouped["mean"] - half, high=grouped["mean"] + half)
        .rename(columns={"count": "seeds"})
        .drop(columns="std")
    )


def interval_or_range(table: "pd.DataFrame", by: list[str], column: str) -> "pd.DataFrame":
    """Like `over_seeds`, but in groups with fewer than FEWEST_SEEDS seeds, `low` and `high` are the smallest and largest values."""
    means = over_seeds(table, by, column)
    ends = table.groupby(by)[column].agg(["min", "max"]).reset_index()
    few = means.seeds < FEWEST_SEEDS
    return means.assign(low=means.low.where(~few, ends["min"]), high=means.high.where(~few, ends["max"]))


def with_bounds(means: "pd.DataFrame", table: "pd.DataFrame", by: list[str]) -> "pd.DataFrame":
    """Add a `bound` column to `means`, which holds averages over `table`. A mean is exact only if every averaged row is exact."""
    bounds = table.groupby(by).bound.agg(lambda bounds: max(bounds, key=len)).reset_index()
    return means.merge(bounds, on=by)
