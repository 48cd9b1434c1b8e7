"""Pool loss and test loss against repeats, to show that harm appears where the pool is memorized [H22, fig. 2 right]."""

import pandas as pd

from analysis.figures.axes import repeats_axis
from analysis.figures.estimates import interval_note, points
from analysis.figures.panels import grid_of_axes, legend, rows_and_columns
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import styles
from analysis.formatting import size_names
from analysis.intervals import over_seeds
from analysis.runs import Runs

NAME = "pool_loss"


def plot(runs: Runs) -> Plot | Missing:
    """Plot one panel per fraction and size, with the clean run's losses for comparison."""
    done = runs.done
    repeated = done[done.repeats > 1]
    if repeated.empty:
        return Missing(NAME, "no finished run with repeats > 1")
    by = ["repeated_fraction", "parameters_non_embedding", "repeats"]
    test, pool = (over_seeds(done, by, f"final_{which}_loss") for which in ("test", "pool"))
    panels = sorted({(-row.repeated_fraction, row.parameters_non_embedding) for row in repeated.itertuples()})
    figure, axes = grid_of_axes(*rows_and_columns(len(panels)))
    flat = [ax for row in axes for ax in row]
    test_style, pool_style, _ = styles(range(3)).values()
    names = size_names(repeated.model, repeated.parameters_non_embedding)
    for ax, (negative, size) in zip(flat, panels, strict=False):
        for data, style, name in ((test, test_style, "test loss"), (pool, pool_style, "pool loss")):
            size_data = data[data.parameters_non_embedding == size]
            points(ax, "repeats", size_data[size_data.repeated_fraction == -negative], label=name, **style)
            for clean in size_data[size_data.repeats == 1].itertuples():
                ax.axhline(
                    float(clean.mean), color=style["color"], linestyle=":", linewidth=1, label=f"{name}, clean run"
                )
        ax.set(title=f"{names[size]}, f = {-negative:.0%}")
        ax.title.set_fontsize(9)
    for ax in flat[len(panels) :]:
        ax.set_visible(False)
    for ax in flat[: len(panels)]:
        repeats_axis(ax, repeated.repeats)
    for row in axes:
        row[0].set_ylabel("final loss (nats/token)")
    legend(figure, axes)
    return Plot(
        NAME,
        "Pool loss and test loss",
        "Final test loss and final loss on the repeated pool against R. Dotted: the clean run, whose pool loss is its loss on text sampled"
        " like the pool. It never trained on that text, so its dotted line is the pool loss without memorization. Hernandez et al."
        f" (fig. 2 right) find that test loss departs from the law where pool loss falls to 0. {interval_note(pd.concat([test, pool]))}",
        figure,
        test.assign(loss="test").pipe(lambda table: pd.concat([table, pool.assign(loss="pool")])),
    )
