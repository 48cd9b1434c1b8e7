"""When induction heads form in a run, and whether they stay: a rule for the best head's prefix matching."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

TIMES_THE_NULL = 2.0
IN_A_ROW = 2  # evaluations that a head has to be there, or gone: one high or low score makes no difference


@dataclass(frozen=True)
class Formation:
    """Training tokens at which a head had formed, and at which it was gone again; NaN where that did not happen."""

    formed_at: float
    lost_at: float


def formation(curve: pd.DataFrame) -> Formation:
    """When one run's best head came to match prefixes, from its evaluations by step, the first of them untrained.

    A head is there at an evaluation whose score, less half its 95% interval, exceeds twice the reference: the untrained
    model's score, or the largest null of any evaluation where that is more; it is gone where the score, plus half its
    interval, is below that. It has formed at the first of two evaluations in a row at which it is there, and is lost at
    the first of two in a row after that at which it is gone. What wavers about that line changes nothing.
    """
    score, half = (curve[name].to_numpy(float) for name in ("prefix_matching", "prefix_matching_ci"))
    half = np.nan_to_num(half)
    line = TIMES_THE_NULL * max(score[0], curve.prefix_matching_null.to_numpy(float).max())
    tokens = np.append(curve.tokens.to_numpy(float), np.nan)
    formed = _first_in_a_row(score - half > line, 0)
    return Formation(float(tokens[formed]), float(tokens[_first_in_a_row(score + half < line, formed)]))


def _first_in_a_row(holds: npt.NDArray[np.bool_], start: int) -> int:
    """The first place from `start` on that begins IN_A_ROW places where something holds; one past the end without."""
    here = holds[start:]
    if len(here) < IN_A_ROW:
        return len(holds)
    begins = np.lib.stride_tricks.sliding_window_view(here, IN_A_ROW).all(axis=1)
    return start + int(begins.argmax()) if begins.any() else len(holds)
