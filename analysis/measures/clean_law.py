"""Fit the clean scaling law: a constant plus a power law in model size or compute."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from analysis.laws.clean import IN_SIZE
from analysis.laws.fit import fit
from analysis.laws.points import Floats, prediction_points

PARAMETERS = 3


@dataclass(frozen=True)
class PowerLaw:
    """The law L(N) = E + A·N^-alpha in nats, fitted on sizes from `smallest` to `largest`."""

    irreducible: float  # E
    coefficient: float  # A
    exponent: float  # alpha
    smallest: float
    largest: float
    points: int
    residual: float  # largest |fitted - measured| in nats

    def loss(self, size: npt.ArrayLike) -> Floats:
        """Loss in nats at each size."""
        return self.irreducible + self.coefficient * np.asarray(size, float) ** -self.exponent

    def size(self, loss: float) -> float:
        """Size at which the law reaches `loss`; infinite if `loss` is not above the irreducible loss."""
        if loss <= self.irreducible:
            return float("inf")
        log_size = (np.log(self.coefficient) - np.log(loss - self.irreducible)) / self.exponent
        return float(np.exp(min(log_size, 700.0)))  # exp(700) is larger than any model but does not overflow


def fit_power_law(sizes: npt.ArrayLike, losses: npt.ArrayLike) -> PowerLaw:
    """Fit the clean law by minimizing a Huber loss on log loss; E and A are positive [M23, section 6].

    sizes, losses: one entry per clean run. `sizes` can hold compute instead of sizes. Raises ValueError if there are fewer than three
    distinct sizes, because the law has three parameters.
    """
    n, measured = np.asarray(sizes, float), np.asarray(losses, float)
    if len(np.unique(n)) < PARAMETERS:
        raise ValueError(
            f"a power law with a constant needs clean runs of at least {PARAMETERS} sizes, found {len(np.unique(n))}"
        )
    points = replace(prediction_points(n, 1.0, 0.0, 1.0), loss=measured)
    fitted = fit(IN_SIZE, points, resamples=0)
    constants = fitted.constants
    return PowerLaw(
        irreducible=constants["E"],
        coefficient=constants["A"],
        exponent=constants["alpha"],
        smallest=float(n.min()),
        largest=float(n.max()),
        points=len(n),
        residual=float(np.abs(fitted.loss(points) - measured).max()),
    )
