"""Fits with intervals: Huber loss on log loss from several starts [M23 section 6], and a bootstrap over runs."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from analysis.intervals import percentile_interval
from analysis.laws.law import Constant, Constants, Domain, Law, domain_of
from analysis.laws.points import Floats, Points

HUBER_DELTA = 1e-3  # on log loss [M23]
FOLLOWED = 4  # starts
STEP = 1e-6  # of the slopes
FAR = 10.0
NOT_DETERMINED = "not determined: at a bound of the search"
AT_BOUND = 1e-2  # of a logarithm, or of an exponent
BOOTSTRAP_STEPS = 30
DRAWS = 200


class CannotFit(Exception):
    """Why a law cannot be fitted on some points."""


@dataclass(frozen=True)
class Fitted:
    """A law with the constants that fit some points best, and those of every draw of the bootstrap."""

    law: Law
    constants: Constants
    draws: tuple[Constants, ...]
    free: tuple[str, ...]  # the constants that were fitted; others stand at a fixed value
    domain: Domain
    points: int
    error: float  # root mean square of fitted - measured, nats
    undetermined: tuple[str, ...] = ()  # constants that stopped at a bound of the search

    def loss(self, points: Points) -> Floats:
        """Predicted loss in nats."""
        return self.law.loss(self.constants, points)

    def interval(self, name: str) -> tuple[float, float]:
        """95% interval of a constant; NaN without draws."""
        return percentile_interval([draw[name] for draw in self.draws])


def fit(law: Law, points: Points, draws: int = DRAWS, seed: int = 0) -> Fitted:
    """Fit on these points; a clean law takes the clean ones.

    The bootstrap keeps the design, which whoever made the runs chose, and draws the residuals of the runs anew (in log loss, of
    any run, wider by n/(n - p): like least absolute deviations, the fit
    passes through as many runs as it has constants). Raises CannotFit where there are fewer distinct points than constants.
    """
    points = points[points.clean] if law.only_clean else points
    check(law, points)
    search = _Search.of(law, points)
    measured = np.log(points.loss)
    best = search.best(measured)
    fitted = search.predicted(best)
    residuals = measured - fitted
    over = len(points) - len(best)
    wider = len(points) / max(over, 1)
    random = np.random.default_rng(seed)
    again = [
        search.from_start(best, fitted + wider * random.choice(residuals, len(points)), BOOTSTRAP_STEPS)[0]
        for _ in range(draws if over > 0 else 0)
    ]
    return Fitted(
        law,
        search.constants(best),
        tuple(map(search.constants, again)),
        tuple(constant.name for constant in search.free),
        domain_of(points),
        len(points),
        float(np.sqrt(np.mean((np.exp(fitted) - points.loss) ** 2))),
        search.at_bounds(best),
    )


def check(law: Law, points: Points) -> None:
    """Raise CannotFit where these points do not determine the law."""
    needed = len(free_constants(law, points))
    design = np.stack([points.params, points.tokens, points.fraction, points.repeats])
    distinct = np.unique(design, axis=1).shape[1] if len(points) else 0
    kind = "clean runs" if law.only_clean else "runs"
    if not points.clean.any():
        raise CannotFit("no clean run to tell the harm by")
    if distinct < needed:
        raise CannotFit(f"it has {needed} constants and needs as many different {kind}, {distinct} found")
    sizes = len(np.unique(points.params[points.clean]))
    if sizes < 3:
        raise CannotFit(f"clean runs of three sizes needed, {sizes} found")
    if not law.only_clean and law.one_fraction and len(np.unique(points.fraction[~points.clean])) > 1:
        raise CannotFit("it has no repeated fraction in it, and the runs have several")
    if not law.only_clean and len(np.unique(points.repeats)) < 4:
        raise CannotFit(f"runs at three R above 1 needed, {len(np.unique(points.repeats[~points.clean]))} found")


def free_constants(law: Law, points: Points) -> tuple[Constant, ...]:
    """The constants that these points can tell."""

    def varies(column: str) -> bool:
        values = getattr(points, column) if column != "fraction" else points.fraction[~points.clean]
        return len(np.unique(values)) > 1

    return tuple(one for one in law.constants if not one.varies or varies(one.varies))


@dataclass(frozen=True)
class _Search:
    """The fit in units in which every constant is near one: logarithms, coefficients at the middle of the points."""

    law: Law
    points: Points
    free: tuple[Constant, ...]
    fixed: dict[str, float]
    middle: dict[str, float]

    @classmethod
    def of(cls, law: Law, points: Points) -> "_Search":
        free = free_constants(law, points)
        fixed = dict(law.held) | {one.name: one.otherwise for one in law.constants if one not in free}
        middle = {name: float(np.exp(np.log(getattr(points, name)).mean())) for name in ("params", "tokens")}
        return cls(law, points, free, fixed, middle)

    def constants(self, theta: Floats) -> dict[str, Any]:
        """The law's constants for theta of shape [free], or for each row of [rows, free] as columns [rows, 1]."""
        columns = theta[..., None] if theta.ndim > 1 else theta
        found: dict[str, Any] = dict(self.fixed)
        for place, one in enumerate(self.free):
            value = columns[:, place] if theta.ndim > 1 else columns[place]
            found[one.name] = np.exp(value) if one.positive else value
        for one in self.free:
            for column, exponent, sign in one.per:
                found[one.name] = found[one.name] * self.middle[column] ** (sign * found[exponent])
        return found

    def predicted(self, theta: Floats) -> Floats:
        """Log loss, shape [points] or [rows, points]; far from everything where the law overflows."""
        with np.errstate(all="ignore"):
            found = np.log(self.law.loss(self.constants(theta), self.points))
        return np.nan_to_num(found, nan=FAR, posinf=FAR, neginf=-FAR)

    def slopes(self, theta: Floats) -> Floats:
        """Of log loss by every free constant, [points, free]; all in one call, which is what makes a fit fast."""
        stepped = self.predicted(np.vstack([theta, theta + STEP * np.eye(len(theta))]))
        return (stepped[1:] - stepped[0]).T / STEP

    def from_start(self, start: Floats, measured: Floats, steps: int) -> tuple[Floats, float]:
        low, high = self._bounds()
        found = least_squares(
            lambda theta: self.predicted(theta) - measured,
            np.clip(start, low + 1e-6, high - 1e-6),
            jac=self.slopes,
            bounds=(low, high),
            loss="huber",
            f_scale=HUBER_DELTA,
            max_nfev=steps,
        )
        return found.x, float(found.cost)

    def best(self, measured: Floats) -> Floats:
        """Of a grid of starts the nearest are followed a little, and the best of these to the end."""
        starts = np.array(list(product(*([self._inner(one, start) for start in one.starts] for one in self.free))))
        cost = np.abs(self.predicted(starts) - measured).sum(axis=1)
        near = starts[np.argsort(cost, kind="stable")[:FOLLOWED]]
        first = sorted((self.from_start(start, measured, 20) for start in near), key=lambda found: found[1])
        return self.from_start(first[0][0], measured, 400)[0]

    def at_bounds(self, theta: Floats) -> tuple[str, ...]:
        low, high = self._bounds()
        near = (theta - low < AT_BOUND) | (high - theta < AT_BOUND)
        return tuple(one.name for one, is_near in zip(self.free, near, strict=True) if is_near)

    def _bounds(self) -> tuple[Floats, Floats]:
        low, high = (
            np.array([self._inner(one, value) for one, value in zip(self.free, side, strict=True)])
            for side in ([one.low for one in self.free], [one.high for one in self.free])
        )
        return low, high

    @staticmethod
    def _inner(one: Constant, value: float) -> float:
        return float(np.log(value)) if one.positive else value
