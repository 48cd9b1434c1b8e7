"""When induction heads form in a run, and whether they are lost again, by the best head's prefix matching."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from repeat_study.records.metrics import BY_KEY

SCORE = BY_KEY["prefix_matching"]
TIMES_THE_NULL = 2.0
IN_A_ROW = 2  # evaluations: a single high or low score does not count


@dataclass(frozen=True)
class Formation:
    """Training tokens at which a head had formed, and at which it was lost again; NaN if that did not happen."""

    formed_at: float
    lost_at: float


def formation(curve: pd.DataFrame) -> Formation:
    """Formation and loss of a run's best head, from its evaluations in time order, of which the first is untrained.

    The threshold is twice the untrained model's score or twice the largest null, whichever is larger. A head is present if its
    score minus half its 95% interval exceeds the threshold, and absent if its score plus half its interval is below it. It has
    formed at the first of two evaluations in a row at which it is present, and is lost at the first of two later ones in a row
    at which it is absent.
    """
    score, half = (curve[name].to_numpy(float) for name in (SCORE.key, SCORE.interval_key))
    half = np.nan_to_num(half)
    threshold = TIMES_THE_NULL * max(score[0], curve[SCORE.null_key].to_numpy(float).max())
    tokens = np.append(curve.tokens.to_numpy(float), np.nan)
    formed = _first_in_a_row(score - half > threshold, 0)
    return Formation(float(tokens[formed]), float(tokens[_first_in_a_row(score + half < threshold, formed)]))


def _first_in_a_row(holds: npt.NDArray[np.bool_], start: int) -> int:
    """The first index from `start` on at which `holds` is true IN_A_ROW times in a row; len(holds) if there is none."""
    later = holds[start:]
    if len(later) < IN_A_ROW:
        return len(holds)
    begins = np.lib.stride_tricks.sliding_window_view(later, IN_A_ROW).all(axis=1)
    return start + int(begins.argmax()) if begins.any() else len(holds)
