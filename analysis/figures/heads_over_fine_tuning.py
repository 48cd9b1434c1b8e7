"""Copying and prefix matching during fine-tuning, to show whether induction heads form after repetition [H22, figs. 5-6]."""

from dataclasses import replace

from analysis.figures.axes import tokens_axis
from analysis.figures.panels import grid_of_axes
from analysis.figures.plot import Missing, Plot, no_heads
from analysis.figures.style import UNTRAINED, along, start_styles
from analysis.formatting import size_names
from analysis.measures import fine_tuning
from analysis.measures.induction_heads import none_before_or_after
from analysis.runs import Runs
from repeat_study.records.metrics import BY_KEY

NAME = "heads_over_fine_tuning"
ROWS = [BY_KEY[key] for key in ("prefix_matching", "random_copying_gain", "copying_gain")]


def plot(runs: Runs) -> Plot | Missing:
    """Plot one column of panels per size and one row per metric, with one line per run."""
    table = fine_tuning.starts(runs)
    table = table[table.model.isin(table[table.parent != ""].model)]
    combined = runs.combined
    if "prefix_matching" not in combined.evaluations:
        return Missing(NAME, "heads were not measured, because the context is too short for the probe")
    names = fine_tuning.ordered_starts(table.start)
    sizes = size_names(table.model, table.parameters_non_embedding)
    by_start = start_styles(names)
    figure, axes = grid_of_axes(len(ROWS), len(sizes), sharey="row", height=1.9)
    for row, measured in zip(axes, ROWS, strict=True):
        for ax, size in zip(row, sizes, strict=True):
            panel = table[table.parameters_non_embedding == size]
            for run in panel.itertuples(index=False):
                curve = combined.curve(str(run.name))
                style = by_start[run.start]
                ax.plot(curve.tokens, curve[measured.key], linewidth=1.3, **along(style, len(curve)))
                ax.plot(curve.tokens, curve[measured.null_key], ":", color=style["color"], linewidth=0.8)
            if measured is ROWS[0]:
                ax.set_title(sizes[size] + fine_tuning.repeats_of_parents(panel), fontsize=9)
                untrained = [
                    combined.curve(str(name)).prefix_matching.iloc[0] for name in panel[panel.parent == ""].name
                ]
                if untrained:
                    ax.axhline(max(untrained), color=UNTRAINED, linewidth=1)
            tokens_axis(ax)
            if measured is not ROWS[-1]:
                ax.set_xlabel("")
        row[0].set_ylabel(measured.axis_label)
    axes[0][0].set_ylim(0.0, max(axes[0][0].get_ylim()[1], 4 * combined.evaluations.prefix_matching_null.max()))
    handles = [axes[0][0].plot([], [], label=name, **by_start[name])[0] for name in names]
    handles.append(axes[0][0].plot([], [], color="black", linestyle=":", label="null of each")[0])
    handles.append(axes[0][0].plot([], [], color=UNTRAINED, label="untrained")[0])
    figure.legend(handles=handles, loc="outside right center")
    measured_columns = [column for row in ROWS for column in (row.key, row.null_key)]
    return Plot(
        NAME,
        "Copying and prefix matching over fine-tuning",
        "From top to bottom: prefix matching of the best head, copying gain on random tokens, and copying gain on a paragraph. One line"
        " per run; at 0 tokens, a fine-tuned run equals its parent. Dotted: each run's null. Gray: the best head of an untrained model.",
        figure,
        fine_tuning.over_training(table, runs, measured_columns),
        no_heads(none_before_or_after(replace(combined, table=table))),
    )
