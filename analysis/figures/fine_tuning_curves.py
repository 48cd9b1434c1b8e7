"""Test loss on the new text during fine-tuning, and from scratch [H22, fig. 12]."""

from analysis.figures.axes import tokens_axis
from analysis.figures.panels import grid_of_axes
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import start_colors
from analysis.formatting import short_count
from analysis.measures import fine_tuning
from analysis.runs import Runs

NAME = "fine_tuning_curves"


def plot(runs: Runs) -> Plot | Missing:
    """One panel per size with fine-tuned runs, one line per run."""
    table = fine_tuning.starts(runs)
    table = table[table.model.isin(table[table.parent != ""].model)]
    names = fine_tuning.ordered_starts(table.start)
    palette = start_colors(names)
    sizes = sorted(table.parameters_non_embedding.unique())
    columns = min(len(sizes), 4)
    figure, axes = grid_of_axes(-(-len(sizes) // columns), columns)
    flat = [ax for row in axes for ax in row]
    combined = runs.combined
    for ax, size in zip(flat, sizes, strict=False):
        for run in table[table.parameters_non_embedding == size].itertuples(index=False):
            curve = combined.curve(str(run.name))
            # Without this, the steep start from scratch would set the scale.
            late = curve[curve.tokens >= 0.02 * run.trained_tokens]
            ax.plot(late.tokens, late.test_loss, linewidth=1.3, color=palette[run.start])
        ax.set_title(f"{short_count(size)} parameters", fontsize=9)
        tokens_axis(ax)
    for ax in flat[len(sizes) :]:
        ax.set_visible(False)
    for row in axes:
        row[0].set_ylabel("test loss (nats/token)")
    figure.legend(
        handles=[flat[0].plot([], [], color=palette[name], label=name)[0] for name in names], loc="outside right center"
    )
    return Plot(
        NAME,
        "Learning curves of fine-tuning",
        "Test loss on the new text during fine-tuning, one line per run, colored by what it started from. If a run with a repeated parent"
        " ends above the run from scratch, what the parent learnt hinders learning the new text.",
        figure,
        fine_tuning.over_training(table, runs, ["test_loss"]),
    )
