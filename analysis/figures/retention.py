"""Plot how much of a pool sequence a model retains, as a function of the training tokens since its last copy."""

from analysis.figures.axes import log_label
from analysis.figures.estimates import interval_note, points
from analysis.figures.panels import grid_of_axes, legend, limit
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import styles
from analysis.formatting import order_name, percent, short_count, size_name
from analysis.intervals import over_seeds
from analysis.measures.retention import by_tokens_since, retention
from analysis.runs import Runs

NAME = "retention"


def plot(runs: Runs) -> Plot | Missing:
    """Plot one row of panels per fraction and size and one column per R, with one line per order of the copies."""
    measured = retention(runs)
    if measured.empty:
        return Missing(
            NAME,
            "needs a repeated run and a clean run with the same seed that recorded the losses of their pool sequences",
        )
    curves = by_tokens_since(measured)
    curves["order"] = list(map(order_name, curves.spacing, curves.burst_distance))
    by = ["model", "repeated_fraction", "repeats", "order", "tokens_since"]
    data = over_seeds(curves, by, "retention")
    rows = sorted({(-arm.repeated_fraction, arm.parameters_non_embedding, arm.model) for arm in curves.itertuples()})
    repeats = sorted(curves.repeats.unique())
    orders = sorted(curves[["spacing", "burst_distance", "order"]].drop_duplicates().itertuples(index=False, name=None))
    order_styles = dict(zip([order for *_, order in orders], styles(range(len(orders))).values(), strict=True))
    figure, axes = grid_of_axes(len(rows), len(repeats))
    for row, (negative, size, model) in zip(axes, rows, strict=True):
        for ax, number in zip(row, repeats, strict=True):
            panel = data[(data.model == model) & (data.repeated_fraction == -negative) & (data.repeats == number)]
            for order, style in order_styles.items():
                points(ax, "tokens_since", panel[panel.order == order], label=order, **style)
            ax.axhline(0.0, color="gray", linewidth=0.8, linestyle=":")
            ax.set_title(f"{size_name(model, size)}, f = {percent(-negative)}, R = {number:g}", fontsize=9)
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter(lambda value, _: short_count(value))
            ax.minorticks_off()
        row[0].set_ylabel("retention (nats/token)")
    limit(axes[0][0], min(0.0, data["mean"].min()), data["mean"].max())  # the axes of all panels are shared
    for ax in axes[-1]:
        ax.set_xlabel(log_label("tokens since the last copy"))
    legend(figure, axes)
    return Plot(
        NAME,
        "What is retained of a repeated sequence",
        "Retention is the loss of the clean run with the same seed on a pool sequence, minus the repeated run's loss on it; 0 means that"
        " repetition taught the model nothing about this sequence in particular. Tokens are counted from the start of the training step"
        " that contained the sequence's last copy. Each value is a mean over all evaluations by which the model has trained on at least"
        " half of a sequence's copies."
        f" {interval_note(data)}",
        figure,
        data,
    )
