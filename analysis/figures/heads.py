"""Every head at the end of training: which match prefixes in the clean run and not beside repeats [H22 figs. 6-7]."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from analysis.figures.style import CLEAN, Drawing, Missing, arms, colours
from analysis.runs import ARM, Runs

NAME = "heads"
SCALE = "magma"  # not that of the numbers of repeats
MOST_SEEDS = 4  # a row each; the table has all
WRITTEN = 64  # heads of a model, up to which the values are written into the map


def draw(runs: Runs) -> Drawing | Missing:
    """A row per fraction, model and seed: a map of layers by heads per R, and what ablating each head does to copying."""
    last = runs.at_the_end("heads")
    if last.empty:
        return Missing(NAME, "no finished run has heads.parquet: made before it was written, or contexts too short")
    table = runs.done[ARM].merge(last, on="name")
    rows = [
        (panel, seed, panel.runs[panel.runs.seed == seed])
        for panel in arms(table)
        for seed in sorted(panel.runs.seed.unique())[:MOST_SEEDS]
    ]
    every = sorted(table.repeats.unique())
    colour = colours([value for value in every if value > 1])
    # A study without heads is dark: the scale ends no lower than four times what a head scores where nothing repeats.
    norm = Normalize(0.0, max(table.prefix_matching.max(), 4 * table.prefix_matching_null.max()))
    figure = Figure(figsize=(3.6 + 1.75 * len(every), 0.9 + 2.1 * len(rows)), layout="constrained")
    ratios = [1.0] * len(every) + [1.7]
    axes = figure.subplots(len(rows), len(every) + 1, squeeze=False, gridspec_kw={"width_ratios": ratios})
    for row, (panel, seed, here) in zip(axes, rows, strict=True):
        for ax, repeats in zip(row, every, strict=False):
            _map(ax, here[here.repeats == repeats].drop_duplicates(["layer", "head"]), norm)
            if ax.images:
                ax.set_title("clean" if repeats == 1 else f"R = {repeats:g}", fontsize=9)
        row[0].set_ylabel(f"{panel.title.replace(' (', chr(10) + '(')}, seed {seed}\nlayer", fontsize=8)
        _ablation(row[-1], here, colour)
        row[-1].set_xlim(
            0.0, 1.05 * max(float(norm.vmax or 1.0), (table.prefix_matching + table.prefix_matching_ci).max())
        )
    axes[0][-1].legend(fontsize=7)
    figure.colorbar(
        ScalarMappable(norm, SCALE), ax=axes[:, :-1], label="prefix matching", location="bottom", shrink=0.6, aspect=40
    )
    return Drawing(
        NAME,
        "Heads at the end of training",
        "Maps: prefix matching of every head, a layer a line, one run per R; the runs of a seed share their start weights, so a"
        " place is the same head in all maps of a line; an induction head is a bright place, and one that a repeated run lacks is"
        " dark there. Right: each head's prefix matching against how much of the copying gain is lost by zeroing its output, with all"
        " attention patterns kept; bars are 95% intervals over the probe's sequences, dotted lines are the highest of any of"
        " these heads where nothing, or no order, repeats. A head that copies lies to the right of one and above the other. Hernandez et"
        " al. (figs. 6-7): at the worst R prefix matching is that of a model 1.47x smaller, and a two-layer model's induction"
        " head gives way.",
        figure,
        table,
    )


def _map(ax: Axes, heads: pd.DataFrame, norm: Normalize) -> None:
    """One run's heads, layers from the bottom up."""
    ax.grid(False)
    if heads.empty:
        ax.set(xticks=[], yticks=[], frame_on=False)
        return
    cells = heads.pivot(index="layer", columns="head", values="prefix_matching")
    ax.imshow(cells, cmap=SCALE, norm=norm, origin="lower", aspect="auto", interpolation="nearest")
    if cells.size <= WRITTEN:
        for layer, head, value in zip(heads.layer, heads["head"], heads.prefix_matching, strict=True):
            shade = "black" if norm(value) > 0.6 else "white"
            text = f"{value:.2f}".removeprefix("0") if cells.shape[1] > 4 else f"{value:.2f}"
            ax.text(head, layer, text, color=shade, ha="center", va="center", fontsize=7)
    ax.set_yticks(cells.index if len(cells) <= 8 else cells.index[:: len(cells) // 4])
    ax.set_xticks(cells.columns if cells.shape[1] <= 8 else cells.columns[:: cells.shape[1] // 4])
    ax.tick_params(labelsize=7, length=0)
    ax.set_xlabel("head", fontsize=8)


def _ablation(ax: Axes, heads: pd.DataFrame, colour: dict[float, tuple[float, ...]]) -> None:
    """A point per head of every run of the row."""
    for repeats, these in heads.groupby("repeats"):
        ax.errorbar(
            these.prefix_matching,
            these.ablation_copying_gain,
            xerr=these.prefix_matching_ci,
            yerr=these.ablation_copying_gain_ci,
            fmt="o",
            markersize=3,
            linewidth=0.7,
            color=CLEAN if repeats == 1 else colour[float(repeats)],
            markerfacecolor="white" if repeats == 1 else colour[float(repeats)],
            label="clean" if repeats == 1 else f"R = {repeats:g}",
            zorder=3 if repeats == 1 else 2,
        )
    ax.axvline(heads.prefix_matching_null.max(), color="0.5", linestyle=":", linewidth=1)
    ax.axhline(0.0, color="0.5", linewidth=0.6)
    ax.set_xlabel("prefix matching", fontsize=8)
    ax.axhline(heads.ablation_copying_gain_null.max(), color="0.5", linestyle=":", linewidth=1)
    ax.set_ylabel("copying gain lost\nby ablation (nats)", fontsize=8)
    ax.tick_params(labelsize=7)
