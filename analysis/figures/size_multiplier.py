"""Effective size divided by actual size, against model size, one line per number of repeats [H22, fig. 4 left]."""

import pandas as pd

from analysis.figures.axes import log_axis, size_axis
from analysis.figures.estimates import bounded_line, interval_note
from analysis.figures.panels import grid_of_axes, legend
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import styles
from analysis.formatting import size_names
from analysis.intervals import over_seeds, with_bounds
from analysis.measures.effective_size import NoLaw, clean_law, size_multipliers
from analysis.runs import Runs, left_out_of_laws, scaling_runs

NAME = "size_multiplier"


def plot(runs: Runs) -> Plot | Missing:
    """Plot one panel per fraction; open triangles are bounds."""
    law, multipliers = clean_law(runs), size_multipliers(runs)
    if isinstance(law, NoLaw):
        return Missing(NAME, law.reason)
    table = scaling_runs(runs)
    table = table.assign(
        multiplier=[multipliers[name].value for name in table.name],
        bound=[str(multipliers[name].bound) for name in table.name],
    )
    table = table[table.repeats > 1]
    if table.empty:
        return Missing(NAME, "no finished run with repeats > 1")
    by = ["repeated_fraction", "repeats", "parameters_non_embedding"]
    data = with_bounds(over_seeds(table, by, "multiplier"), table, by)
    clean = runs.done[runs.done.repeats == 1]
    smallest = size_names(clean.model, clean.parameters_non_embedding)[law.smallest]
    fractions = sorted(table.repeated_fraction.unique(), reverse=True)
    figure, axes = grid_of_axes(1, len(fractions))
    repeats_styles = styles(table.repeats)
    for ax, fraction in zip(axes[0], fractions, strict=True):
        for number, (repeats, style) in enumerate(repeats_styles.items()):
            line = data[(data.repeated_fraction == fraction) & (data.repeats == repeats)]
            label = f"R = {repeats:g}"
            bounded_line(ax, "parameters_non_embedding", line, number, len(repeats_styles), style, label)
        ax.axhline(1.0, color="gray", linewidth=0.8, linestyle=":")
        ax.set_title(f"f = {fraction:.0%}")
        size_axis(ax, table.parameters_non_embedding)
    log_axis(axes[0][0], "effective size / size")
    legend(figure, axes)
    return Plot(
        NAME,
        "Effective size",
        "Size of a clean model with the same excess loss, divided by the run's own size; 1 means no harm. The excess is paired by seed and"
        " added to the clean law's loss at the run's size. The clean law is"
        f" L = {law.irreducible:.3g} + {law.coefficient:.3g}·N^-{law.exponent:.3g}, through {law.points} clean runs (largest residual"
        f" {law.residual:.3f} nats). The law is not extrapolated: open triangles are bounds. Upper bounds (▽) are runs worse than the"
        f" smallest clean model, {smallest}. If some seeds of an arm are bounds, its mean is a bound too (△ for the largest size)."
        " Hernandez et al. (fig. 4 left) find a multiplier of 0.55 at f = 10% and R = 1,220, and sizes 10x and 73x smaller"
        f" at the worst R for f = 50% and 90%. {interval_note(data)} {left_out_of_laws(runs)}".rstrip(),
        figure,
        pd.DataFrame(data),
    )
