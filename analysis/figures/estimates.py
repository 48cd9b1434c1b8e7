"""How figures show numbers with an interval, or bounds, and how captions describe them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.intervals import FEWEST_SEEDS, UNKNOWN, Bound, Estimate

TRIANGLE = {Bound.AT_MOST: "v", Bound.AT_LEAST: "^"}
BOUNDS = "White triangles are upper (▽) or lower (△) bounds."


def estimates(
    axes: Axes,
    x: Sequence[float],
    values: Sequence[Estimate | None],
    color: object,
    marker: str = "o",
    join: bool = True,
    label: str = "",
) -> None:
    """Points with their intervals, and white triangles for bounds; lines do not cross bounds."""
    shown = [(place, value) for place, value in zip(x, values, strict=True) if value]
    known = [(place, value if not value.bound else UNKNOWN) for place, value in shown]
    style = {
        "color": color,
        "marker": marker,
        "markersize": 4.5,
        "linewidth": 1.3,
        "capsize": 2,
        "label": label or None,
    }
    axes.errorbar(
        [place for place, _ in known],
        [value.value for _, value in known],
        yerr=np.array([[value.value - value.low, value.high - value.value] for _, value in known])
        .reshape(-1, 2)
        .T.clip(0),
        linestyle="-" if join else "none",
        **style,  # type: ignore[arg-type]
    )
    for place, value in shown:
        if value.bound:
            axes.plot(place, value.value, TRIANGLE[value.bound], color=color, markerfacecolor="white", markersize=6)


def bounded_line(axes: Axes, x: str, line: pd.DataFrame, place: int, lines: int, color: object, label: str) -> None:
    """A line that stops at bounds, which are white triangles. The triangles of several lines would coincide, so those of line number
    `place` of `lines` are moved sideways a little."""
    known = line.assign(mean=line["mean"].where(line.bound == Bound.EXACT))
    points(axes, x, known, color=color, label=label)
    for bound, marker in TRIANGLE.items():
        bounds = line[line.bound == bound]
        aside = bounds[x] * 1.06 ** (place - lines // 2)
        axes.plot(aside, bounds["mean"], marker, color=color, markerfacecolor="white", markersize=6)


def peak_interval_note(fewest: int, most: int) -> str:
    """What a caption says about the intervals of peaks, which need two seeds at every R."""
    if most < 2:
        return "One seed, so no intervals."
    some = "" if fewest > 1 else " (none if an R has one seed)"
    return (
        f"Bars: 95% bootstrap intervals over {most} seeds{some}, which are too few for precise ones."
        if most < 5
        else (f"Bars: 95% bootstrap intervals over {most} seeds{some}.")
    )


def range_note(data: pd.DataFrame) -> str:
    """What a caption says about the bars of `interval_or_range`."""
    seeds = int(data.seeds.max())
    if seeds >= FEWEST_SEEDS:
        few = ", or their range for fewer than five" if data.seeds.min() < FEWEST_SEEDS else ""
        return f"Bars: 95% intervals over up to {seeds} seeds{few}."
    return f"Bars: range of up to {seeds} seeds." if seeds > 1 else "One seed, so no error bars."


def points(axes: Axes, x: str, data: pd.DataFrame, **style: object) -> None:
    """A line with markers, and error bars if there are several seeds."""
    bars = [data["mean"] - data["low"], data["high"] - data["mean"]] if (data["seeds"] > 1).any() else None
    axes.errorbar(data[x], data["mean"], yerr=bars, marker="o", markersize=3.5, linewidth=1.3, capsize=2, **style)  # type: ignore[arg-type]


def interval_note(data: pd.DataFrame) -> str:
    """What a caption says about the bars of `over_seeds`."""
    seeds = int(data["seeds"].max()) if len(data) else 0
    return f"Bars: 95% intervals over up to {seeds} seeds." if seeds > 1 else "One seed, so no error bars."
