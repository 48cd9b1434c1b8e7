"""Final loss and effective size after fine-tuning, for each starting point [H22, figs. 12, 15]."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from analysis import published
from analysis.figures.axes import log_axis, size_axis
from analysis.figures.estimates import BOUNDS, bounded_line, points, range_note
from analysis.figures.panels import grid_of_axes
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import CLEAN, start_styles
from analysis.intervals import interval_or_range, with_bounds
from analysis.measures import fine_tuning
from analysis.measures.effective_size import NoLaw
from analysis.runs import Runs

NAME = "ossification"
MIXED = " If the parents' R differ between sizes, points are not connected and are labeled with R."


def plot(runs: Runs) -> Plot | Missing:
    """Plot test loss and the ratio of effective to actual size against size, with one line per starting point."""
    table = fine_tuning.table(runs)
    if table.empty or (table.parent == "").all():
        return Missing(NAME, "no fine-tuned run has finished")
    law = fine_tuning.law_from_scratch(runs)
    by = ["start", "parameters_non_embedding"]
    loss = interval_or_range(table, by, "test_loss")
    names = fine_tuning.ordered_starts(table.start)
    by_start = start_styles(names)
    figure, axes = grid_of_axes(1, 1 if isinstance(law, NoLaw) else 2, sharey=False, height=3.0)
    figure.set_size_inches(3.0 + 3.6 * len(axes[0]), 3.7)  # leaves room for a wide legend and a second vertical axis
    left = axes[0][0]
    parents = table[table.parent != ""].groupby("start").parent_repeats.nunique()
    mixed = set(parents.index[parents > 1])  # starts whose parents differ in R between sizes
    by_start |= {name: by_start[name] | {"linestyle": "none"} for name in mixed}
    for name in names:
        points(left, "parameters_non_embedding", loss[loss.start == name], label=name, **by_start[name])
        if name in mixed:
            _label_repeats(left, loss[loss.start == name], table)
    left.set_ylabel("final test loss (nats/token)")
    left.set_title("test loss on the new text", fontsize=9)
    data = loss.assign(quantity="test_loss", bound="")
    if not isinstance(law, NoLaw):
        sizes = np.geomspace(law.smallest, law.largest, 100)
        left.plot(sizes, law.loss(sizes), linewidth=0.8, **CLEAN)
        fine_tuned = table[table.parent != ""]
        size = with_bounds(interval_or_range(fine_tuned, by, "multiplier"), fine_tuned, by)
        right = axes[0][1]
        for number, name in enumerate(names[1:]):
            line = size[size.start == name]
            bounded_line(right, "parameters_non_embedding", line, number, len(names) - 1, by_start[name], name)
            if name in mixed:
                _label_repeats(right, line, table)
        right.axhline(1.0, color="gray", linewidth=0.8, linestyle=":")
        right.axhline(1 / published.H22_OSSIFICATION, color="gray", linewidth=0.8, linestyle="--")
        right.set_title("effective size relative to runs from scratch", fontsize=9)
        log_axis(right, "effective size / size")
        data = pd.concat([data, size.assign(quantity="multiplier")])
    for ax in axes[0]:
        size_axis(ax, table.parameters_non_embedding)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center")
    size_caption = (
        f"There is no effective size: {law.reason}."
        if isinstance(law, NoLaw)
        else "Thin dashed line: power law of the runs from scratch. Right: size of a model trained from scratch with the same"
        " excess loss (paired by seed), divided by the run's own size. Gray lines: 1 (dotted) and the published value,"
        f" {1 / published.H22_OSSIFICATION:.3g} (dashed). {BOUNDS}"
    )
    return Plot(
        NAME,
        "Fine-tuning from clean and from repeated models",
        "Final test loss on the new text against model size, one line per starting point."
        f"{MIXED if mixed else ''} {size_caption}"
        " Hernandez et al. (figs. 12, 15) find that fine-tuning a repeated model is worse than training from scratch, with"
        f" {published.H22_OSSIFICATION}x fewer effective parameters, although the model has seen more tokens. A study that selects parents"
        " at the worst R uses, for each size, the R with the highest final test loss averaged over seeds."
        f" {range_note(data)}",
        figure,
        data,
    )


def _label_repeats(ax: Axes, points_of_start: pd.DataFrame, table: pd.DataFrame) -> None:
    """Write the parent's R next to every point of a start."""
    for point in points_of_start[points_of_start["mean"].notna()].itertuples():
        runs = table[(table.start == point.start) & (table.parameters_non_embedding == point.parameters_non_embedding)]
        repeats = " or ".join(f"{value:,}" for value in sorted(runs.parent_repeats.unique()))
        at = (point.parameters_non_embedding, point.mean)
        outline = [withStroke(linewidth=3, foreground="white")]  # readable on top of lines
        label = f"R = {repeats}"
        ax.annotate(label, at, (7, 0), textcoords="offset points", va="center", fontsize=8, path_effects=outline)
