"""The share of compute that repetition wastes, against repeats [C26]."""

from analysis.figures.axes import repeats_axis
from analysis.figures.estimates import BOUNDS, bounded_line, range_note
from analysis.figures.panels import grid_of_axes, legend, limit
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import styles
from analysis.formatting import listed, short_count, size_names
from analysis.intervals import interval_or_range, with_bounds
from analysis.measures.compute_equivalent_loss import compute, lost_compute
from analysis.measures.effective_size import NoLaw
from analysis.published import C26_FRACTION, C26_LOST_COMPUTE
from analysis.runs import ARM, Runs, scaling_runs

NAME = "compute_equivalent_loss"


def plot(runs: Runs) -> Plot | Missing:
    """Plot one panel per fraction, with one line per size. 0 means no harm, and open triangles are bounds."""
    wasted = lost_compute(runs)
    if isinstance(wasted, NoLaw):
        return Missing(NAME, wasted.reason)
    table = scaling_runs(runs)
    table = table[[*ARM, "parameters_total", "trained_tokens"]].assign(
        compute=compute(table),
        lost=[wasted.lost[name].value for name in table.name],
        bound=[str(wasted.lost[name].bound) for name in table.name],
    )
    table = table[table.repeats > 1]
    if table.empty:
        return Missing(NAME, "no finished run with repeats > 1")
    by = ["repeated_fraction", "parameters_non_embedding", "parameters_total", "compute", "repeats"]
    data = with_bounds(interval_or_range(table, by, "lost"), table, by)
    fractions = sorted(table.repeated_fraction.unique(), reverse=True)
    figure, axes = grid_of_axes(1, len(fractions))
    by_size = styles(table.parameters_non_embedding)
    names = size_names(table.model, table.parameters_non_embedding)
    for ax, fraction in zip(axes[0], fractions, strict=True):
        for number, (size, style) in enumerate(by_size.items()):
            line = data[(data.repeated_fraction == fraction) & (data.parameters_non_embedding == size)]
            bounded_line(ax, "repeats", line, number, len(by_size), style, names[size])
        ax.axhline(0.0, color="gray", linewidth=0.8, linestyle=":")
        ax.set_title(f"f = {fraction:.0%}")
        repeats_axis(ax, table.repeats)
    limit(axes[0][0], min(0.0, data["mean"].min()), max(0.0, data["mean"].max()))
    axes[0][0].set_ylabel("compute-equivalent loss 1 − C*(L)/C")
    legend(figure, axes)
    law, same = wasted.law, table.trained_tokens.nunique() == 1
    published = listed([f"{lost:.2f} at {short_count(size)}" for size, lost in C26_LOST_COMPUTE.items()])
    return Plot(
        NAME,
        "Compute-equivalent loss",
        "The share of a run's compute (C = 6·N·T, where N counts all parameters) that a clean run with the same test loss would save; 0"
        f" means no harm. The compute C* of that clean run comes from the law of the clean runs, L = {law.irreducible:.3g} +"
        f" {law.coefficient:.3g}·C^-{law.exponent:.3g} ({law.points} runs from {law.smallest:.2g} to {law.largest:.2g} FLOPs, largest"
        f" residual {law.residual:.3f} nats), which is not extrapolated. {BOUNDS}"
        + (
            " All sizes are trained on the same number of tokens, so this is not a law of compute-optimal training."
            if same
            else ""
        )
        + f" At the worst R, Chudnovsky et al. (f = {C26_FRACTION:.0%}, 20 tokens per parameter) find losses of {published}."
        f" {range_note(data)}",
        figure,
        data,
    )
