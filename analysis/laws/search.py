"""Minimize many robust least-squares problems at the same time: starting points, left-out runs and resamples are rows of one array."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from analysis.laws.points import Floats

STEP = 1e-5  # step of the finite differences, in units of theta
DAMPING = (1e-3, 1e-9, 1e9)  # first, smallest and largest damping of a step
MOST_DAMPING = 1e6  # a row is done if even such a small step does not lower its cost
SMALLEST_GAIN = 1e-6  # a row is done if two steps in a row lower its cost by less than this share
CONVERGED = 1e-14  # the same when polishing
OUTLIER_CURVATURE = 1e-3  # when polishing, replaces the curvature 0 that the Huber loss has beyond `delta`
Rows = npt.NDArray[np.int64]
Residuals = Callable[[Floats, Rows], Floats]  # theta [rows, free], indices of the rows -> residuals [rows, terms]


class Minimum(NamedTuple):
    """The result of `minimize`: theta [rows, free] and its cost [rows]."""

    theta: Floats
    cost: Floats


def huber_cost(residuals: Floats, weights: Floats, delta: float) -> Floats:
    """Sum of weighted Huber losses over the last axis: r²/2 up to `delta`, then linear."""
    size = np.abs(residuals)
    return (weights * np.where(size <= delta, size**2 / 2, delta * (size - delta / 2))).sum(-1)


def minimize(
    residuals: Residuals,
    start: Floats,
    weights: Floats,
    delta: float,
    low: Floats,
    high: Floats,
    steps: int,
    polish: bool = False,
) -> Minimum:
    """Minimize the weighted Huber loss of every row with Levenberg-Marquardt steps inside the box from `low` to `high`.

    residuals: maps theta, shape [rows, free], and the numbers of these rows to residuals, shape [rows, terms]. start: [rows, free].
    weights: [rows, terms]; 0 leaves a term out. delta: where the loss becomes linear, in units of the residuals. All rows advance
    together, because one call for all of them costs little more than a call for one.
    polish: converge as far as floating-point numbers allow, from a start near the minimum.
    """
    theta = np.clip(start, low, high)
    rows, free = theta.shape
    active: Rows = np.arange(rows)
    damping = np.full(rows, DAMPING[0])
    current = residuals(theta, active)
    cost = huber_cost(current, weights, delta)
    jacobian = np.empty((rows, current.shape[1], free))
    stale = np.ones(rows, bool)
    quiet = np.zeros(rows, int)
    smallest_gain = CONVERGED if polish else SMALLEST_GAIN
    for _ in range(steps):
        if not len(active):
            break
        if len(renewed := active[stale[active]]):
            jacobian[renewed] = _jacobian(residuals, theta, current, renewed, high)
            stale[renewed] = False
        of_active = (jacobian[active], current[active], weights[active], damping[active], theta[active])
        tried = np.clip(theta[active] + _step(*of_active, delta, low, high, polish), low, high)
        new = residuals(tried, active)
        new_cost = huber_cost(new, weights[active], delta)
        better = new_cost < cost[active]
        gain = np.where(better, (cost[active] - new_cost) / np.maximum(cost[active], 1e-300), 0.0)
        chosen = active[better]
        theta[chosen], current[chosen], cost[chosen], stale[chosen] = tried[better], new[better], new_cost[better], True
        damping[active] = np.clip(damping[active] * np.where(better, 0.2, 5.0), *DAMPING[1:])
        quiet[active] = np.where(better & (gain > smallest_gain), 0, quiet[active] + better)
        done = (quiet[active] >= 2) | (~better & (damping[active] >= MOST_DAMPING)) | (cost[active] < 1e-14)
        active = active[~done]
    return Minimum(theta, cost)


def _jacobian(residuals: Residuals, theta: Floats, current: Floats, rows: Rows, high: Floats) -> Floats:
    """Derivatives of the residuals by finite differences, shape [rows, terms, free], in one call for all columns."""
    free = theta.shape[1]
    sign = np.where(theta[rows] + STEP > high, -1.0, 1.0)  # [rows, free]
    stepped = theta[rows][:, None, :] + STEP * sign[:, :, None] * np.eye(free)
    values = residuals(stepped.reshape(-1, free), np.repeat(rows, free)).reshape(len(rows), free, -1)
    return ((values - current[rows][:, None, :]) / (STEP * sign[:, :, None])).transpose(0, 2, 1)


def _step(
    jacobian: Floats,
    current: Floats,
    weights: Floats,
    damping: Floats,
    theta: Floats,
    delta: float,
    low: Floats,
    high: Floats,
    polish: bool,
) -> Floats:
    """A damped Gauss-Newton step for every row. A parameter at a bound does not move if its gradient points outside.

    Far from the minimum, outliers are down-weighted, which makes steps robust. When polishing, they have almost no curvature, like the
    Huber loss, because down-weighting converges slowly.
    """
    robust = weights * np.minimum(1.0, delta / np.maximum(np.abs(current), 1e-300))
    curvature = weights * np.where(np.abs(current) <= delta, 1.0, OUTLIER_CURVATURE) if polish else robust
    hessian = np.swapaxes(jacobian * curvature[..., None], 1, 2) @ jacobian
    gradient = (jacobian * (robust * current)[..., None]).sum(1)
    blocked = ((theta <= low) & (gradient > 0)) | ((theta >= high) & (gradient < 0))
    gradient = np.where(blocked, 0.0, gradient)
    hessian = np.where(blocked[:, :, None] | blocked[:, None, :], 0.0, hessian)
    diagonal = np.einsum("rff->rf", hessian)
    damped = damping[:, None] * np.maximum(diagonal, 1e-6 * diagonal.max(1, keepdims=True)) + 1e-12
    hessian = hessian + np.where(blocked, 1.0, damped)[:, :, None] * np.eye(theta.shape[1])
    return np.asarray(-np.linalg.solve(hessian, gradient[..., None])[..., 0], float)
