"""What all figures share: their form, their colours, error bars over seeds, and how they are saved."""

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import t as student_t

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
    }
)
CLEAN = "black"


@dataclass(frozen=True)
class Drawing:
    """A figure with the numbers behind it."""

    name: str  # file stem
    title: str
    caption: str  # what is seen, and what the paper saw
    figure: Figure
    table: pd.DataFrame

    def save(self, folder: Path) -> bytes:
        """Write figures/<name>.png and .svg and tables/<name>.csv below `folder`; returns the SVG."""
        for part in ("figures", "tables"):
            (folder / part).mkdir(exist_ok=True)
        svg, png = io.BytesIO(), io.BytesIO()
        self.figure.savefig(svg, format="svg", bbox_inches="tight", metadata={"Date": None})
        self.figure.savefig(png, format="png", dpi=150, bbox_inches="tight")
        write_atomically(folder / "figures" / f"{self.name}.svg", svg.getvalue())
        write_atomically(folder / "figures" / f"{self.name}.png", png.getvalue())
        write_atomically(folder / "tables" / f"{self.name}.csv", self.table.to_csv(index=False).encode())
        return svg.getvalue()


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


def grid_of_axes(rows: int, columns: int) -> tuple[Figure, list[list[Axes]]]:
    """A figure of rows x columns panels with shared axes; drawn without pyplot, so nothing global is left behind."""
    figure = Figure(figsize=(1.6 + 3.1 * columns, 0.7 + 2.5 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    return figure, [list(row) for row in axes]


def over_seeds(table: pd.DataFrame, by: list[str], column: str) -> pd.DataFrame:
    """Mean of `column` over seeds, with a 95% t interval (`low`, `high`; equal to the mean for one seed) and `seeds`."""
    grouped = table.groupby(by)[column].agg(["mean", "std", "count"]).reset_index()
    half = (
        student_t.ppf(0.975, grouped["count"].clip(lower=2) - 1)
        * grouped["std"].fillna(0.0)
        / np.sqrt(grouped["count"])
    )
    return (
        grouped.assign(low=grouped["mean"] - half, high=grouped["mean"] + half)
        .rename(columns={"count": "seeds"})
        .drop(columns="std")
    )


def points(axes: Axes, x: str, data: pd.DataFrame, **style: object) -> None:
    """A line with markers and, where there are several seeds, error bars."""
    bars = [data["mean"] - data["low"], data["high"] - data["mean"]] if (data["seeds"] > 1).any() else None
    axes.errorbar(data[x], data["mean"], yerr=bars, marker="o", markersize=3.5, linewidth=1.3, capsize=2, **style)  # type: ignore[arg-type]


def size_axis(axes: Axes, sizes: Iterable[float]) -> None:
    """A logarithmic axis of model sizes with a tick at every size there is."""
    _named_ticks(axes, sizes, "parameters without embeddings", size_name)


def repeats_axis(axes: Axes, repeats: Iterable[float]) -> None:
    """A logarithmic axis of repeats with a tick at every R there is; 1 is the clean run."""
    _named_ticks(axes, repeats, "repeats R", lambda value: "clean" if value == 1 else f"{value:g}")


def tokens_axis(axes: Axes) -> None:
    """A linear axis of training tokens."""
    axes.set_xlabel("training tokens")
    axes.xaxis.set_major_formatter(lambda value, _: size_name(value) if value else "0")
    axes.xaxis.set_tick_params(labelbottom=True)  # also in upper rows, whose lower neighbour may be empty


def _named_ticks(axes: Axes, values: Iterable[float], label: str, name: Callable[[float], str]) -> None:
    ticks = sorted(set(values))
    axes.set(xscale="log", xlabel=label)
    axes.set_xticks(ticks, [name(value) for value in ticks])
    axes.minorticks_off()
    axes.xaxis.set_tick_params(labelbottom=True)


def interval_note(data: pd.DataFrame) -> str:
    """How a caption speaks of the intervals."""
    seeds = int(data["seeds"].max()) if len(data) else 0
    return f"Bars: 95% intervals over up to {seeds} seeds." if seeds > 1 else "One seed, so no error bars."


def size_name(parameters: float) -> str:
    """A parameter count for a legend: 24.6k, 1.57M, 805M."""
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if parameters >= unit:
            return f"{parameters / unit:.3g}{letter}"
    return f"{parameters:.0f}"
