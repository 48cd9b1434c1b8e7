"""Panels: grids of axes, the runs that one panel shows, and a line per number of repeats with its null."""

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
    """A figure of rows x columns panels with shared axes, each `height` inches high; drawn without pyplot, so nothing
    global is left behind."""
    figure = Figure(figsize=(1.6 + 3.1 * columns, 0.7 + height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=sharey, squeeze=False)
    return figure, [list(row) for row in axes]


@dataclass(frozen=True)
class Arms:
    """What one panel shows: the runs of a model at a fraction, the clean ones beside the repeated ones."""

    model: str
    fraction: float  # 0 where the study repeats nothing
    runs: pd.DataFrame

    @property
    def title(self) -> str:
        """Model, fraction, and what a model of one layer is there for."""
        control = " (one layer: a control)" if (self.runs.layers == 1).all() else ""
        return self.model + control + (f", f = {self.fraction:.0%}" if self.fraction else ", clean")


def arms(table: pd.DataFrame) -> list[Arms]:
    """The panels of a table of runs, largest fraction first, then by size; at the end models of one layer that are never
    repeated, as controls."""
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


MOST_OF_A_BAND = 80  # evaluations at which a band or a null is drawn: a panel is 300 pixels wide, a page has to be sent


def over_repeats(axes: Axes, x: str, y: str, table: pd.DataFrame, colour: dict[float, tuple[float, ...]]) -> None:
    """A line per R of the mean of `y` over seeds, the clean one black and dashed. table: a row per run (`name`) and `x`.

    Five seeds or more have a 95% band, fewer a thin line each. The mean is drawn where all of them have a value.
    """
    means = over_seeds(table, ["repeats", x], y)
    of_arms = table.groupby("repeats").name.nunique()
    for repeats, line in means.groupby("repeats"):
        line = line[line.seeds == line.seeds.max()]
        color = CLEAN if repeats == 1 else colour[float(repeats)]
        seeds = of_arms[repeats]
        width = 1.6 if seeds > 1 else 1.1
        axes.plot(line[x], line["mean"], "--" if repeats == 1 else "-", color=color, linewidth=width, zorder=3)
        if seeds >= FEWEST_SEEDS:
            _band(axes, thinned(line)[[x, "low", "high"]].to_numpy(float), color)
        elif seeds > 1:
            for _, run in table[table.repeats == repeats].groupby("name"):
                axes.plot(run[x], run[y], color=color, linewidth=0.6, alpha=0.7)


def _band(axes: Axes, edges: np.ndarray, color: str | tuple[float, ...]) -> None:
    """What `fill_between` draws, from rows of x, low and high; that sets the limits of all shared axes anew for every band,
    half the time of a figure of 50 panels. The mean has the same x, and `limit` sets y."""
    edges = edges[~np.isnan(edges).any(axis=1)]
    there_and_back = np.concatenate([edges[:, :2], edges[::-1, ::2]])
    axes.add_collection(PolyCollection([there_and_back], color=color, alpha=0.15, linewidth=0), autolim=False)


def nulls(axes: Axes, x: str, y: str, table: pd.DataFrame, colour: dict[float, tuple[float, ...]]) -> None:
    """A dotted line per R of the mean null `y` over seeds; same form as `over_repeats`."""
    for repeats, line in over_seeds(table, ["repeats", x], y).groupby("repeats"):
        line = thinned(line)
        axes.plot(line[x], line["mean"], ":", color=CLEAN if repeats == 1 else colour[float(repeats)], linewidth=1.1)


def thinned(line: pd.DataFrame) -> pd.DataFrame:
    """At most MOST_OF_A_BAND of the rows, evenly spaced, the first and the last among them."""
    if len(line) <= MOST_OF_A_BAND:
        return line
    return line.iloc[np.linspace(0, len(line) - 1, MOST_OF_A_BAND).round().astype(int)]


def limit(axes: Axes, low: float, high: float) -> None:
    """The vertical axis from `low` to `high` and a margin: that of the runs, for intervals of a few seeds are several
    times as wide as these lie apart."""
    margin = 0.06 * (high - low) or 0.1
    axes.set_ylim(low - margin, high + margin)


def seeds_note(table: pd.DataFrame) -> str:
    """How a caption speaks of what `over_repeats` draws."""
    seeds = int(table.groupby(["model", "repeated_fraction", "repeats"]).name.nunique().max())
    if seeds >= FEWEST_SEEDS:
        return f"Lines are means and bands 95% intervals over up to {seeds} seeds, cut at the edge of the panel."
    if seeds > 1:
        return f"Thick lines are means over up to {seeds} seeds, thin lines the seeds."
    return "One seed, so no intervals."


def legend_of_repeats(figure: Figure, axes: Axes, colour: dict[float, tuple[float, ...]], **others: Artist) -> None:
    """Beside the figure: the clean line, a line per R, and `others` by label."""
    handles: list[Artist] = [axes.plot([], [], color=CLEAN, linestyle="--", label="clean")[0]]
    handles += [axes.plot([], [], color=colour[value], label=f"R = {value:g}")[0] for value in sorted(colour)]
    handles += list(others.values())
    labels = ["clean", *(f"R = {value:g}" for value in sorted(colour)), *others]
    figure.legend(handles, labels, loc="outside right center")
