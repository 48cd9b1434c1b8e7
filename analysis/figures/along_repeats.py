"""Plot a metric against R with its null or its clean run, as one line per model size."""

from collections.abc import Callable

import pandas as pd
from matplotlib.axes import Axes

from analysis.figures.style import Style
from analysis.intervals import interval_or_range, over_seeds
from repeat_study.records.metric import Metric


def line_along_repeats(
    ax: Axes,
    runs: pd.DataFrame,
    measure: Metric,
    by: list[str],
    style: Style,
    label: str,
    clean: float = 1,
    place: Callable[[float], float] = lambda repeats: repeats,
) -> pd.DataFrame:
    """Plot one size's line. Returns its means over seeds with the ends of their error bars.

    runs: one row per run of this size, with the columns in `by`, `repeats` and the metric's keys. by: columns that are equal in
    all rows and kept in the result. clean: R of the clean runs. place: where each R is drawn on the horizontal axis. The dotted
    line is the metric's null or, if it has none, the clean run.
    """
    means = interval_or_range(runs, [*by, "repeats"], measure.key)
    bars = [means["mean"] - means.low, means.high - means["mean"]]
    look = style | {"markersize": 4, "linewidth": 1.3, "capsize": 2, "label": label}
    ax.errorbar(means.repeats.map(place), means["mean"], yerr=bars if means.seeds.max() > 1 else None, **look)
    if measure.null_key:
        null = over_seeds(runs, ["repeats"], measure.null_key)
        ax.plot(null.repeats.map(place), null["mean"], ":", color=style["color"], linewidth=1)
    else:
        for value in means[means.repeats == clean]["mean"]:
            ax.axhline(value, linestyle=":", color=style["color"], linewidth=1)
    return means
