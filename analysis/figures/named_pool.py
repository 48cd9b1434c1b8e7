"""How a named pool changes test loss in its own domain and in general, as a function of R."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.figures.axes import ZERO, log_label
from analysis.figures.estimates import interval_note, points
from analysis.figures.panels import grid_of_axes
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import CLEAN, Style, styles
from analysis.formatting import size_name
from analysis.measures.named_pool import DOMAIN, GENERAL, MEMORIZED, PANEL, named_pool
from analysis.runs import Runs

NAME = "named_pool"
LABELS = {GENERAL: "general test set", DOMAIN: "pool's domain,\nunseen text"}
FRESH_LABELS = {GENERAL: "general, fresh", DOMAIN: "domain, fresh"}
ROOM = 9.0  # the axis extends beyond the largest R by this factor, to make room for the labels of the lines
LINE_HEIGHT = 0.085  # distance between labels, as a share of the panel's height


def plot(runs: Runs) -> Plot | Missing:
    """Plot one column of panels per model and design of the pool: changes in test loss above, memorization below."""
    effect = named_pool(runs)
    if effect is None:
        return Missing(
            NAME, "needs a finished run with a named pool and a finished control with R = 0 and the same seed"
        )
    keys = [*PANEL, "setting"]
    panels = [
        (key, arms)
        for key, arms in effect.arms.sort_values(["parameters_non_embedding", *keys]).groupby(keys, sort=False)
        if (arms.repeats > 1).any() or not (effect.arms.repeats > 1).any()
    ]
    figure, axes = grid_of_axes(2, len(panels), sharey="row", height=3.0)
    figure.set_size_inches(1.2 + 4.6 * len(panels), 6.6)
    looks: dict[str, Style] = dict(zip((GENERAL, DOMAIN, MEMORIZED), styles(range(3)).values(), strict=True))
    for column, (key, arms) in enumerate(panels):
        upper, lower = axes[0][column], axes[1][column]
        model, size, design, setting = key
        fresh = effect.fresh
        if len(fresh):
            fresh = fresh[(fresh[keys] == list(key)).all(axis=1)]
        ends: list[tuple[float, str, Any]] = []
        for measure, label in LABELS.items():
            line = arms[arms.measure == measure].sort_values("repeats")
            points(upper, "repeats", line, **looks[measure])
            ends.append((float(line["mean"].iloc[-1]), label, looks[measure]["color"]))
            if len(fresh):
                control = fresh[fresh.measure == measure].sort_values("repeats")
                dashed = looks[measure] | {"linestyle": ":", "markerfacecolor": "white"}
                points(upper, "repeats", control, **dashed)
                ends.append((float(control["mean"].iloc[-1]), FRESH_LABELS[measure], looks[measure]["color"]))
        line = arms[arms.measure == MEMORIZED].sort_values("repeats")
        points(lower, "repeats", line, **looks[MEMORIZED])
        tried = sorted(arms.repeats.unique())
        for ax in (upper, lower):
            _axis_with_zero(ax, tried)
        _label_ends(upper, tried[-1], ends)
        upper.set_title("\n".join(filter(None, (f"{size_name(model, size)}, {design}", setting))), fontsize=9)
        lower.set_xlabel(log_label("repeats R of the pool"))
    axes[0][0].set_ylabel("change in test loss\nfrom R = 0 (nats/token)")
    axes[1][0].set_ylabel("memorization of the pool\n(nats/token)")
    return Plot(
        NAME,
        "A named pool: gain in its domain and cost in general",
        _caption(effect.arms, len(effect.fresh) > 0),
        figure,
        pd.concat([effect.arms.assign(control="R = 0"), effect.fresh.assign(control="fresh text of the domain")])
        if len(effect.fresh)
        else effect.arms.assign(control="R = 0"),
    )


def _caption(arms: pd.DataFrame, has_fresh: bool) -> str:
    fresh = (
        " White markers: the domain's clean controls, which train on as many tokens from the pool's domain as the run with this R, but"
        " see each only once (R = 1). The distance between a filled and a white marker is the cost of repeating text instead of reading"
        " fresh text."
        if has_fresh
        else ""
    )
    return (
        "Above: final test loss of a run that repeats the pool R times, minus that of the R = 0 control, which never sees the pool,"
        " paired by seed. Values below 0 mean that the pool helps. The general test set is held-out text from the training data; the"
        f" other one is held-out text from the pool's source.{fresh} Below: memorization, the loss on unseen text from the pool's domain"
        f" minus the loss on the pool itself, relative to the same difference at R = 0. {interval_note(arms)}"
    )


def _axis_with_zero(ax: Axes, repeats: Sequence[float]) -> None:
    """Draw a logarithmic R axis that shows R = 0 at the left, separated by a dotted line."""
    zero = repeats[0] / ZERO
    ax.set_xscale("log")
    ax.axhline(0.0, color="gray", linewidth=0.8, linestyle=":")
    ax.axvline(repeats[0] / ZERO**0.5, color="gray", linewidth=0.8, linestyle=":")
    ax.plot([zero], [0.0], "o", color=CLEAN["color"], markersize=4.5)
    ax.set_xticks([zero, *repeats], ["0", *(f"{value:g}" for value in repeats)])
    ax.minorticks_off()
    ax.set_xlim(zero / 1.5, repeats[-1] * ROOM)
    ax.xaxis.set_tick_params(labelbottom=True)


def _label_ends(ax: Axes, last: float, ends: list[tuple[float, str, Any]]) -> None:
    """Write labels at the right ends of lines, moved apart where they would overlap."""
    low, high = ax.get_ylim()
    ordered = sorted(ends, key=lambda end: end[0])
    heights: list[float] = []
    for value, label, _ in ordered:
        share = (value - low) / (high - low)
        lines = label.count("\n") + 1
        heights.append(max(share, heights[-1] + LINE_HEIGHT * (1 + lines) / 2 if heights else -np.inf))
    above = max(0.0, heights[-1] - 0.97)
    for height, (_, label, color) in zip(heights, ordered, strict=True):
        # R along the horizontal axis, shares of the panel's height along the vertical one
        transform = ax.get_xaxis_transform()
        ax.text(last * 1.35, height - above, label, transform=transform, color=color, fontsize=8, va="center")
