"""Effective size over own size against model size, one line per number of repeats [H22, fig. 4 left]."""

import pandas as pd

from analysis.figures.axes import size_axis
from analysis.figures.estimates import interval_note, points
from analysis.figures.panels import grid_of_axes
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import colors
from analysis.intervals import Bound, over_seeds, with_bounds
from analysis.measures.effective_size import NoLaw, clean_law, size_multipliers
from analysis.runs import Runs, left_out_of_laws, scaling_runs

NAME = "size_multiplier"


def plot(runs: Runs) -> Plot | Missing:
    """One panel per fraction; white triangles are bounds."""
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
    fractions = sorted(table.repeated_fraction.unique(), reverse=True)
    figure, axes = grid_of_axes(1, len(fractions))
    palette = colors(table.repeats)
    for ax, fraction in zip(axes[0], fractions, strict=True):
        for place, repeats in enumerate(sorted(palette)):
            line = data[(data.repeated_fraction == fraction) & (data.repeats == repeats)]
            bounds = line[line.bound != Bound.EXACT]
            known = line.assign(mean=line["mean"].where(line.bound == Bound.EXACT))  # no line across a bound
            points(ax, "parameters_non_embedding", known, color=palette[repeats], label=f"R = {repeats:g}")
            # Bounds of all R coincide (smallest clean size over own size), so they are shown side by side.
            aside = bounds.parameters_non_embedding * 1.06 ** (place - len(palette) // 2)
            ax.plot(aside, bounds["mean"], "v", color=palette[repeats], markerfacecolor="white", markersize=6)
        ax.axhline(1.0, color="gray", linewidth=0.8, linestyle=":")
        ax.set_title(f"f = {fraction:.0%}")
        size_axis(ax, table.parameters_non_embedding)
    axes[0][0].set(yscale="log", ylabel="effective size / size")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center")
    return Plot(
        NAME,
        "Effective size",
        "Size of the clean model with the same final test loss, divided by the run's own size; 1 is no harm. The clean law is"
        f" L = {law.irreducible:.3g} + {law.coefficient:.3g}·N^-{law.exponent:.3g}, through {law.points} clean runs (largest residual"
        f" {law.residual:.3f} nats). It is not extrapolated: white triangles are upper bounds for runs worse than the smallest clean model"
        f" (N = {law.smallest:,.0f}). Hernandez et al. (fig. 4 left): 0.55 at f = 10%, R = 1,220; 10x and 73x smaller at the worst R for"
        f" f = 50% and 90%. {interval_note(data)} {left_out_of_laws(runs)}".rstrip(),
        figure,
        pd.DataFrame(data),
    )
