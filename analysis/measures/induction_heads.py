"""Detect when induction heads form in a run and when they are lost, from the prefix matching of the best head."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from repeat_study.records.metrics import BY_KEY

SCORE = BY_KEY["prefix_matching"]
TIMES_THE_NULL = 2.0
IN_A_ROW = 2  # evaluations; a single high or low score does not count


@dataclass(frozen=True)
class Formation:
    """Training tokens at which a head forms and at which it is lost again; NaN if this does not happen."""

    formed_at: float
    lost_at: float


def formation(curve: pd.DataFrame) -> Formation:
    """Find when the best head of a run forms and when it is lost.

    curve: the evaluations of the run in time order, starting with the untrained model.

    The threshold is the larger of twice the untrained model's score and twice the largest null. Let h be half the width of the
    score's 95% interval. A head is present if score - h exceeds the threshold, and absent if score + h is below it. The head forms at
    the first of two evaluations in a row at which it is present. Later, it is lost at the first of two evaluations in a row at which
    it is absent.
    """
    score, half = (curve[name].to_numpy(float) for name in (SCORE.key, SCORE.interval_key))
    half = np.nan_to_num(half)
    threshold = TIMES_THE_NULL * max(score[0], curve[SCORE.null_key].to_numpy(float).max())
    tokens = np.append(curve.tokens.to_numpy(float), np.nan)
    formed = _first_in_a_row(score - half > threshold, 0)
    return Formation(float(tokens[formed]), float(tokens[_first_in_a_row(score + half < threshold, formed)]))


def _first_in_a_row(holds: npt.NDArray[np.bool_], start: int) -> int:
    """The first index, not before `start`, at which a series of IN_A_ROW true values begins; len(holds) if there is none."""
    later = holds[start:]
    if len(later) < IN_A_ROW:
        return len(holds)
    begins = np.lib.stride_tricks.sliding_window_view(later, IN_A_ROW).all(axis=1)
    return start + int(begins.argmax()) if begins.any() else len(holds)
