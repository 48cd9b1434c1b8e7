"""Prefix matching of every head at the end of training, with and without repeats, and the effect of ablating the head [H22, figs. 6-7]."""

import textwrap
from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.figures.panels import arms, limit
from analysis.figures.plot import Missing, Plot, no_heads
from analysis.figures.style import CLEAN, Style, styles
from analysis.measures.induction_heads import is_present, none_formed, thresholds
from analysis.runs import ARM, Runs

NAME = "heads"
SCALE = "magma"  # a colormap that no line uses
MOST_SEEDS, MOST_ROWS = 4, 12  # every panel gets at least one row; the table lists all seeds
MOST_LABELED = 48  # with more heads side by side, there is no room for values in the cells
LABEL_WIDTH = 26  # characters per line of a row's label


def plot(runs: Runs) -> Plot | Missing:
    """Plot one row per fraction, model and seed, with a layer-by-head map for every R and the effect of ablating each head.

    All rows have the same color scale and the same limits for ablation.
    """
    last = runs.last_tables("heads")
    if last.empty:
        return Missing(
            NAME,
            "no finished run has heads.parquet (the runs are from an older version, or their context is too short for the probe)",
        )
    table = runs.done[ARM].merge(last, on="name")
    score, half = table.prefix_matching, table.prefix_matching_ci.fillna(0.0)
    table = table.assign(is_induction_head=is_present(score, half, table.name.map(thresholds(runs.combined))))
    panels = arms(table)
    seeds = max(1, min(MOST_SEEDS, MOST_ROWS // len(panels)))
    rows = [
        (panel, seed, panel.runs[panel.runs.seed == seed])
        for panel in panels
        for seed in sorted(panel.runs.seed.unique())[:seeds]
    ]
    all_repeats = sorted(table.repeats.unique())
    repeats_styles = styles([value for value in all_repeats if value > 1])
    # The scale ends at four times the null or higher, so that the maps of a study without induction heads are dark.
    norm = Normalize(0.0, max(table.prefix_matching.max(), 4 * table.prefix_matching_null.max()))
    figure = Figure(figsize=(4.6 + min(1.75 * len(all_repeats), 11), 0.9 + 2.1 * len(rows)), layout="constrained")
    ratios = [min(1.0 * len(all_repeats), 6.0), 1.7]
    axes = figure.subplots(len(rows), 2, squeeze=False, gridspec_kw={"width_ratios": ratios})
    for row, (panel, seed, seed_heads) in zip(axes, rows, strict=True):
        _maps(row[0], seed_heads, all_repeats, norm)
        row[0].set_ylabel(f"{_wrapped(f'{panel.title}, seed {seed}')}\nlayer", fontsize=8)
        _ablation(row[-1], seed_heads, repeats_styles)
        row[-1].set_xlim(
            0.0, 1.05 * max(float(norm.vmax or 1.0), (table.prefix_matching + table.prefix_matching_ci).max())
        )
        limit(row[-1], *_range_of_ablation(table))
    # In a panel, the legend would cover error bars.
    figure.legend(*_legend(axes[:, -1]), fontsize=7, ncols=4, loc="outside lower right")
    figure.colorbar(
        ScalarMappable(norm, SCALE), ax=axes[:, 0], label="prefix matching", location="bottom", shrink=0.6, aspect=40
    )
    return Plot(
        NAME,
        "Heads at the end of training",
        "Left: prefix matching of every head, one map per R with one row per layer. Runs with the same seed start from the same weights, so"
        f" the same cell is the same head in every map. {_counted(table)} Right: the drop in copying gain when a"
        " head's output is set to zero and all attention patterns are held fixed, plotted against that head's prefix matching. A copying"
        " head lies"
        " to the right of the vertical dotted line and above the horizontal one; these lines are the highest nulls among the row's heads."
        " All rows share the same scales. Bars: 95% intervals over the probe's sequences. Hernandez et al. (figs. 6-7) find that at the"
        " worst R, prefix matching equals that of a 1.47x smaller model, and that repetition breaks the induction head of a two-layer"
        " model.",
        figure,
        table,
        no_heads(none_formed(runs)),
    )


def _counted(table: pd.DataFrame) -> str:
    """A caption sentence about the heads that count as induction heads."""
    rule = "prefix matching, minus half the width of its interval, exceeds twice its null and twice the untrained model's score"
    if not table.is_induction_head.any():
        return f"No head counts as an induction head, because none has a score that is high enough ({rule})."
    return f"Outlined cells exceed the threshold for induction heads ({int(table.is_induction_head.sum())} of {len(table)}): {rule}."


def _wrapped(title: str) -> str:
    """Break a title into lines of at most LABEL_WIDTH characters, but not around "="."""
    unbroken = title.replace(" = ", "\u00a0=\u00a0")
    return textwrap.fill(unbroken, LABEL_WIDTH).replace("\u00a0", " ")


def _maps(ax: Axes, heads: pd.DataFrame, all_repeats: list[int], norm: Normalize) -> None:
    """Plot the maps of one row side by side, with the first layer at the bottom."""
    # The maps share one set of axes, because dozens of axes take a minute to draw.
    layers, width = heads.layer.max() + 1, heads["head"].max() + 1
    cells = np.full((layers, len(all_repeats) * (width + 1) - 1), np.nan)
    starts = {repeats: index * (width + 1) for index, repeats in enumerate(all_repeats)}
    for repeats, run_heads in heads.groupby("repeats"):
        run_heads = run_heads.drop_duplicates(["layer", "head"])
        cells[run_heads.layer, starts[repeats] + run_heads["head"]] = run_heads.prefix_matching
        for head in run_heads[run_heads.is_induction_head].itertuples():
            corner = (starts[repeats] + head.head - 0.44, head.layer - 0.44)
            ax.add_patch(Rectangle(corner, 0.88, 0.88, fill=False, edgecolor="deepskyblue", linewidth=1.5))
    ax.grid(False)
    ax.imshow(cells, cmap=SCALE, norm=norm, origin="lower", aspect="auto", interpolation="nearest")
    if len(all_repeats) * width <= MOST_LABELED:
        for layer, column in np.argwhere(~np.isnan(cells)):
            value = cells[layer, column]
            shade = "black" if norm(value) > 0.6 else "white"
            ax.text(column, layer, f"{value:.2f}".removeprefix("0"), color=shade, ha="center", va="center", fontsize=7)
    present = [repeats for repeats in all_repeats if (heads.repeats == repeats).any()]
    middles = [starts[repeats] + (width - 1) / 2 for repeats in present]
    ax.set_xticks(middles, ["clean" if repeats == 1 else f"R = {repeats:g}" for repeats in present])
    ax.set_yticks(range(0, layers, 1 if layers <= 8 else layers // 4))
    ax.tick_params(labelsize=7, length=0)
    ax.set_xlabel(f"heads 0 to {width - 1} of each run", fontsize=8)
    ax.spines[:].set_visible(False)


def _range_of_ablation(table: pd.DataFrame) -> tuple[float, float]:
    """The smallest and the largest copying gain lost by ablation, including intervals and nulls."""
    loss, half = table.ablation_copying_gain, table.ablation_copying_gain_ci
    return min(0.0, (loss - half).min()), max((loss + half).max(), table.ablation_copying_gain_null.max())


def _legend(panels: Iterable[Axes]) -> tuple[list[Artist], list[str]]:
    """Handles and labels of all runs by R. A single panel may lack some values of R."""
    entries = {label: handle for ax in panels for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    labels = sorted(entries, key=lambda label: 1 if label == "clean" else float(label.removeprefix("R = ")))
    return [entries[label] for label in labels], labels


def _ablation(ax: Axes, heads: pd.DataFrame, repeats_styles: dict[float, Style]) -> None:
    """Plot one point per head for every run in the row."""
    for repeats, run_heads in heads.groupby("repeats"):
        style = CLEAN if repeats == 1 else repeats_styles[float(repeats)]
        ax.errorbar(
            run_heads.prefix_matching,
            run_heads.ablation_copying_gain,
            xerr=run_heads.prefix_matching_ci,
            yerr=run_heads.ablation_copying_gain_ci,
            fmt=style.get("marker", "o"),
            markersize=3.5,
            linewidth=0.7,
            color=style["color"],
            markerfacecolor="white" if repeats == 1 else style["color"],
            label="clean" if repeats == 1 else f"R = {repeats:g}",
            zorder=3 if repeats == 1 else 2,
        )
    ax.axvline(heads.prefix_matching_null.max(), color="0.5", linestyle=":", linewidth=1)
    ax.axhline(0.0, color="0.5", linewidth=0.6)
    ax.set_xlabel("prefix matching", fontsize=8)
    ax.axhline(heads.ablation_copying_gain_null.max(), color="0.5", linestyle=":", linewidth=1)
    ax.set_ylabel("copying gain lost\nby ablation (nats)", fontsize=8)
    ax.tick_params(labelsize=7)
