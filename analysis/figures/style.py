"""What all figures share: their form, their colours, error bars over seeds, and how they are saved."""

import io
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from analysis.formatting import short_count
from analysis.intervals import FEWEST_SEEDS, over_seeds
from data_prep.files import write_atomically

matplotlib.rcParams.update(
    {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "legend.frameon": False,
        "svg.hashsalt": "repeat-study",  # the same figure gives the same file
        "pdf.fonttype": 42,  # TrueType: journals refuse Type 3
    }
)
CLEAN = "black"
CHARACTERS = 36  # of ticks that a panel of the house's width holds below it
UNDATED: dict[str, dict[str, None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}


@dataclass(frozen=True)
class SavedPlot:
    """A saved figure as the page shows it; the matplotlib figure, which is large, is gone."""

    name: str
    title: str
    caption: str
    svg: bytes


@dataclass(frozen=True)
class Plot:
    """A figure with the numbers behind it."""

    name: str  # file stem
    title: str
    caption: str  # what is seen, and what the paper saw
    figure: Figure
    table: pd.DataFrame

    def save(self, folder: Path) -> SavedPlot:
        """Write figures/<name>.png, .svg and .pdf and tables/<name>.csv below `folder`. To be called once.

        The same figure gives the same bytes.
        """
        for part in ("figures", "tables"):
            (folder / part).mkdir(exist_ok=True)
        # Laid out and measured once: savefig would do so again for every format, also where the engine is "none".
        self.figure.draw_without_rendering()
        self.figure.set_layout_engine(None)
        box = self.figure.get_tightbbox().padded(0.1)
        saved = {form: io.BytesIO() for form in UNDATED}
        for form, file in saved.items():
            self.figure.savefig(file, format=form, dpi=150, bbox_inches=box, metadata=UNDATED[form])
        found = {form: file.getvalue() for form, file in saved.items()}
        found["svg"] = re.sub(rb"(\.\d\d)\d{2,}(?=[ \n\"])", rb"\1", found["svg"])  # a hundredth of a point is enough
        for form, content in found.items():
            write_atomically(folder / "figures" / f"{self.name}.{form}", content)
        write_atomically(folder / "tables" / f"{self.name}.csv", self.table.to_csv(index=False).encode())
        return SavedPlot(self.name, self.title, self.caption, found["svg"])


@dataclass(frozen=True)
class Missing:
    """A figure this study cannot give, and why."""

    name: str
    reason: str


def colours(values: Iterable[float]) -> dict[float, tuple[float, ...]]:
    """A colour for each value, in order, from a colour-blind-safe scale (dark to light: few to many)."""
    ordered = sorted(set(values))
    scale = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.88, max(len(ordered), 2)))
    return {value: tuple(map(float, scale[place])) for place, value in enumerate(ordered)}


def start_colours(names: Sequence[str]) -> dict[str, str | tuple[float, ...]]:
    """A colour for each kind of start of fine-tuning, in order: black what comes first, from scratch, then as `colours`."""
    scale = colours(range(max(len(names) - 1, 1)))
    return {name: CLEAN if place == 0 else scale[place - 1] for place, name in enumerate(names)}


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


def points(axes: Axes, x: str, data: pd.DataFrame, **style: object) -> None:
    """A line with markers and, where there are several seeds, error bars."""
    bars = [data["mean"] - data["low"], data["high"] - data["mean"]] if (data["seeds"] > 1).any() else None
    axes.errorbar(data[x], data["mean"], yerr=bars, marker="o", markersize=3.5, linewidth=1.3, capsize=2, **style)  # type: ignore[arg-type]


def size_axis(axes: Axes, sizes: Iterable[float]) -> None:
    """A logarithmic axis of model sizes with a tick at every size there is that has room."""
    _named_ticks(axes, sizes, "parameters without embeddings", short_count)


def repeats_axis(axes: Axes, repeats: Iterable[float]) -> None:
    """A logarithmic axis of repeats with a tick at every R there is that has room; 1 is the clean run."""
    _named_ticks(axes, repeats, "repeats R", lambda value: "clean" if value == 1 else f"{value:g}")


def tokens_axis(axes: Axes) -> None:
    """A linear axis of training tokens."""
    axes.set_xlabel("training tokens")
    axes.xaxis.set_major_formatter(lambda value, _: short_count(value) if value else "0")
    axes.xaxis.set_tick_params(labelbottom=True)  # also in upper rows, whose lower neighbour may be empty


def apart(values: Iterable[float], name: Callable[[float], str] = "{:g}".format) -> list[float]:
    """Those of `values` whose names do not run into one another as ticks of one logarithmic axis, the first of them kept."""
    ordered = sorted(set(values))
    span = math.log(ordered[-1] / ordered[0]) or 1.0
    kept = ordered[:1]
    for value in ordered[1:]:
        room = (len(name(kept[-1])) + len(name(value))) / 2 + 0.7
        if math.log(value / kept[-1]) / span * CHARACTERS >= room:
            kept.append(value)
    return kept


def _named_ticks(axes: Axes, values: Iterable[float], label: str, name: Callable[[float], str]) -> None:
    ticks = apart(values, name)
    axes.set(xscale="log", xlabel=label)
    axes.set_xticks(ticks, [name(value) for value in ticks])
    axes.minorticks_off()
    axes.xaxis.set_tick_params(labelbottom=True)


def interval_note(data: pd.DataFrame) -> str:
    """How a caption speaks of the intervals."""
    seeds = int(data["seeds"].max()) if len(data) else 0
    return f"Bars: 95% intervals over up to {seeds} seeds." if seeds > 1 else "One seed, so no error bars."
