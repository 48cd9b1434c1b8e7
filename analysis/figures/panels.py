"""Panels: a grid of axes, the runs that one panel shows, and a line per number of repeats with its null."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from analysis.figures.style import CLEAN
from analysis.intervals import FEWEST_SEEDS, over_seeds


def grid_of_axes(
    rows: int, columns: int, sharey: bool | Literal["row"] = True, height: float = 2.5
) -> tuple[Figure, list[list[Axes]]]:
    """A figure of rows x columns panels with shared axes, each `height` inches high. It does not use pyplot and its global
    state."""
    figure = Figure(figsize=(1.6 + 3.1 * columns, 0.7 + height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=sharey, squeeze=False)
    return figure, [list(row) for row in axes]


@dataclass(frozen=True)
class Arms:
    """What one panel shows: the clean and repeated runs of a model at one fraction."""

    model: str
    fraction: float  # 0 if the study has no repeated runs
    runs: pd.DataFrame

    @property
    def title(self) -> str:
        """Model and fraction; models of one layer are marked as controls."""
        control = " (one layer: a control)" if (self.runs.layers == 1).all() else ""
        return self.model + control + (f", f = {self.fraction:.0%}" if self.fraction else ", clean")


def arms(table: pd.DataFrame) -> list[Arms]:
    """The panels of a table of runs, largest fraction first, then by size; one-layer models without repeated runs come last, as
    controls."""
    never_repeated = table.groupby("model").repeats.transform("max") == 1
    control = never_repeated & (table.layers == 1)
    shown = table[(table.repeats > 1) | control] if (table.repeats > 1).any() else table
    keys = shown[["repeated_fraction", "parameters_non_embedding", "model"]].drop_duplicates()
    keys = keys.sort_values(list(keys), ascending=[False, True, True])
    return [
        Arms(key.model, key.repeated_fraction, table[(table.model == key.model) & same])
        for key in keys.itertuples(index=False)
        for same in [table.repeated_fraction.isin([0.0, key.repeated_fraction])]
    ]


MOST_POINTS = 80  # of a band or a null: panels are 300 pixels wide, and the page should stay small


def over_repeats(axes: Axes, x: str, y: str, table: pd.DataFrame, palette: dict[float, tuple[float, ...]]) -> None:
    """A line per R with the mean of `y` over seeds; the clean one is black and dashed.

    table: a row per run (`name`) and `x`. From five seeds on there is a 95% band; fewer seeds are thin lines. The mean is shown
    where all seeds have a value.
    """
    means = over_seeds(table, ["repeats", x], y)
    seeds_per_arm = table.groupby("repeats").name.nunique()
    for repeats, line in means.groupby("repeats"):
        line = line[line.seeds == line.seeds.max()]
        color = CLEAN if repeats == 1 else palette[float(repeats)]
        seeds = seeds_per_arm[repeats]
        width = 1.6 if seeds > 1 else 1.1
        axes.plot(line[x], line["mean"], "--" if repeats == 1 else "-", color=color, linewidth=width, zorder=3)
        if seeds >= FEWEST_SEEDS:
            _band(axes, thinned(line)[[x, "low", "high"]].to_numpy(float), color)
        elif seeds > 1:
            for _, run in table[table.repeats == repeats].groupby("name"):
                axes.plot(run[x], run[y], color=color, linewidth=0.6, alpha=0.7)


def _band(axes: Axes, edges: np.ndarray, color: str | tuple[float, ...]) -> None:
    """Like `fill_between`, for rows of x, low and high. `fill_between` updates the limits of all shared axes for every band, which
    takes half the time of a figure with 50 panels. Here the mean sets the limits of x, and `limit` those of y."""
    edges = edges[~np.isnan(edges).any(axis=1)]
    there_and_back = np.concatenate([edges[:, :2], edges[::-1, ::2]])
    axes.add_collection(PolyCollection([there_and_back], color=color, alpha=0.15, linewidth=0), autolim=False)


def nulls(axes: Axes, x: str, y: str, table: pd.DataFrame, palette: dict[float, tuple[float, ...]]) -> None:
    """A dotted line per R with the mean null `y` over seeds; arguments as in `over_repeats`."""
    for repeats, line in over_seeds(table, ["repeats", x], y).groupby("repeats"):
        line = thinned(line)
        axes.plot(line[x], line["mean"], ":", color=CLEAN if repeats == 1 else palette[float(repeats)], linewidth=1.1)


def thinned(line: pd.DataFrame) -> pd.DataFrame:
    """At most MOST_POINTS evenly spaced rows, including the first and the last."""
    if len(line) <= MOST_POINTS:
        return line
    return line.iloc[np.linspace(0, len(line) - 1, MOST_POINTS).round().astype(int)]


def limit(axes: Axes, low: float, high: float) -> None:
    """Set the vertical axis to `low` and `high` with a margin. Pass the range of the runs: intervals over few seeds are several times
    wider."""
    margin = 0.06 * (high - low) or 0.1
    axes.set_ylim(low - margin, high + margin)


def seeds_note(table: pd.DataFrame) -> str:
    """What a caption says about the lines of `over_repeats`."""
    seeds = int(table.groupby(["model", "repeated_fraction", "repeats"]).name.nunique().max())
    if seeds >= FEWEST_SEEDS:
        return f"Lines: means over up to {seeds} seeds; bands: 95% intervals, cut at the edge of the panel."
    if seeds > 1:
        return f"Thick lines: means over up to {seeds} seeds; thin lines: single seeds."
    return "One seed, so no intervals."


def legend_of_repeats(figure: Figure, axes: Axes, palette: dict[float, tuple[float, ...]], **extra: Artist) -> None:
    """A legend to the right of the figure: the clean line, a line per R, and `others` by label."""
    handles: list[Artist] = [axes.plot([], [], color=CLEAN, linestyle="--", label="clean")[0]]
    handles += [axes.plot([], [], color=palette[value], label=f"R = {value:g}")[0] for value in sorted(palette)]
    handles += list(extra.values())
    labels = ["clean", *(f"R = {value:g}" for value in sorted(palette)), *extra]
    figure.legend(handles, labels, loc="outside right center")
