"""Format axes of sizes, repeats and tokens, with tick labels that do not overlap.

The label of every logarithmic axis contains "log scale".
"""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator

from analysis.formatting import short_count

CHARACTERS = 36  # tick-label characters that fit below a panel of the standard width
ZERO = 3.0  # R = 0 is drawn this factor to the left of the smallest R above 0
FEWEST_TICKS = 3  # at 1, 2 and 5 times powers of ten on a logarithmic axis; if fewer fit, ticks are evenly spaced


def log_label(label: str) -> str:
    """The label of a logarithmic axis, for example "repeats R (log scale)" or "test loss (nats/token, log scale)"."""
    return f"{label[:-1]}, log scale)" if label.endswith(")") else f"{label} (log scale)"


def size_axis(axes: Axes, sizes: Iterable[float], label: str = "non-embedding parameters") -> None:
    """Make the horizontal axis a logarithmic axis of model sizes, with a tick at every size that fits."""
    _named_ticks(axes, sizes, label, short_count)


def repeats_axis(axes: Axes, repeats: Iterable[float]) -> None:
    """Make the horizontal axis a logarithmic axis of repeats, with a tick at every R that fits.

    The clean R is labeled "clean". It is 0 if that is among the values, and 1 otherwise; see `place_of_repeats`.
    """
    values = sorted(set(repeats))
    place, clean = place_of_repeats(values), 0 if 0 in values else 1
    names = {place(value): "clean" if value == clean else f"{value:g}" for value in values}
    _named_ticks(axes, names, "repeats R", names.__getitem__)


def place_of_repeats(repeats: Iterable[float]) -> Callable[[float], float]:
    """Where to draw a number of repeats on a logarithmic axis: R = 0 is drawn to the left of the smallest R above 0."""
    zero = min((value for value in repeats if value > 0), default=1.0) / ZERO
    return lambda value: value or zero


def tokens_axis(axes: Axes, label: str = "training tokens") -> None:
    """Make the horizontal axis a linear axis of training tokens."""
    axes.set_xlabel(label)
    axes.xaxis.set_major_formatter(lambda value, _: short_count(value) if value else "0")
    axes.xaxis.set_tick_params(labelbottom=True)  # in upper rows too, because the panel below may be empty


def apart(values: Iterable[float], name: Callable[[float], str] = "{:g}".format) -> list[float]:
    """Select the values whose names fit as tick labels of a logarithmic axis without overlap. The first value is always kept."""
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
    axes.set(xscale="log", xlabel=log_label(label))
    axes.set_xticks(ticks, [name(value) for value in ticks])
    axes.minorticks_off()
    axes.xaxis.set_tick_params(labelbottom=True)


class _Ticks(LogLocator):
    """Ticks at 1, 2 and 5 times powers of ten, or evenly spaced ones if the axis is too short for three of them."""

    def __init__(self) -> None:
        super().__init__(subs=(1.0, 2.0, 5.0))

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        ticks = np.asarray(super().tick_values(vmin, vmax))
        low, high = min(vmin, vmax), max(vmin, vmax)
        if ((low <= ticks) & (ticks <= high)).sum() < FEWEST_TICKS:
            return list(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]).tick_values(low, high))
        return list(ticks)


def log_axis(axes: Axes, label: str = "", name: Callable[[float], str] = "{:g}".format) -> None:
    """Make the vertical axis logarithmic. Without a label, the panel shares its row's label."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(_Ticks())
    axes.yaxis.set_major_formatter(lambda value, _: name(value))
    axes.yaxis.set_minor_locator(LogLocator(subs=()))
    if label:
        axes.set_ylabel(log_label(label))
