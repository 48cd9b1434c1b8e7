"""Pair every repeated run with a clean run of the same size and tokens, so that laws are fitted to what repetition costs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.formatting import listed, plural
from analysis.laws.clean import suitable
from analysis.laws.estimate import CannotFit, Problem, check, solve
from analysis.laws.law import Domain, domain_of
from analysis.laws.points import Floats, Points

SAME_TOKENS = 0.005  # relative difference of token counts up to which two runs count as equally long
NEAREST_TOKENS = 2.5  # largest ratio of token counts across which the clean law corrects a clean run's loss

GIVEN = "with the clean loss in the same row"
BY_SEED = "with the clean run of the same size, tokens and seed"
BY_CELL = "with the mean of the clean runs of the same size and tokens"
CORRECTED = "with the clean runs of the same size, corrected for other token counts with the clean law"
BY_LAW = "with the clean law, because no clean run has the same size"
UNPAIRED = "left out, because there is no clean run to compare with"
Labels = npt.NDArray[Any]
WAYS = (GIVEN, BY_SEED, BY_CELL, CORRECTED, BY_LAW, UNPAIRED)


@dataclass(frozen=True)
class Pairing:
    """Points with controls, and how many repeated runs were paired in each of the WAYS."""

    points: Points
    counts: dict[str, int]

    def __str__(self) -> str:
        """Sentence that says what was paired."""
        ways = [f"{plural(count, 'run')} {way}" for way, count in self.counts.items() if count]
        return f"Penalties are relative to clean runs. Paired: {listed(ways)}." if ways else ""


@dataclass(frozen=True)
class CleanLaw:
    """A law fitted to the clean runs."""

    problem: Problem
    theta: Floats
    domain: Domain

    def loss(self, points: Points) -> Floats:
        """Loss of clean runs of the same size and tokens, in nats."""
        return self.problem.clean_loss(self.theta, points.as_clean())


def clean_law(points: Points) -> CleanLaw | None:
    """The most detailed clean law that the clean runs can determine; None if they determine none."""
    clean = points[points.clean]
    if not len(clean):
        return None
    law = suitable(clean)
    try:
        check(law, clean)
    except CannotFit:
        return None
    problem = Problem.of(law, clean)
    return CleanLaw(problem, solve(problem, np.ones((1, len(clean)))).theta[0], domain_of(clean))


def paired(points: Points, seeds: Sequence[str] | None = None, cells: Sequence[str] | None = None) -> Pairing:
    """Find the control of every repeated run.

    seeds: with which seed each run was trained. cells: runs of different cells, such as learning rates, are not compared. Controls
    that `points` already has are kept.
    """
    seed = np.array(seeds if seeds is not None else [""] * len(points))
    cell = np.array(cells if cells is not None else [""] * len(points))
    control = np.full(len(points), np.nan) if points.control is None else points.control.copy()
    ways = np.full(len(points), "", dtype=object)
    ways[~np.isnan(control)] = GIVEN
    law = clean_law(points)
    for run in np.flatnonzero(~points.clean & np.isnan(control)).tolist():
        control[run], ways[run] = _control(points, run, seed, cell, law)
    control[points.clean] = np.nan
    repeated = ways[~points.clean]
    return Pairing(replace(points, control=control), {way: int((repeated == way).sum()) for way in WAYS})


def _control(points: Points, run: int, seed: Labels, cell: Labels, law: CleanLaw | None) -> tuple[float, str]:
    """The control of one repeated run, and how it was found."""
    comparable = points.clean & (points.params == points.params[run]) & (cell == cell[run])
    ratio = points.tokens / points.tokens[run]
    same = comparable & (np.abs(ratio - 1) <= SAME_TOKENS)
    if seed[run] and (of_seed := same & (seed == seed[run])).any():
        return float(points.loss[of_seed].mean()), BY_SEED
    if same.any():
        return float(points.loss[same].mean()), BY_CELL
    if law is None:
        return np.nan, UNPAIRED
    expected = float(law.loss(points[np.array([run])])[0])
    near = np.flatnonzero(comparable & (np.abs(np.log(ratio)) <= np.log(NEAREST_TOKENS)))
    if len(near):
        nearest = near[np.abs(np.log(ratio[near])) <= np.abs(np.log(ratio[near])).min() + SAME_TOKENS]
        surplus = points.loss[nearest] - law.loss(points[nearest])
        return float(expected + surplus.mean()), CORRECTED
    if (cell == cell[run]).all() and law.domain.params[0] <= points.params[run] <= law.domain.params[1]:
        return expected, BY_LAW
    return np.nan, UNPAIRED


def with_controls(points: Points) -> Points:
    """The clean runs, and the repeated runs that have a control."""
    points = points if points.control is not None else paired(points).points
    return points[points.clean | ~np.isnan(points.penalty)]
