"""Test loss over training, one line per run: where double descent shows [H22, fig. 3]."""

from analysis.figures.axes import tokens_axis
from analysis.figures.panels import grid_of_axes
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import CLEAN, colors
from analysis.formatting import short_count
from analysis.runs import Runs

NAME = "learning_curves"


def plot(runs: Runs) -> Plot | Missing:
    """One panel per fraction and size."""
    table = runs.table
    repeated = table[table.repeats > 1]
    if repeated.empty:
        return Missing(NAME, "no run with repeats > 1")
    panels = [
        (fraction, size)
        for fraction in sorted(repeated.repeated_fraction.unique(), reverse=True)
        for size in sorted(repeated[repeated.repeated_fraction == fraction].parameters_non_embedding.unique())
    ]
    columns = min(len(panels), 4)
    figure, axes = grid_of_axes(-(-len(panels) // columns), columns)
    flat = [ax for row in axes for ax in row]
    palette = colors(repeated.repeats)
    for ax, (fraction, size) in zip(flat, panels, strict=False):
        panel_runs = table[(table.parameters_non_embedding == size) & table.repeated_fraction.isin([0.0, fraction])]
        for run in panel_runs.sort_values("repeats").itertuples(index=False):
            curve = runs.curve(str(run.name))
            style = {"color": CLEAN, "linestyle": "--"} if run.repeats == 1 else {"color": palette[run.repeats]}
            # The steep start is the same for all runs and would set the scale.
            late = curve[curve.tokens >= 0.02 * run.trained_tokens]
            ax.plot(late.tokens, late.test_loss, linewidth=1.3, **style)
        ax.set_title(f"{short_count(size)} parameters, f = {fraction:.0%}", fontsize=9)
    for ax in flat[len(panels) :]:
        ax.set_visible(False)
    for ax in flat[: len(panels)]:
        tokens_axis(ax)
    for row in axes:
        row[0].set_ylabel("test loss (nats/token)")
    handles = [flat[0].plot([], [], color=CLEAN, linestyle="--", label="clean")[0]]
    handles += [flat[0].plot([], [], color=palette[value], label=f"R = {value:g}")[0] for value in sorted(palette)]
    figure.legend(handles=handles, loc="outside right center")
    return Plot(
        NAME,
        "Learning curves",
        "Test loss during training, one line per run, colored by R; dashed lines are clean runs of the same size. A line that rises and"
        " falls again shows double descent. Hernandez et al. (fig. 3) see it at f = 90% in an 800M model, and long plateaus at f = 50%.",
        figure,
        runs.evaluations.merge(table[["name", "model", "repeats", "repeated_fraction", "seed"]], on="name")[
            ["name", "model", "repeats", "repeated_fraction", "seed", "step", "tokens", "test_loss", "pool_loss"]
        ],
    )
