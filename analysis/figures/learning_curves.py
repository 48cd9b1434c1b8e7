"""Test loss over training, one line per run, to show double descent [H22, fig. 3]."""

from analysis.figures.axes import tokens_axis
from analysis.figures.panels import drawn, grid_of_axes, legend_of_repeats, not_drawn_note, rows_and_columns
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import CLEAN, along, styles
from analysis.formatting import percent, size_names
from analysis.runs import Runs

NAME = "learning_curves"


def plot(runs: Runs) -> Plot | Missing:
    """Plot one panel per fraction and size."""
    table = runs.table
    repeated = table[table.repeats > 1]
    if repeated.empty:
        return Missing(NAME, "no run with repeats > 1")
    panels = [
        (fraction, size)
        for fraction in sorted(repeated.repeated_fraction.unique(), reverse=True)
        for size in sorted(repeated[repeated.repeated_fraction == fraction].parameters_non_embedding.unique())
    ]
    figure, axes = grid_of_axes(*rows_and_columns(len(panels)))
    flat = [ax for row in axes for ax in row]
    repeats_styles = styles(repeated.repeats)
    names = size_names(repeated.model, repeated.parameters_non_embedding)
    for ax, (fraction, size) in zip(flat, panels, strict=False):
        panel_runs = table[(table.parameters_non_embedding == size) & table.repeated_fraction.isin([0.0, fraction])]
        for run in panel_runs.sort_values("repeats").itertuples(index=False):
            curve = runs.curve(str(run.name))
            style = CLEAN if run.repeats == 1 else repeats_styles[run.repeats]
            late = drawn(curve, run.trained_tokens)
            ax.plot(late.tokens, late.test_loss, linewidth=1.3, **along(style, len(late)))
        ax.set_title(f"{names[size]}, f = {percent(fraction)}", fontsize=9)
    for ax in flat[len(panels) :]:
        ax.set_visible(False)
    for ax in flat[: len(panels)]:
        tokens_axis(ax)
    for row in axes:
        row[0].set_ylabel("test loss (nats/token)")
    legend_of_repeats(figure, flat[0], table.repeats, repeats_styles)
    return Plot(
        NAME,
        "Learning curves",
        "Test loss during training, one line per run; black dashed lines are clean runs of the same size. A line that rises and then falls"
        " shows double descent. Hernandez et al. (fig. 3) find it at f = 90% in an 800M model, and long plateaus at f = 50%."
        f" {not_drawn_note(table.trained_tokens.max())}",
        figure,
        runs.evaluations.merge(table[["name", "model", "repeats", "repeated_fraction", "seed"]], on="name")[
            ["name", "model", "repeats", "repeated_fraction", "seed", "step", "tokens", "test_loss", "pool_loss"]
        ],
    )
