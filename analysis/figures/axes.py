"""Axes of sizes, repeats and tokens, with ticks that do not overlap."""

import math
from collections.abc import Callable, Iterable

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from analysis.formatting import short_count

CHARACTERS = 36  # tick-label characters that fit below a panel of the standard width


def size_axis(axes: Axes, sizes: Iterable[float]) -> None:
    """A logarithmic axis of model sizes, with a tick at every size that fits."""
    _named_ticks(axes, sizes, "parameters without embeddings", short_count)


def repeats_axis(axes: Axes, repeats: Iterable[float]) -> None:
    """A logarithmic axis of repeats, with a tick at every R that fits; 1 is the clean run."""
    _named_ticks(axes, repeats, "repeats R", lambda value: "clean" if value == 1 else f"{value:g}")


def tokens_axis(axes: Axes) -> None:
    """A linear axis of training tokens."""
    axes.set_xlabel("training tokens")
    axes.xaxis.set_major_formatter(lambda value, _: short_count(value) if value else "0")
    axes.xaxis.set_tick_params(labelbottom=True)  # also in upper rows, because the panel below may be empty


def apart(values: Iterable[float], name: Callable[[float], str] = "{:g}".format) -> list[float]:
    """The values whose names do not overlap as tick labels of a logarithmic axis; the first one is always kept."""
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


def log_axis(axes: Axes, name: Callable[[float], str] = "{:g}".format) -> None:
    """A logarithmic vertical axis with several ticks per decade, because values often span less than one."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: name(value))
    axes.yaxis.set_minor_locator(LogLocator(subs=()))
