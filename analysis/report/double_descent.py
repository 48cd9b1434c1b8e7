"""Sentences about double descent: in how many runs, how large it is, and what told it from chance."""

import pandas as pd

from analysis.formatting import bracketed, plural, three_digits
from analysis.measures.degradation import Judge

CANNOT_BE_JUDGED = "cannot be judged, because no run recorded the losses of its test sequences and no clean run shows how large noise is"
BEYOND = {
    Judge.SEQUENCES: "more than chance allows (5%, paired over test sequences) and more than twice the largest rise of a clean run",
    Judge.CLEAN: "more than twice the noise of clean runs",
}


def with_double_descent(runs: pd.DataFrame) -> pd.DataFrame:
    """The rows of `degradation.summary` whose test loss rises and falls again."""
    return runs[runs.double_descent == True]  # noqa: E712  (None if nothing can judge them)


def clearest_case(descents: pd.DataFrame) -> pd.Series:
    """The run whose smaller of rise and recovery is the largest."""
    return descents.loc[descents[["rise", "won_back"]].min(axis=1).idxmax()]


def threshold(runs: pd.DataFrame) -> str:
    """What a rise and a recovery must exceed, to follow "by"."""
    judges = [judge for judge in BEYOND if (runs.rise_judged_by == judge).any()]
    return "; or, without recorded test sequences, ".join(BEYOND[judge] for judge in judges)


def size_of(run: pd.Series) -> str:
    """The rise of a run in nats with its paired interval, in standard errors, and as a share of what clean training gains."""
    interval = bracketed(run.rise_low, run.rise_high, three_digits)
    relative = []
    if pd.notna(run.rise_in_standard_errors):
        relative.append(f"{three_digits(run.rise_in_standard_errors)} standard errors")
    if pd.notna(run.rise_share):
        relative.append(f"{run.rise_share:.1%} of the fall of test loss in clean runs")
    return f"{three_digits(run.rise)} nats{interval}" + (f" ({', '.join(relative)})" if relative else "")


def recovery_of(run: pd.Series) -> str:
    """What a run wins back in nats, with its paired interval."""
    return three_digits(run.won_back) + bracketed(run.won_back_low, run.won_back_high, three_digits)


def judged_otherwise(runs: pd.DataFrame) -> str:
    """A sentence about the runs that test sequences cannot judge, with a space before it; empty if there are none."""
    without = runs[runs.rise_judged_by != Judge.SEQUENCES]
    if without.empty:
        return ""
    every = "No run" if len(without) == len(runs) else f"{plural(len(without), 'run')} of {len(runs)}"
    verb = "recorded" if len(without) == len(runs) else "did not record"
    return (
        f" {every} {verb} the losses of at least eight test sequences (older versions did not save them), so the threshold is"
        " cruder: twice the noise of clean runs."
    )
