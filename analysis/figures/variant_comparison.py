"""Plot the effect of a study's variants, such as different orders of the copies, at the same size, fraction and R."""

from analysis.figures.axes import repeats_axis
from analysis.figures.estimates import interval_note, points
from analysis.figures.panels import grid_of_axes, legend
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import styles
from analysis.formatting import percent, shared_settings, size_name
from analysis.measures.variant_comparison import COMPARED, compare_variants
from analysis.runs import Runs

NAME = "variant_comparison"


def plot(runs: Runs) -> Plot | Missing:
    """Plot one row of panels per metric and one column per fraction and size, with one line per variant."""
    comparison = compare_variants(runs)
    if comparison is None:
        return Missing(NAME, "needs finished runs of at least two variants with the same seed")
    data = comparison.excess
    panels = sorted({(-row.repeated_fraction, row.parameters_non_embedding, row.model) for row in data.itertuples()})
    metrics = [metric for metric in COMPARED if metric in set(data.metric)]
    names = list(dict.fromkeys(data.variant))
    title, labels = shared_settings(names)
    variant_styles = dict(zip(names, styles(range(len(names))).values(), strict=True))
    # Panels do not share their vertical axes, because the harm at f = 10% can be a tenth of the harm at f = 50%.
    figure, axes = grid_of_axes(len(metrics), len(panels), sharey=False)
    for row, metric in zip(axes, metrics, strict=True):
        for ax, (negative, size, model) in zip(row, panels, strict=True):
            panel = data[(data.metric == metric) & (data.model == model) & (data.repeated_fraction == -negative)]
            for place, name in enumerate(names):
                line = panel[panel.variant == name]
                # The error bars of several lines would overlap, so each line is shifted sideways a little.
                line = line.assign(repeats=line.repeats * 1.06 ** (place - (len(names) - 1) / 2))
                points(ax, "repeats", line, label=labels[place], **variant_styles[name])
            ax.axhline(0.0, color="gray", linewidth=0.8, linestyle=":")
            repeats_axis(ax, panel.repeats)
            if row is axes[0]:
                ax.set_title(f"{size_name(model, size)}, f = {percent(-negative)}", fontsize=9)
        row[0].set_ylabel(f"{COMPARED[metric]},\nexcess (nats/token)")
    legend(figure, axes, title)
    return Plot(
        NAME,
        "The variants compared",
        "The harm of repetition for each variant: a repeated run's value at the end of training minus that of the clean run with the same"
        f" variant and seed; 0 means no harm. {interval_note(data)}",
        figure,
        data,
    )
