"""Induction heads, copying and test loss over training [O22, figs. 1-3; H22, figs. 5-7]."""

import pandas as pd
from matplotlib.lines import Line2D

from analysis.figures.axes import tokens_axis
from analysis.figures.panels import (
    arms,
    drawn,
    grid_of_axes,
    legend_of_repeats,
    limit,
    not_drawn_note,
    nulls,
    over_repeats,
    seeds_note,
)
from analysis.figures.plot import Missing, Plot, no_heads
from analysis.figures.style import CLEAN, UNTRAINED, styles
from analysis.measures.induction_heads import none_formed
from analysis.runs import ARM, Runs
from repeat_study.records.metrics import BY_KEY

NAME = "induction_over_training"
COLUMNS = 4
KEYS = ("prefix_matching", "copying_score", "random_copying_gain", "copying_gain", "in_context_score", "test_loss")
ROWS = [BY_KEY[key] for key in KEYS]
TABLE_COLUMNS = [column for metric in ROWS for column in (metric.key, metric.null_key) if column]


def plot(runs: Runs) -> Plot | Missing:
    """Plot one column of panels per combination of fraction and model and one row per metric, with aligned token axes."""
    if "prefix_matching" not in runs.evaluations:
        return Missing(
            NAME,
            "heads were not measured (the runs are from an older version, or their context is too short for the probe)",
        )
    columns = [name for name in TABLE_COLUMNS if name in runs.evaluations]
    scored = runs.evaluations.loc[runs.evaluations.prefix_matching.notna(), ["name", "step", "tokens", *columns]]
    table = runs.table[ARM].merge(scored, on="name")
    panels = arms(table)
    blocks = [panels[start : start + COLUMNS] for start in range(0, len(panels), COLUMNS)]
    figure, axes = grid_of_axes(len(blocks) * len(ROWS), min(len(panels), COLUMNS), sharey="row", height=1.75)
    repeats_styles = styles(table.repeats[table.repeats > 1])
    for row, metric in enumerate(ROWS):
        late = drawn(table, table.tokens.max()) if metric.key == "test_loss" else table
        low, high = late[metric.key].min(), late[metric.key].max()
        if metric.null_key:
            low, high = min(low, late[metric.null_key].min()), max(high, late[metric.null_key].max())
        if (
            metric.key == "prefix_matching"
        ):  # without this, the noise of a study without induction heads would fill the panel
            low, high = 0.0, max(high, 4 * late[metric.null_key].max())
        for block, block_panels in enumerate(blocks):
            line_of_axes = axes[block * len(ROWS) + row]
            for index, ax in enumerate(line_of_axes):
                ax.set_visible(index < len(block_panels))
                if index >= len(block_panels):
                    continue
                panel_runs = block_panels[index].runs
                if metric.null_key:
                    nulls(ax, "tokens", metric.null_key, panel_runs, repeats_styles)
                if metric.key == "prefix_matching":
                    ax.axhline(panel_runs[panel_runs.step == 0].prefix_matching.max(), color=UNTRAINED, linewidth=1)
                if metric.key == "test_loss":
                    panel_runs = drawn(panel_runs, panel_runs.tokens.max())
                over_repeats(ax, "tokens", metric.key, panel_runs, repeats_styles)
                if row == 0:
                    ax.set_title(block_panels[index].title, fontsize=9)
                tokens_axis(ax)
                if row < len(ROWS) - 1:
                    ax.set_xlabel("")
            limit(line_of_axes[0], low, high)
            line_of_axes[0].set_ylabel(metric.axis_label)
    legend_of_repeats(
        figure,
        axes[0][0],
        table.repeats,
        repeats_styles,
        null=Line2D([], [], color=CLEAN["color"], linestyle=":"),
        untrained=Line2D([], [], color=UNTRAINED),
    )
    not_drawn = not_drawn_note(table.tokens.max())
    return Plot(
        NAME,
        "Induction heads and copying over training",
        "From top to bottom: prefix matching and copying score of the best head, copying gain on random tokens and on a paragraph,"
        " in-context score (lower is better), and test loss. Dotted: each line's null. Gray: the best head of an untrained model. Induction"
        " heads form where prefix matching rises above both; copying gain then rises and the in-context score falls (Olsson et al. 2022)."
        " One-layer models cannot form induction heads. Hernandez et al. (fig. 7, two layers, attention only, f = 50%) find that repetition"
        f" destroys the ability to copy a paragraph. {seeds_note(table)} In the test-loss panels, {not_drawn[0].lower()}{not_drawn[1:]}",
        figure,
        _numbers(table),
        no_heads(none_formed(runs)),
    )


def _numbers(table: pd.DataFrame) -> pd.DataFrame:
    return table[[*ARM, "step", "tokens", *TABLE_COLUMNS]]
