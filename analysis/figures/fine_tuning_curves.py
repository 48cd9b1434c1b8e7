"""Test loss on the new text during fine-tuning and during training from scratch [H22, fig. 12]."""

from analysis.figures.axes import tokens_axis
from analysis.figures.panels import drawn, grid_of_axes, not_drawn_note, rows_and_columns
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import along, start_styles
from analysis.formatting import size_names
from analysis.measures import fine_tuning
from analysis.runs import Runs

NAME = "fine_tuning_curves"


def plot(runs: Runs) -> Plot | Missing:
    """Plot one panel per size that has fine-tuned runs, one line per run."""
    table = fine_tuning.starts(runs)
    table = table[table.model.isin(table[table.parent != ""].model)]
    names = fine_tuning.ordered_starts(table.start)
    by_start = start_styles(names)
    sizes = size_names(table.model, table.parameters_non_embedding)
    figure, axes = grid_of_axes(*rows_and_columns(len(sizes)))
    flat = [ax for row in axes for ax in row]
    combined = runs.combined
    for ax, size in zip(flat, sizes, strict=False):
        panel = table[table.parameters_non_embedding == size]
        for run in panel.itertuples(index=False):
            curve = combined.curve(str(run.name))
            late = drawn(curve, run.trained_tokens)
            ax.plot(late.tokens, late.test_loss, linewidth=1.3, **along(by_start[run.start], len(late)))
        ax.set_title(sizes[size] + fine_tuning.repeats_of_parents(panel), fontsize=9)
        tokens_axis(ax)
    for ax in flat[len(sizes) :]:
        ax.set_visible(False)
    for row in axes:
        row[0].set_ylabel("test loss (nats/token)")
    figure.legend(
        handles=[flat[0].plot([], [], label=name, **by_start[name])[0] for name in names], loc="outside right center"
    )
    return Plot(
        NAME,
        "Learning curves of fine-tuning",
        "Test loss on the new text during fine-tuning, one line per run. Colors, markers and line styles show the starting point. If a run"
        " with a repeated parent ends above the run from scratch, what its parent learned has made the new text harder to learn."
        f" {not_drawn_note(table.trained_tokens.max())}",
        figure,
        fine_tuning.over_training(table, runs, ["test_loss"]),
    )
