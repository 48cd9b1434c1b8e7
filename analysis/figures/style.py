"""Fonts, frames, colors, markers and line styles that all figures share."""

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap

matplotlib.rcParams.update(
    {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "legend.frameon": False,
    }
)
UNTRAINED = "0.55"  # gray, for untrained models

# From dark to light, so the order survives in grayscale. Every color has a contrast of at least 3:1 on white (WCAG 2.2,
# criterion 1.4.11), and eight colors stay distinct with red-green color blindness.
SCALE = LinearSegmentedColormap.from_list("dark to light", ["#2b1a6b", "#2456c8", "#0b8f8a", "#8a9a10"])
# The same hues for a dark background, where every color has a contrast of at least 4.5:1 on DARK_PAGE.
DARK_SCALE = LinearSegmentedColormap.from_list("dark to light, on black", ["#9b8cff", "#6ba4ff", "#2fc9bf", "#dfe86a"])
DARK_PAGE = "#14161a"
# Triangles are reserved for bounds, dots for nulls and short dashes for clean runs. Seven markers and four line styles give 28 pairs.
MARKERS = ("o", "s", "D", "X", "P", "*", "p")
LINE_STYLES = ("-", (0, (8, 1.5)), "-.", (0, (6, 1, 1, 1, 1, 1)))
MARKS = 6  # number of markers along a curve with many points

Style = dict[str, Any]  # color, marker and line style, as keyword arguments of matplotlib's `plot`
CLEAN: Style = {"color": "black", "linestyle": "--"}  # clean runs, in every figure


def colors(values: Iterable[float], scale: LinearSegmentedColormap = SCALE) -> dict[float, tuple[float, ...]]:
    """A color for each value, dark for small values and light for large ones."""
    ordered = sorted(set(values))
    shades = scale(np.linspace(0.0, 1.0, max(len(ordered), 2)))
    return {value: tuple(map(float, shades[index])) for index, value in enumerate(ordered)}


def styles(values: Iterable[float]) -> dict[float, Style]:
    """Color, marker and line style for each value, so that no two lines differ in color alone."""
    return {
        value: {
            "color": color,
            "marker": MARKERS[index % len(MARKERS)],
            "linestyle": LINE_STYLES[index % len(LINE_STYLES)],
        }
        for index, (value, color) in enumerate(colors(values).items())
    }


def start_styles(names: Sequence[str]) -> dict[str, Style]:
    """A style for each starting point of fine-tuning. The first one, training from scratch, has the style of clean runs."""
    others = styles(range(max(len(names) - 1, 1)))
    return {name: CLEAN if index == 0 else others[index - 1] for index, name in enumerate(names)}


def along(style: Style, points: int) -> Style:
    """The same style for a curve of many points, with about MARKS markers instead of one at every point."""
    if "marker" not in style:
        return style
    # Each style starts its markers at a different point, so the markers of coinciding curves do not cover each other.
    step = max(1, points // MARKS)
    first = MARKERS.index(style["marker"]) * step // len(MARKERS)
    return style | {"markersize": 4, "markevery": (first, step)}
