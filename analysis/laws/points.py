"""Represent runs as arrays, for fitting and evaluating laws."""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Points:
    """Runs as arrays of the same shape, with one entry per run.

    params: model size N, with or without embeddings, depending on the law.
    tokens: training tokens T.
    fraction: share f of the tokens that come from the repeated pool; 0 for clean runs.
    repeats: R; 1 for clean runs.
    loss: final test loss in nats per token; NaN if unknown.
    """

    params: Floats
    tokens: Floats
    fraction: Floats
    repeats: Floats
    loss: Floats

    def __len__(self) -> int:
        return self.params.size

    def __getitem__(self, chosen: slice | npt.NDArray[Any]) -> "Points":
        """Select points with a slice, a mask or an array of indices."""
        return Points(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @property
    def clean(self) -> npt.NDArray[np.bool_]:
        """A mask that selects the runs without repetition."""
        return self.repeats == 1

    @property
    def pool(self) -> Floats:
        """Size of the repeated pool in tokens, f·T/R."""
        return self.fraction * self.tokens / self.repeats

    @property
    def unique(self) -> Floats:
        """Number of distinct tokens: (1 - f)·T tokens that are seen once, plus the pool."""
        return (1 - self.fraction) * self.tokens + self.pool

    def as_clean(self) -> "Points":
        """Points with the same sizes and tokens, but without repetition."""
        return replace(self, fraction=np.zeros_like(self.fraction), repeats=np.ones_like(self.repeats))


def prediction_points(
    params: npt.ArrayLike, tokens: npt.ArrayLike, fraction: npt.ArrayLike, repeats: npt.ArrayLike
) -> Points:
    """Points whose loss is to be predicted, broadcast to one shape. Points with R = 1 are clean."""
    n, t, f, r = (np.array(a, float) for a in np.broadcast_arrays(params, tokens, fraction, repeats))
    return Points(n, t, np.where(r == 1, 0.0, f), r, np.full_like(n, np.nan))
