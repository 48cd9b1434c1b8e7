"""A planned run, and the values of R to compare."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.intervals import NAN

SMALLEST_POOL = 1000.0  # tokens; the grid of R ends when the pool is this small
MOST_REPEATS = 1e6


@dataclass(frozen=True)
class Question:
    """A planned run. Without `repeats`, every law is evaluated at its own worst R.

    Either the fraction is the same for every R and the subset shrinks as R grows, or the subset has `subset_tokens` tokens for every R
    and the fraction f = R·D/T grows.
    """

    params: float
    tokens: float
    fraction: float = NAN  # NaN if it follows from subset_tokens
    repeats: float | None = None
    subset_tokens: float | None = None

    def fraction_at(self, repeats: npt.ArrayLike) -> npt.ArrayLike:
        """The repeated fraction f at each R."""
        if self.subset_tokens is None:
            return self.fraction
        return np.asarray(repeats, float) * self.subset_tokens / self.tokens

    def subset_at(self, repeats: float) -> float:
        """Tokens in the subset at one R."""
        return self.subset_tokens or self.fraction * self.tokens / repeats

    @property
    def most_repeats(self) -> float:
        """The largest R on the grid."""
        if self.subset_tokens is not None:
            return min(MOST_REPEATS, self.tokens / self.subset_tokens)
        return max(2.0, self.repeats or 0.0, min(MOST_REPEATS, self.fraction * self.tokens / SMALLEST_POOL))

    @property
    def listed_repeats(self) -> list[float]:
        """A series of R up to `most_repeats`, and the planned R."""
        decades = range(int(np.log10(MOST_REPEATS)) + 1)
        series = {float(digit * 10**decade) for decade in decades for digit in (1, 2, 5)} | {4.0}
        listed = {repeats for repeats in series if repeats <= self.most_repeats * (1 + 1e-9)}
        return sorted(listed | ({self.repeats} if self.repeats else set()))
