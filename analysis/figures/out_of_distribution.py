"""Effective size computed from the loss on other text, to show whether harm extends beyond the training distribution [H22, fig. 10]."""

import pandas as pd

from analysis.figures.axes import log_axis, repeats_axis
from analysis.figures.estimates import BOUNDS, bounded_line, range_note
from analysis.figures.panels import grid_of_axes, legend
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import styles
from analysis.formatting import listed, size_names
from analysis.intervals import interval_or_range, with_bounds
from analysis.measures.effective_size import TEST_LOSS, NoLaw, clean_law, size_multipliers, test_sets
from analysis.published import H22_OUT_OF_DISTRIBUTION
from analysis.runs import ARM, Runs

NAME = "out_of_distribution"


def plot(runs: Runs) -> Plot | Missing:
    """Plot one row of panels per fraction and one column per test set, with the study's own set first; open triangles are bounds."""
    other_sets = test_sets(runs)
    if not other_sets:
        return Missing(
            NAME,
            "no run was evaluated on another test set (metrics.jsonl has no `test_loss_<set>`)",
        )
    laws = {metric: clean_law(runs, metric) for metric in (TEST_LOSS, *other_sets)}
    why = "; ".join(f"{metric.name}: {law.reason}" for metric, law in laws.items() if isinstance(law, NoLaw))
    with_law = [metric for metric, law in laws.items() if not isinstance(law, NoLaw)]
    if not set(with_law) & set(other_sets):
        return Missing(NAME, f"no other test set has a clean law ({why})")
    done = runs.done[runs.done.repeats > 1]
    tables = []
    for metric in with_law:
        multipliers = size_multipliers(runs, metric)
        rows = done[ARM][done.name.isin(multipliers)]
        sizes = [multipliers[name] for name in rows.name]
        tables.append(
            rows.assign(
                test_set=metric.name,
                multiplier=[size.value for size in sizes],
                bound=[str(size.bound) for size in sizes],
            )
        )
    table = pd.concat(tables, ignore_index=True)
    if table.empty:
        return Missing(NAME, "no finished run with repeats > 1")
    by = ["test_set", "repeated_fraction", "parameters_non_embedding", "repeats"]
    data = with_bounds(interval_or_range(table, by, "multiplier"), table, by)
    fractions = sorted(table.repeated_fraction.unique(), reverse=True)
    figure, axes = grid_of_axes(len(fractions), len(with_law))
    by_size = styles(table.parameters_non_embedding)
    names = size_names(table.model, table.parameters_non_embedding)
    for row, fraction in zip(axes, fractions, strict=True):
        for ax, metric in zip(row, with_law, strict=True):
            panel = data[(data.repeated_fraction == fraction) & (data.test_set == metric.name)]
            for number, (size, style) in enumerate(by_size.items()):
                line = panel[panel.parameters_non_embedding == size]
                bounded_line(ax, "repeats", line, number, len(by_size), style, names[size])
            ax.axhline(1.0, color="gray", linewidth=0.8, linestyle=":")
            ax.set_title(f"{metric.name}, f = {fraction:.0%}", fontsize=9)
            repeats_axis(ax, table.repeats)
        log_axis(row[0], "effective size / size")
    legend(figure, axes)
    published = listed([f"{value} at f = {fraction:.0%}" for fraction, value in H22_OUT_OF_DISTRIBUTION.items()])
    return Plot(
        NAME,
        "Effective size on other text",
        "Effective size, paired by seed, divided by the run's own size, on the study's own test set (left) and on other"
        f" text. Each test set has its own clean law. {BOUNDS} For English models tested on Python, Hernandez et al. (fig. 10)"
        f" find multipliers of {published}. {f'Test sets without a clean law: {why}. ' if why else ''}{range_note(data)}",
        figure,
        data,
    )
