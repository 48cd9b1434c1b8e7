"""The clean scaling law: loss against model size as a power law plus a constant."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import huber

Floats = npt.NDArray[np.float64]
HUBER_DELTA = 1e-3  # on log loss [M23 section 6]
PARAMETERS = 3


@dataclass(frozen=True)
class PowerLaw:
    """L(N) = E + A·N^-alpha in nats, fitted on sizes from `smallest` to `largest`."""

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
        """Size at which the law reaches `loss`; infinite at or below the irreducible loss."""
        if loss <= self.irreducible:
            return float("inf")
        log_size = (np.log(self.coefficient) - np.log(loss - self.irreducible)) / self.exponent
        return float(np.exp(min(log_size, 700.0)))  # beyond any size, and short of overflow


def fit_power_law(sizes: npt.ArrayLike, losses: npt.ArrayLike) -> PowerLaw:
    """Fit the law by Huber loss on log loss, L-BFGS from a grid of starts, E and A positive [M23 section 6].

    sizes, losses: one entry per clean run. Raises ValueError with fewer than three distinct sizes: the law has three
    parameters.
    """
    n, measured = np.asarray(sizes, float), np.asarray(losses, float)
    if len(np.unique(n)) < PARAMETERS:
        raise ValueError(
            f"a power law with a constant needs clean runs of {PARAMETERS} sizes, found {len(np.unique(n))}"
        )
    # Sizes in units of their geometric mean keep the parameters near one.
    unit = float(np.exp(np.log(n).mean()))

    log_n, log_measured = np.log(n / unit), np.log(measured)

    def predicted(theta: Floats) -> Floats:
        return np.logaddexp(theta[0], theta[1] - np.exp(theta[2]) * log_n)

    def objective(theta: Floats) -> tuple[float, Floats]:
        """The loss and its gradient; with a numerical one a fit takes four times as long."""
        log_loss = predicted(theta)
        off = log_loss - log_measured
        falling = 1 - np.exp(theta[0] - log_loss)  # the power law's share of the loss
        slopes = np.array([1 - falling, falling, -falling * np.exp(theta[2]) * log_n])
        gradient = slopes @ np.clip(off, -HUBER_DELTA, HUBER_DELTA)
        return float(huber(HUBER_DELTA, off).sum() * 1e6), gradient * 1e6

    starts = product(
        np.log(measured.min() * np.array([0.05, 0.5, 0.9])), np.log([0.1, 1.0, 3.0]), np.log([0.05, 0.2, 0.5])
    )
    # E may vanish (log E -> -inf) where the curve shows no floor yet; the bound stops it at 1e-6 nats.
    bounds = [(np.log(1e-6), np.log(measured.min())), (-10.0, 10.0), (np.log(1e-3), np.log(3.0))]
    fits = [minimize(objective, np.array(start), method="L-BFGS-B", jac=True, bounds=bounds) for start in starts]
    best = min(fits, key=lambda fit: float(fit.fun)).x
    exponent = float(np.exp(best[2]))
    return PowerLaw(
        irreducible=float(np.exp(best[0])),
        coefficient=float(np.exp(best[1]) * unit**exponent),
        exponent=exponent,
        smallest=float(n.min()),
        largest=float(n.max()),
        points=len(n),
        residual=float(np.abs(np.exp(predicted(best)) - measured).max()),
    )
