"""Test loss on the new text while models are fine-tuned, beside the same from scratch [H22, fig. 12]."""

from analysis.figures.axes import tokens_axis
from analysis.figures.panels import grid_of_axes
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import start_colours
from analysis.formatting import short_count
from analysis.measures import fine_tuning
from analysis.runs import Runs

NAME = "fine_tuning_curves"


def plot(runs: Runs) -> Plot | Missing:
    """A panel per size that has fine-tuned runs; every seed is a line of its own."""
    table = fine_tuning.starts(runs)
    table = table[table.model.isin(table[table.parent != ""].model)]
    names = fine_tuning.ordered_starts(table.start)
    colour = start_colours(names)
    sizes = sorted(table.parameters_non_embedding.unique())
    columns = min(len(sizes), 4)
    figure, axes = grid_of_axes(-(-len(sizes) // columns), columns)
    flat = [ax for row in axes for ax in row]
    together = runs.combined
    for ax, size in zip(flat, sizes, strict=False):
        for run in table[table.parameters_non_embedding == size].itertuples(index=False):
            curve = together.curve(str(run.name))
            # The first fall from scratch would squeeze everything else.
            late = curve[curve.tokens >= 0.02 * run.trained_tokens]
            ax.plot(late.tokens, late.test_loss, linewidth=1.3, color=colour[run.start])
        ax.set_title(f"{short_count(size)} parameters", fontsize=9)
        tokens_axis(ax)
    for ax in flat[len(sizes) :]:
        ax.set_visible(False)
    for row in axes:
        row[0].set_ylabel("test loss (nats/token)")
    figure.legend(
        handles=[flat[0].plot([], [], color=colour[name], label=name)[0] for name in names], loc="outside right center"
    )
    return Plot(
        NAME,
        "Learning curves of fine-tuning",
        "Test loss on the new text over fine-tuning, a line per run, by what it started from. Where a line from a repeated parent"
        " ends above the one from scratch, what was learnt before stands in the way of what is to be learnt.",
        figure,
        fine_tuning.over_training(table, runs, ["test_loss"]),
    )
