"""The runs that a law is fitted on or predicts: model size, tokens, repeated fraction, repeats and, if known, loss."""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Points:
    """Runs as arrays of one shape, an entry per run.

    params: N, counted as the law counts it; tokens: T, trained on; fraction: f, the share of the tokens that comes from the
    repeated pool, 0 for clean runs; repeats: R, 1 for clean runs; loss: final test loss in nats per token, NaN if unknown.
    """

    params: Floats
    tokens: Floats
    fraction: Floats
    repeats: Floats
    loss: Floats

    def __len__(self) -> int:
        return self.params.size

    def __getitem__(self, chosen: slice | npt.NDArray[Any]) -> "Points":
        """The points that a slice, a mask or an array of indices chooses."""
        return Points(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @property
    def clean(self) -> npt.NDArray[np.bool_]:
        """Mask of the runs without repetition."""
        return self.repeats == 1

    @property
    def pool(self) -> Floats:
        """Size of the repeated pool in tokens, f·T/R."""
        return self.fraction * self.tokens / self.repeats

    @property
    def unique(self) -> Floats:
        """Number of different tokens seen: (1 - f)·T seen once, and the pool."""
        return (1 - self.fraction) * self.tokens + self.pool

    def as_clean(self) -> "Points":
        """The same sizes and tokens without repetition."""
        return replace(self, fraction=np.zeros_like(self.fraction), repeats=np.ones_like(self.repeats))


def prediction_points(
    params: npt.ArrayLike, tokens: npt.ArrayLike, fraction: npt.ArrayLike, repeats: npt.ArrayLike
) -> Points:
    """Points to predict the loss of, broadcast to one shape; those with R = 1 are clean."""
    n, t, f, r = (np.array(a, float) for a in np.broadcast_arrays(params, tokens, fraction, repeats))
    return Points(n, t, np.where(r == 1, 0.0, f), r, np.full_like(n, np.nan))
