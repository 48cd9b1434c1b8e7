"""Create grids of panels, select the runs for each panel, and plot one line per R."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from analysis.figures.style import CLEAN, Style, along
from analysis.formatting import percent, short_count, size_name
from analysis.intervals import FEWEST_SEEDS, over_seeds

# Test-loss curves start at this share of training. Earlier, the loss falls by several nats, and a scale that includes this
# fall would hide differences between runs, which are often only 0.01 nats.
DRAWN_FROM = 0.02


def rows_and_columns(panels: int) -> tuple[int, int]:
    """Arrange panels in as few rows as possible, with at most four columns and rows of equal length where possible."""
    rows = -(-panels // 4)
    return rows, -(-panels // rows)


def grid_of_axes(
    rows: int, columns: int, sharey: bool | Literal["row"] = True, height: float = 2.5
) -> tuple[Figure, list[list[Axes]]]:
    """A figure with rows x columns panels that share axes, each `height` inches high."""
    # pyplot would keep a global reference to the figure.
    width = 1.6 + 3.1 * columns + (0.8 if columns == 1 else 0.0)  # a legend takes more of the width of a narrow figure
    figure = Figure(figsize=(width, 0.7 + height * rows))
    figure.set_layout_engine("constrained", w_pad=0.08)  # inches; keeps the tick labels of neighboring panels apart
    axes = figure.subplots(rows, columns, sharex=True, sharey=sharey, squeeze=False)
    return figure, [list(row) for row in axes]


@dataclass(frozen=True)
class Arms:
    """The runs of one panel: the clean and repeated runs of a model at one fraction."""

    model: str
    fraction: float  # 0 if the study has no repeated runs
    runs: pd.DataFrame

    @property
    def title(self) -> str:
        """Model and fraction; one-layer models are marked as controls."""
        size = size_name(self.model, self.runs.parameters_non_embedding.iloc[0])
        control = ", one-layer control" if (self.runs.layers == 1).all() else ""
        return size + control + (f", f = {percent(self.fraction)}" if self.fraction else ", clean")


def arms(table: pd.DataFrame) -> list[Arms]:
    """Group a table of runs into panels, ordered by descending fraction and then by size.

    One-layer models without repeated runs come last, as controls.
    """
    never_repeated = table.groupby("model").repeats.transform("max") == 1
    control = never_repeated & (table.layers == 1)
    to_plot = table[(table.repeats > 1) | control] if (table.repeats > 1).any() else table
    keys = to_plot[["repeated_fraction", "parameters_non_embedding", "model"]].drop_duplicates()
    keys = keys.sort_values(list(keys), ascending=[False, True, True])
    return [
        Arms(key.model, key.repeated_fraction, table[(table.model == key.model) & same])
        for key in keys.itertuples(index=False)
        for same in [table.repeated_fraction.isin([0.0, key.repeated_fraction])]
    ]


MOST_POINTS = (
    100  # maximum per line over training, because panels are only 300 pixels wide and the page should stay small
)


def drawn(curves: pd.DataFrame, trained_tokens: float) -> pd.DataFrame:
    """Select the evaluations for test-loss curves, which omit the start of training (see DRAWN_FROM)."""
    return curves[curves.tokens >= DRAWN_FROM * trained_tokens]


def not_drawn_note(trained_tokens: float) -> str:
    """A caption sentence about the evaluations that `drawn` leaves out."""
    return (
        f"The first {DRAWN_FROM:.0%} of training (up to {short_count(DRAWN_FROM * trained_tokens)} tokens) is omitted because test loss"
        " falls so steeply there that differences between runs would be too small to see; the CSV file lists every evaluation."
    )


def over_repeats(axes: Axes, x: str, y: str, table: pd.DataFrame, repeats_styles: dict[float, Style]) -> None:
    """Plot one line per R with the mean of `y` over seeds.

    table: one row per run (`name`) and value of `x`. With five or more seeds, a 95% band surrounds the mean; with fewer,
    each seed is drawn as a thin line. The mean is plotted only where all seeds have a value. Lines have at most MOST_POINTS points.
    """
    means = over_seeds(table, ["repeats", x], y)
    seeds_per_arm = table.groupby("repeats").name.nunique()
    for repeats, line in means.groupby("repeats"):
        line = line[line.seeds == line.seeds.max()]
        style = CLEAN if repeats == 1 else repeats_styles[float(repeats)]
        seeds = seeds_per_arm[repeats]
        width = 1.6 if seeds > 1 else 1.1
        line = thinned(line)
        axes.plot(line[x], line["mean"], linewidth=width, zorder=3, **along(style, len(line)))
        if seeds >= FEWEST_SEEDS:
            _band(axes, line[[x, "low", "high"]].to_numpy(float), style["color"])
        elif seeds > 1:
            for _, run in table[table.repeats == repeats].groupby("name"):
                run = thinned(run)
                axes.plot(run[x], run[y], color=style["color"], linestyle=style["linestyle"], linewidth=0.6)


def _band(axes: Axes, edges: np.ndarray, color: str | tuple[float, ...]) -> None:
    """Shade a band, given rows of x, low and high, without updating the limits of the axes.

    `fill_between` would update the limits of all shared axes for every band. In a figure with 50 panels, this takes half the time.
    """
    edges = edges[~np.isnan(edges).any(axis=1)]
    there_and_back = np.concatenate([edges[:, :2], edges[::-1, ::2]])
    axes.add_collection(PolyCollection([there_and_back], color=color, alpha=0.15, linewidth=0), autolim=False)


def nulls(axes: Axes, x: str, y: str, table: pd.DataFrame, repeats_styles: dict[float, Style]) -> None:
    """Plot one dotted line per R with the mean of the null `y` over seeds; the arguments are those of `over_repeats`."""
    for repeats, line in over_seeds(table, ["repeats", x], y).groupby("repeats"):
        line = thinned(line)
        color = (CLEAN if repeats == 1 else repeats_styles[float(repeats)])["color"]
        axes.plot(line[x], line["mean"], ":", color=color, linewidth=1.1)


def thinned(line: pd.DataFrame) -> pd.DataFrame:
    """At most MOST_POINTS evenly spaced rows, including the first and the last."""
    if len(line) <= MOST_POINTS:
        return line
    return line.iloc[np.linspace(0, len(line) - 1, MOST_POINTS).round().astype(int)]


def limit(axes: Axes, low: float, high: float) -> None:
    """Set the limits of the vertical axis to `low` and `high` with a margin.

    Pass the range of the values, not of their intervals, which are several times wider if there are few seeds.
    """
    margin = 0.06 * (high - low) if high - low > 1e-9 else 0.1  # a range that is only rounding error does not count
    axes.set_ylim(low - margin, high + margin)


def seeds_note(table: pd.DataFrame) -> str:
    """A caption sentence about the lines from `over_repeats`."""
    seeds = int(table.groupby(["model", "repeated_fraction", "repeats"]).name.nunique().max())
    if seeds >= FEWEST_SEEDS:
        return f"Lines: means over up to {seeds} seeds; bands: 95% intervals, cut off at the edge of the panel."
    if seeds > 1:
        return f"Thick lines: means over up to {seeds} seeds; thin lines: individual seeds."
    return "There is only one seed, so there are no intervals."


def legend(figure: Figure, axes: list[list[Axes]], title: str = "") -> None:
    """Add a legend to the right of the figure that lists each label from its panels once."""
    entries: dict[str, Artist] = {}
    for row in axes:
        for ax in row:
            for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
                entries.setdefault(label, handle)
    figure.legend(entries.values(), entries.keys(), title=title or None, loc="outside right center")


def legend_of_repeats(
    figure: Figure, axes: Axes, repeats: pd.Series, repeats_styles: dict[float, Style], **extra: Artist
) -> None:
    """Add a legend to the right of the figure, with entries for every R in `repeats` and the `extra` handles by label."""
    handles: list[Artist] = [axes.plot([], [], label="clean", **CLEAN)[0]] if (repeats == 1).any() else []
    handles += [axes.plot([], [], label=f"R = {value:g}", **style)[0] for value, style in repeats_styles.items()]
    labels = [str(handle.get_label()) for handle in handles]
    figure.legend([*handles, *extra.values()], [*labels, *extra], loc="outside right center")
