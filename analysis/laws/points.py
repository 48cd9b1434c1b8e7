"""Represent runs as arrays, for fitting and evaluating laws."""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Penalties are compared on the scale asinh(penalty / (SCALE · clean loss)). Below 4% of the clean loss this is the penalty itself, up to a
# factor; above, it is nearly its logarithm. A noisy penalty near 0 and a large penalty then both get a fair weight.
SCALE = 0.04


@dataclass(frozen=True)
class Points:
    """Runs as arrays of the same shape, with one entry per run.

    params: model size N, with or without embeddings, depending on the law.
    tokens: training tokens T.
    fraction: share f of the tokens that come from the repeated pool; 0 for clean runs.
    repeats: R; 1 for clean runs.
    loss: final test loss in nats per token; NaN if unknown.
    control: loss of a clean run with the same size and tokens; NaN if unknown. None before `pairing.paired` has looked for one.
    """

    params: Floats
    tokens: Floats
    fraction: Floats
    repeats: Floats
    loss: Floats
    control: Floats | None = None

    def __len__(self) -> int:
        return self.params.size

    def __getitem__(self, chosen: slice | npt.NDArray[Any]) -> "Points":
        """Select points with a slice, a mask or an array of indices."""
        columns = (getattr(self, field.name) for field in fields(self))
        return Points(*(None if column is None else column[chosen] for column in columns))  # type: ignore[arg-type]

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

    @property
    def penalty(self) -> Floats:
        """Loss above the clean run of the same size and tokens, in nats per token; NaN without a control."""
        return np.full_like(self.loss, np.nan) if self.control is None else self.loss - self.control

    def as_clean(self) -> "Points":
        """Points with the same sizes and tokens, but without repetition."""
        return replace(self, fraction=np.zeros_like(self.fraction), repeats=np.ones_like(self.repeats))


def scaled(penalty: Floats, clean_loss: npt.ArrayLike) -> Floats:
    """A penalty in nats on the scale on which penalties are compared."""
    return np.arcsinh(penalty / (SCALE * np.asarray(clean_loss)))


def unscaled(value: Floats, clean_loss: npt.ArrayLike) -> Floats:
    """The inverse of `scaled`: a penalty in nats."""
    with np.errstate(over="ignore"):
        return np.sinh(value) * SCALE * np.asarray(clean_loss)


def prediction_points(
    params: npt.ArrayLike, tokens: npt.ArrayLike, fraction: npt.ArrayLike, repeats: npt.ArrayLike
) -> Points:
    """Points whose loss is to be predicted, broadcast to one shape. Points with R = 1 are clean."""
    n, t, f, r = (np.array(a, float) for a in np.broadcast_arrays(params, tokens, fraction, repeats))
    return Points(n, t, np.where(r == 1, 0.0, f), r, np.full_like(n, np.nan))
