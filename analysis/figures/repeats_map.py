"""Harm, memorization, copying and induction heads against R, one line per size."""

import pandas as pd

from analysis.figures.along_repeats import line_along_repeats
from analysis.figures.axes import repeats_axis
from analysis.figures.estimates import range_note
from analysis.figures.panels import grid_of_axes, legend, limit
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import styles
from analysis.formatting import size_names
from analysis.measures.effective_size import over_controls
from analysis.runs import ARM, Runs
from repeat_study.records.metric import CLEAN_RUN, NATS, Direction, Metric
from repeat_study.records.metrics import BY_KEY

NAME = "repeats_map"
EXCESS = "excess_over_clean"
KEYS = ("pool_loss", "copying_loss", "random_copying_gain", "prefix_matching")
MEASURES = (
    Metric(
        EXCESS,
        "test loss above clean",
        NATS,
        Direction.LOWER,
        "final test loss minus that of the clean run of the same size and seed",
        CLEAN_RUN,
    ),
    *(BY_KEY[key] for key in KEYS),
)


def plot(runs: Runs) -> Plot | Missing:
    """Plot one column of panels per fraction and one row per metric that the runs recorded; clean runs are at R = 1."""
    done = runs.done
    if not (done[done.repeats > 1].groupby("repeated_fraction").repeats.nunique() > 1).any():
        return Missing(NAME, "needs finished runs with two or more values of R")
    final = done.rename(columns=lambda name: name.removeprefix("final_"))
    final[EXCESS] = over_controls(done, done.final_test_loss, done.repeats == 1)
    columns = [name for metric in MEASURES for name in (metric.key, metric.null_key) if name in final]
    final = final[[*ARM, *columns]].astype({name: float for name in columns})
    recorded = [metric for metric in MEASURES if metric.key in columns and final[metric.key].notna().any()]
    repeated = final[final.repeats > 1]
    fractions = sorted(repeated.repeated_fraction.unique(), reverse=True)
    figure, axes = grid_of_axes(len(recorded), len(fractions), sharey="row", height=1.7)
    by_size = styles(repeated.parameters_non_embedding)
    names = size_names(repeated.model, repeated.parameters_non_embedding)
    tables = []
    for measure, row in zip(recorded, axes, strict=True):
        for ax, fraction in zip(row, fractions, strict=True):
            sizes = repeated[repeated.repeated_fraction == fraction].parameters_non_embedding
            for size in sorted(sizes.unique()):
                size_runs = final[
                    (final.parameters_non_embedding == size) & final.repeated_fraction.isin([0.0, fraction])
                ]
                line = line_along_repeats(
                    ax, size_runs, measure, ["parameters_non_embedding"], by_size[size], names[size]
                )
                tables.append(line.assign(measure=measure.key, repeated_fraction=fraction))
            if measure is recorded[0]:
                ax.set_title(f"f = {fraction:.0%}")
            repeats_axis(ax, final.repeats)
            if measure is not recorded[-1]:
                ax.set_xlabel("")
        values = final[measure.key]
        low, high = values.min(), values.max()
        if measure.null_key:
            low, high = min(low, final[measure.null_key].min()), max(high, final[measure.null_key].max())
        if (
            measure.key == "prefix_matching"
        ):  # without this, the noise of a study without induction heads would fill the panel
            low, high = 0.0, max(high, 4 * final[measure.null_key].max())
        limit(row[0], low, high)
        row[0].set_ylabel(measure.axis_label)
    axes[-1][-1].plot([], [], ":", color="0.3", label="clean run or null")
    legend(figure, axes)
    table = pd.concat(tables, ignore_index=True)
    absent = "; ".join(metric.name for metric in MEASURES if metric not in recorded)
    left_out = f" Not measured here: {absent}." if absent else ""
    return Plot(
        NAME,
        "Harm, memorization, copying and heads against R",
        "Final values against R, one line per model size. From top to bottom: test loss above the clean runs, loss on the repeated pool,"
        " copying loss on a paragraph, copying gain on random tokens, and prefix matching of the best head. Dotted: the clean run for"
        " losses, and the null for copying gain and prefix matching. If memorizing the pool causes the harm, harm should peak where pool"
        " loss falls. If copying and heads break there and recover at larger R, they probably share this cause. Hernandez et al. (figs."
        f" 5-6, f = 3%) measure copying and prefix matching only at the worst R.{left_out} {range_note(table)}",
        figure,
        table,
    )
