"""Choose runs to leave out of a fit: one model size or one range of R at a time."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.formatting import span
from analysis.laws.points import Points

SIZE, RANGE, LABORATORY = "size", "range of R", "laboratory"
KINDS = (SIZE, RANGE)
FEWEST_SIZES = 3
FEWEST_REPEATS = 3  # distinct R above 1
OF_NEW_SIZES = {SIZE, LABORATORY}  # kinds that predict sizes without runs in the fit
THIRDS = ("low", "middle", "high")


@dataclass(frozen=True)
class Fold:
    """The runs of one size or of one range of R.

    kind: one of KINDS. name: for readers, such as "N = 98,304" or "R = 4 to 16 (low)". dropped: a mask of the runs left out of the fit,
    which includes the clean runs of a size. test: a mask of the repeated runs to predict.
    """

    kind: str
    name: str
    dropped: npt.NDArray[np.bool_]
    test: npt.NDArray[Any]


def folds(points: Points, most_sizes: int | None = None) -> list[Fold]:
    """Every size, if there are at least FEWEST_SIZES with repeated runs, and every third of the values of R.

    most_sizes: leave out neighboring sizes together, so that there are at most this many folds of sizes.
    """
    repeated = ~points.clean
    chosen = []
    sizes = np.unique(points.params[repeated])
    if len(sizes) >= FEWEST_SIZES:
        for group in np.array_split(sizes, min(len(sizes), most_sizes or len(sizes))):
            of_size = np.isin(points.params, group)
            chosen.append(Fold(SIZE, f"N = {span(group, '{:,.0f}'.format)}", of_size, of_size & repeated))
    values = np.unique(points.repeats[repeated])
    if len(values) >= FEWEST_REPEATS:
        for third, within in zip(THIRDS, np.array_split(values, 3), strict=True):
            test = np.isin(points.repeats, within) & repeated
            chosen.append(Fold(RANGE, f"R = {span(within, '{:,.4g}'.format)} ({third})", test, test))
    return chosen
