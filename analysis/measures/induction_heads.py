"""Detect when induction heads form in a run and when they are lost, from the best head's prefix matching."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.formatting import any_of, short_count, three_digits
from analysis.runs import Runs
from repeat_study.records.metrics import BY_KEY

SCORE = BY_KEY["prefix_matching"]
TIMES_THE_NULL = 2.0
T = TypeVar("T", npt.NDArray[np.float64], "pd.Series[float]")
IN_A_ROW = 2  # evaluations; a single high or low score does not count


@dataclass(frozen=True)
class Formation:
    """Training tokens at which a head forms and at which it is lost. Either is NaN if it never happens."""

    formed_at: float
    lost_at: float


def formation(curve: pd.DataFrame) -> Formation:
    """Find when the best head of a run forms and when it is lost.

    curve: the evaluations of the run in time order, starting with the untrained model.

    Let h be half the width of the score's 95% interval. A head is present according to `is_present`, and absent if score + h is below
    `threshold_of`. The head forms at the first of two consecutive evaluations at which it is present. After that, it is lost at the
    first of two consecutive evaluations at which it is absent.
    """
    score, half = (curve[name].to_numpy(float) for name in (SCORE.key, SCORE.interval_key))
    half = np.nan_to_num(half)
    threshold = threshold_of(curve)
    tokens = np.append(curve.tokens.to_numpy(float), np.nan)
    formed = _first_in_a_row(is_present(score, half, threshold), 0)
    return Formation(float(tokens[formed]), float(tokens[_first_in_a_row(score + half < threshold, formed)]))


def is_present(score: T, half: T, threshold: T | float) -> Any:
    """Whether a head counts as an induction head: its score, minus half the width of its interval, exceeds `threshold_of`."""
    return score - half > threshold


def threshold_of(curve: pd.DataFrame) -> float:
    """The prefix matching that an induction head must exceed: twice the untrained model's score or twice the largest null.

    curve: the evaluations of a run in time order, starting with the untrained model. The larger of the two thresholds counts.
    """
    return float(TIMES_THE_NULL * max(curve[SCORE.key].iloc[0], curve[SCORE.null_key].max()))


def thresholds(runs: Runs) -> dict[str, float]:
    """Thresholds by run name. For fine-tuned runs, only the null counts, because their first evaluation measures the parent."""
    tuned = set(runs.table[runs.table.parent != ""].name)
    return {
        name: TIMES_THE_NULL * float(curve[SCORE.null_key].max()) if name in tuned else threshold_of(curve)
        for name, curve in _measured(runs)
    }


def none_formed(runs: Runs) -> str:
    """Say that no run formed an induction head, and give the highest score. Empty if a run formed one or no run has scores."""
    measured = dict(_measured(runs))
    if not measured or any(not np.isnan(formation(curve).formed_at) for curve in measured.values()):
        return ""
    return (
        f"No induction head formed in {_any_of(measured)}: the best head's prefix matching never stays above"
        f" twice its null and twice the untrained model's score for {IN_A_ROW} evaluations in a row."
        f" {_highest(runs, measured)}{' One-layer models cannot form any.' if (runs.table.layers == 1).all() else ''}"
    )


def none_before_or_after(runs: Runs) -> str:
    """Say that no fine-tuned run has an induction head at its first or last evaluation. Empty if a run has one.

    Fine-tuned runs are first evaluated with their parents' weights, so a head can be present from the start.
    """
    measured = {name: curve.iloc[[0, -1]] for name, curve in _measured(runs)}
    limits = thresholds(runs)
    if not measured or any(_has_head(curve, limits[name]) for name, curve in measured.items()):
        return ""
    return (
        f"No induction head exists before or after training in {_any_of(measured)}: the best head's prefix matching,"
        f" minus half its interval, never exceeds twice the run's largest null. {_highest(runs, measured)}"
    )


def _has_head(curve: pd.DataFrame, threshold: float) -> bool:
    return bool(is_present(curve[SCORE.key], curve[SCORE.interval_key].fillna(0.0), threshold).any())


def _any_of(measured: Mapping[str, pd.DataFrame]) -> str:
    return any_of(len(measured), "run")


def _measured(runs: Runs) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the name of each run that has scores, and the evaluations that have one."""
    for name in runs.table.name:
        curve = runs.curve(str(name))
        if SCORE.key in curve and len(scored := curve[curve[SCORE.key].notna()]):
            yield str(name), scored


def _highest(runs: Runs, curves: Mapping[str, pd.DataFrame]) -> str:
    """A sentence that gives the largest score relative to its null."""
    rows = pd.concat(curves.values(), ignore_index=True)
    best = rows.loc[(rows[SCORE.key] / rows[SCORE.null_key]).fillna(0.0).idxmax()]
    run = runs.table[runs.table.name == best["name"]].iloc[0]
    return (
        f"The largest score relative to its null is {three_digits(best[SCORE.key])} (null {three_digits(best[SCORE.null_key])}), in"
        f" {run.label} at {short_count(best.tokens)} tokens."
    )


def _first_in_a_row(holds: npt.NDArray[np.bool_], start: int) -> int:
    """The first index from `start` on where IN_A_ROW consecutive true values begin; len(holds) if there is none."""
    later = holds[start:]
    if len(later) < IN_A_ROW:
        return len(holds)
    begins = np.lib.stride_tricks.sliding_window_view(later, IN_A_ROW).all(axis=1)
    return start + int(begins.argmax()) if begins.any() else len(holds)
