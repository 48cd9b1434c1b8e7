"""Test loss and pool loss against size at the worst R, to show that harm appears where the pool is memorized [H22, fig. 2 right]."""

import pandas as pd

from analysis.figures.axes import size_axis
from analysis.figures.estimates import points, range_note
from analysis.figures.panels import grid_of_axes
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import CLEAN, styles
from analysis.intervals import interval_or_range
from analysis.measures.clean_law import PowerLaw
from analysis.measures.effective_size import clean_law
from analysis.runs import Runs

NAME = "divergence"


def plot(runs: Runs) -> Plot | Missing:
    """Plot one panel per fraction, at its most harmful R."""
    done = runs.done
    chosen = _chosen(done)
    if not chosen:
        return Missing(
            NAME,
            "needs finished repeated runs of at least two sizes at the same R and fraction, and clean runs of those sizes",
        )
    by = ["repeated_fraction", "repeats", "parameters_non_embedding"]
    test, pool = (interval_or_range(done, by, f"final_{which}_loss") for which in ("test", "pool"))
    figure, axes = grid_of_axes(1, len(chosen))
    test_style, pool_style, _ = styles(range(3)).values()
    law = clean_law(runs)
    tables = []
    for ax, (fraction, repeats) in zip(axes[0], sorted(chosen.items(), reverse=True), strict=True):
        for data, style, name in ((test, test_style, "test"), (pool, pool_style, "pool")):
            line = data[(data.repeated_fraction == fraction) & (data.repeats == repeats)]
            points(ax, "parameters_non_embedding", line, label=f"{name} loss", **style)
            clean = data[data.repeats == 1]
            if name == "pool":
                ax.plot(
                    clean.parameters_non_embedding, clean["mean"], ":", color=style["color"], label="pool, clean runs"
                )
            tables += [line.assign(loss=name), clean.assign(loss=name)]
        fitted = isinstance(law, PowerLaw)
        clean = test[test.repeats == 1]
        points(
            ax,
            "parameters_non_embedding",
            clean,
            **CLEAN | ({"linestyle": "none"} if fitted else {}),
            label="test loss, clean runs",
        )
        if isinstance(law, PowerLaw):
            sizes = clean.parameters_non_embedding[clean.parameters_non_embedding.between(law.smallest, law.largest)]
            ax.plot(sizes, law.loss(sizes), linewidth=1, label="clean law", **CLEAN)
        ax.set_title(f"f = {fraction:.0%}, R = {repeats:g}")
        size_axis(ax, done.parameters_non_embedding)
        ax.set_ylim(bottom=0)
    axes[0][0].set_ylabel("final loss (nats/token)")
    handles = dict(zip(*reversed(axes[0][0].get_legend_handles_labels()), strict=True))
    order = ["test loss", "test loss, clean runs", "clean law", "pool, clean runs", "pool loss"]
    figure.legend(
        [handles[name] for name in order if name in handles],
        [n for n in order if n in handles],
        loc="outside right center",
    )
    table = pd.concat(tables, ignore_index=True).drop_duplicates()
    reason = "" if isinstance(law, PowerLaw) else f" There is no clean law: {law.reason}."
    return Plot(
        NAME,
        "Where test loss departs from the clean law",
        "Final test loss and final loss on the repeated pool against model size. R is the most harmful value on average over"
        " sizes, among the values that were run at the most sizes. The dotted line is the clean runs' loss on text sampled like the pool,"
        " which they never trained on; a pool loss below this line means memorization. Hernandez et al. (fig. 2 right, f ="
        f" 10%, R = 122) find that test loss departs from the clean law where pool loss falls to 0.{reason} {range_note(table)}",
        figure,
        table,
    )


def _chosen(done: pd.DataFrame) -> dict[float, float]:
    """For each fraction, the R with the largest excess test loss, averaged over sizes.

    Considers only the values of R that cover the largest number of sizes. Fractions without two sizes at the same R are omitted.
    """
    clean = done[done.repeats == 1].groupby("model").final_test_loss.mean() if len(done) else pd.Series(dtype=float)
    repeated = done[(done.repeats > 1) & done.model.isin(clean.index)]
    chosen = {}
    for fraction, arms in repeated.groupby("repeated_fraction"):
        means = arms.groupby(["repeats", "model"]).final_test_loss.mean().reset_index()
        means["excess"] = means.final_test_loss - means.model.map(clean)
        by_repeats = means.groupby("repeats").excess.agg(["mean", "count"])
        most = by_repeats[by_repeats["count"] == by_repeats["count"].max()]
        if by_repeats["count"].max() > 1:
            chosen[float(fraction)] = float(most["mean"].idxmax())
    return chosen
