"""Text about double descent, shared by the summary and the detailed findings."""

import pandas as pd

from analysis.formatting import bracketed, nats_digits, plural, three_digits
from analysis.measures.degradation import Judge

CANNOT_BE_JUDGED = (
    "cannot be judged, because no run recorded the losses of at least eight test sequences and there is no finished clean run from"
    " which to estimate the noise"
)
THRESHOLDS = {
    Judge.SEQUENCES: "chance (a paired t test over test sequences, at 5%) and twice the largest rise in any clean run",
    Judge.CLEAN: "twice the noise of clean runs",
}


def with_double_descent(runs: pd.DataFrame) -> pd.DataFrame:
    """The rows of `degradation.summary` that show double descent."""
    return runs[runs.double_descent == True]  # noqa: E712  (None: not judged)


def clearest_case(descents: pd.DataFrame) -> pd.Series:
    """The run with the largest min(rise, recovery)."""
    return descents.loc[descents[["rise", "won_back"]].min(axis=1).idxmax()]


def threshold(runs: pd.DataFrame) -> str:
    """The threshold that both the rise and the recovery must exceed, as text."""
    judges = [judge for judge in THRESHOLDS if (runs.rise_judged_by == judge).any()]
    return ", or, in runs without recorded test sequences, ".join(THRESHOLDS[judge] for judge in judges)


def size_of(run: pd.Series) -> str:
    """A run's rise in nats with its paired interval, in standard errors, and relative to the clean runs' total drop in test loss."""
    relative = []
    if pd.notna(run.rise_in_standard_errors):
        relative.append(
            f"{three_digits(run.rise_in_standard_errors)} standard errors over test sequences within one run, not over seeds"
        )
    if pd.notna(run.rise_share):
        relative.append(f"{run.rise_share:.1%} of the clean runs' total drop in test loss")
    return _with_interval(run.rise, run.rise_low, run.rise_high, " nats") + (
        f" ({'; '.join(relative)})" if relative else ""
    )


def recovery_of(run: pd.Series) -> str:
    """A run's recovery in nats, with its paired interval."""
    return _with_interval(run.won_back, run.won_back_low, run.won_back_high)


def _with_interval(difference: float, low: float, high: float, unit: str = "") -> str:
    digits = nats_digits(difference, low, high)
    return f"{difference:.{digits}f}{unit}" + bracketed(low, high, lambda end: f"{end:.{digits}f}")


def note_on_cruder_threshold(runs: pd.DataFrame) -> str:
    """A note on runs that recorded too few test sequences, starting with a space; empty if there are none."""
    without = runs[runs.rise_judged_by != Judge.SEQUENCES]
    if without.empty:
        return ""
    if len(without) == len(runs):
        subject, threshold_of = "No run recorded", "The threshold is"
    else:
        subject, threshold_of = (
            f"{len(without)} of {plural(len(runs), 'run')} did not record",
            "The threshold for these runs is",
        )
    return (
        f" {subject} the losses of at least eight test sequences, which older versions did not save. {threshold_of} therefore"
        " cruder: twice the noise of clean runs."
    )
