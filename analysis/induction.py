"""When induction heads form in a run, and whether they stay: a rule for the best head's prefix matching."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

TIMES_THE_NULL = 2.0


@dataclass(frozen=True)
class Formation:
    """Training tokens at which heads had formed for good, and at which formed ones were gone; NaN where they never were."""

    formed_at: float
    lost_at: float


def formation(curve: pd.DataFrame) -> Formation:
    """Where one run's best head matches prefixes, from its evaluations by step, the first of them untrained.

    A head is there at an evaluation whose score, less half its 95% interval, exceeds twice the reference: the untrained
    model's score, or the largest null of any evaluation where that is more. Heads have formed at the first evaluation
    from which on one is there at all later ones, so one high score on the way makes no head. They are lost where one
    was there at two evaluations in a row and the last score, plus half its interval, is below twice the reference.
    What wavers about that line is neither.
    """
    score, half = (curve[name].to_numpy(float) for name in ("prefix_matching", "prefix_matching_ci"))
    half = np.nan_to_num(half)
    line = TIMES_THE_NULL * max(score[0], curve.prefix_matching_null.to_numpy(float).max())
    there = score - half > line
    stays = np.logical_and.accumulate(there[::-1])[::-1]  # from here on to the end
    tokens = curve.tokens.to_numpy(float)
    if stays.any():
        return Formation(float(tokens[stays.argmax()]), float("nan"))
    if (there[1:] & there[:-1]).any() and score[-1] + half[-1] < line:
        return Formation(float("nan"), float(tokens[there.nonzero()[0].max() + 1]))
    return Formation(float("nan"), float("nan"))
