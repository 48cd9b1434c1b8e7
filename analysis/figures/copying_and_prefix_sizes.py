"""Effective size computed from test loss, copying loss and prefix matching, against repeats [H22, figs. 5-6]."""

import pandas as pd

from analysis.figures.axes import log_axis, repeats_axis
from analysis.figures.estimates import BOUNDS, bounded_line, interval_note
from analysis.figures.panels import grid_of_axes, legend
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import styles
from analysis.formatting import size_names
from analysis.intervals import Estimate, over_seeds, with_bounds
from analysis.measures.effective_size import SIZE_METRICS, NoLaw, clean_law, size_multipliers
from analysis.runs import ARM, Runs

NAME = "copying_and_prefix_sizes"


def plot(runs: Runs) -> Plot | Missing:
    """Plot one row of panels per fraction and one column per metric that orders clean runs by size; open triangles are bounds."""
    laws = {metric: clean_law(runs, metric) for metric in SIZE_METRICS}
    with_law = [metric for metric, law in laws.items() if not isinstance(law, NoLaw)]
    reasons: dict[str, list[str]] = {}
    for metric, law in laws.items():
        if isinstance(law, NoLaw):
            reasons.setdefault(law.reason, []).append(metric.name)
    why = "; ".join(f"{', '.join(titles)}: {reason}" for reason, titles in reasons.items())
    if len(with_law) < 2:
        return Missing(NAME, f"needs two metrics whose scaling law can be fitted to the clean runs ({why})")
    tables = [_multipliers(runs, metric.name, size_multipliers(runs, metric)) for metric in with_law]
    table = pd.concat(tables, ignore_index=True)
    if table.empty:
        return Missing(NAME, "no finished run with repeats > 1")
    by = ["metric", "repeated_fraction", "parameters_non_embedding", "repeats"]
    data = with_bounds(over_seeds(table, by, "multiplier"), table, by)
    fractions = sorted(table.repeated_fraction.unique(), reverse=True)
    figure, axes = grid_of_axes(len(fractions), len(with_law))
    by_size = styles(table.parameters_non_embedding)
    names = size_names(table.model, table.parameters_non_embedding)
    for row, fraction in zip(axes, fractions, strict=True):
        for ax, metric in zip(row, with_law, strict=True):
            panel = data[(data.repeated_fraction == fraction) & (data.metric == metric.name)]
            for number, (size, style) in enumerate(by_size.items()):
                line = panel[panel.parameters_non_embedding == size]
                bounded_line(ax, "repeats", line, number, len(by_size), style, names[size])
            ax.axhline(1.0, color="gray", linewidth=0.8, linestyle=":")
            ax.set_title(f"{metric.name}, f = {fraction:.0%}", fontsize=9)
            repeats_axis(ax, table.repeats)
        log_axis(row[0], "effective size / size")
    legend(figure, axes)
    return Plot(
        NAME,
        "Effective size by copying and prefix matching",
        "Effective size, paired by seed, divided by the run's own size. Each metric has its own clean law; for"
        f" prefix matching, the law is fitted to 1 − the best head's score. {BOUNDS} If repetition breaks copying, copying loss and prefix"
        " matching give smaller sizes than test loss does. Hernandez et al. (figs. 5-6, f = 3%, worst R) find sizes up to 3x smaller as"
        " measured by copying and 1.47x by prefix matching (2x in another passage), but at most 1.15x by test loss."
        f" {f'Metrics without a clean law: {why}. ' if why else ''}{interval_note(data)}",
        figure,
        data,
    )


def _multipliers(runs: Runs, title: str, estimates: dict[str, Estimate]) -> pd.DataFrame:
    """One row per repeated run that has an effective size."""
    table = runs.done[ARM][runs.done.name.isin(estimates) & (runs.done.repeats > 1)]
    sizes = [estimates[name] for name in table.name]
    return table.assign(
        metric=title, multiplier=[size.value for size in sizes], bound=[str(size.bound) for size in sizes]
    )
