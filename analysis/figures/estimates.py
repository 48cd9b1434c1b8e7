"""Plot points with intervals and bounds, and write the caption sentences that explain them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.figures.style import Style
from analysis.intervals import FEWEST_SEEDS, UNKNOWN, Bound, Estimate

TRIANGLE = {Bound.AT_MOST: "v", Bound.AT_LEAST: "^"}
BOUNDS = "Open triangles are upper (▽) or lower (△) bounds."
ONE_SEED = "There is only one seed, so there are no error bars."


def estimates(
    axes: Axes,
    x: Sequence[float],
    values: Sequence[Estimate | None],
    color: object,
    marker: str = "o",
    join: bool = True,
    label: str = "",
) -> None:
    """Plot points with their intervals, and bounds as open triangles; lines are interrupted at bounds."""
    present = [(at, value) for at, value in zip(x, values, strict=True) if value]
    exact = [(at, value if not value.bound else UNKNOWN) for at, value in present]
    style = {
        "color": color,
        "marker": marker,
        "markersize": 4.5,
        "linewidth": 1.3,
        "capsize": 2,
        "label": label or None,
    }
    axes.errorbar(
        [at for at, _ in exact],
        [value.value for _, value in exact],
        yerr=np.array([[value.value - value.low, value.high - value.value] for _, value in exact])
        .reshape(-1, 2)
        .T.clip(0),
        linestyle="-" if join else "none",
        **style,  # type: ignore[arg-type]
    )
    for at, value in present:
        if value.bound:
            axes.plot(at, value.value, TRIANGLE[value.bound], color=color, markerfacecolor="white", markersize=6)


def bounded_line(axes: Axes, x: str, line: pd.DataFrame, number: int, lines: int, style: Style, label: str) -> None:
    """Plot a line that is interrupted at bounds, which are drawn as open triangles.

    number, lines: the index of this line and the number of lines in the panel. Bounds of different lines often coincide, so the
    triangles of each line are shifted sideways a little.
    """
    exact = line.assign(mean=line["mean"].where(line.bound == Bound.EXACT))
    points(axes, x, exact, label=label, **style)
    for bound, marker in TRIANGLE.items():
        bounds = line[line.bound == bound]
        aside = bounds[x] * 1.06 ** (number - lines // 2)
        axes.plot(aside, bounds["mean"], marker, color=style["color"], markerfacecolor="white", markersize=6)


def peak_interval_note(fewest: int, most: int) -> str:
    """A caption sentence about the intervals of peaks. These intervals require at least two seeds at every R.

    fewest, most: the smallest and the largest number of seeds behind a peak.
    """
    if most < 2:
        return "There is only one seed, so there are no intervals."
    exception = "" if fewest > 1 else "; peaks with only one seed at some R have none"
    imprecise = f"; with fewer than {FEWEST_SEEDS} seeds, they are imprecise" if most < FEWEST_SEEDS else ""
    return (
        f"Bars: 95% bootstrap intervals over {most} seeds{exception}{imprecise}. The interval of a worst R that was tested extends halfway"
        " to the neighboring values."
    )


def range_note(data: pd.DataFrame) -> str:
    """A caption sentence about the bars from `interval_or_range`."""
    seeds = int(data.seeds.max())
    if seeds >= FEWEST_SEEDS:
        few = (
            f", or the range over seeds if there are fewer than {FEWEST_SEEDS}"
            if data.seeds.min() < FEWEST_SEEDS
            else ""
        )
        return f"Bars: 95% intervals over up to {seeds} seeds{few}."
    return f"Bars: range over up to {seeds} seeds." if seeds > 1 else ONE_SEED


def points(axes: Axes, x: str, data: pd.DataFrame, **style: object) -> None:
    """Plot a line with markers, and error bars if there are several seeds."""
    bars = [data["mean"] - data["low"], data["high"] - data["mean"]] if (data["seeds"] > 1).any() else None
    style = {"marker": "o", "markersize": 4.5, "linewidth": 1.3, "capsize": 2} | style
    axes.errorbar(data[x], data["mean"], yerr=bars, **style)  # type: ignore[arg-type]


def interval_note(data: pd.DataFrame) -> str:
    """A caption sentence about the bars from `over_seeds`."""
    seeds = int(data["seeds"].max()) if len(data) else 0
    return f"Bars: 95% intervals over up to {seeds} seeds." if seeds > 1 else ONE_SEED
