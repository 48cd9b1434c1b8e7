"""What all figures share: fonts, frames and colors."""

from collections.abc import Iterable, Sequence

import matplotlib
import numpy as np

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
CLEAN = "black"  # clean runs, in every figure
UNTRAINED = "0.6"  # gray, an untrained model


def colors(values: Iterable[float]) -> dict[float, tuple[float, ...]]:
    """A color for each value from a color-blind-safe scale, dark for small values and light for large ones."""
    ordered = sorted(set(values))
    scale = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.88, max(len(ordered), 2)))
    return {value: tuple(map(float, scale[place])) for place, value in enumerate(ordered)}


def start_colors(names: Sequence[str]) -> dict[str, str | tuple[float, ...]]:
    """A color for each start of fine-tuning: black for the first one, from scratch, then as in `colors`."""
    scale = colors(range(max(len(names) - 1, 1)))
    return {name: CLEAN if place == 0 else scale[place - 1] for place, name in enumerate(names)}
