"""The R axis as a whole: harm, memorising, copying and induction heads above one another, a line per size."""

from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes

from analysis.figures.axes import repeats_axis
from analysis.figures.estimates import spread_note
from analysis.figures.panels import grid_of_axes, limit
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import colours
from analysis.formatting import short_count
from analysis.intervals import interval_or_range, over_seeds
from analysis.runs import ARM, Runs

NAME = "repeats_map"
Color = tuple[float, ...]
EXCESS = "excess_over_clean"


@dataclass(frozen=True)
class Measure:
    """A row of panels."""

    column: str
    label: str
    null: str = ""  # column of what is measured where nothing repeats; without one the clean run is the reference


MEASURES = (
    Measure(EXCESS, "test loss over\nclean (nats/token)"),
    Measure("pool_loss", "pool loss\n(nats/token)"),
    Measure("copying_loss", "copying loss\n(nats/token)"),
    Measure("random_copying_gain", "copying gain, random\ntokens (nats/token)", null="random_copying_gain_null"),
    Measure("prefix_matching", "prefix matching,\nbest head", null="prefix_matching_null"),
)


def plot(runs: Runs) -> Plot | Missing:
    """A column per fraction and a row per measure that the runs have; clean runs stand at R = 1."""
    done = runs.done
    if not (done[done.repeats > 1].groupby("repeated_fraction").repeats.nunique() > 1).any():
        return Missing(NAME, "needs finished runs at two or more numbers of repeats")
    clean = done[done.repeats == 1].groupby("model").final_test_loss.mean()
    final = done.rename(columns=lambda name: name.removeprefix("final_"))
    final[EXCESS] = final.test_loss - final.model.map(clean)
    columns = [name for m in MEASURES for name in (m.column, m.null) if name in final]
    final = final[[*ARM, *columns]].astype({name: float for name in columns})
    shown = [m for m in MEASURES if m.column in columns and final[m.column].notna().any()]
    repeated = final[final.repeats > 1]
    fractions = sorted(repeated.repeated_fraction.unique(), reverse=True)
    figure, axes = grid_of_axes(len(shown), len(fractions), sharey="row", height=1.7)
    colour = colours(repeated.parameters_non_embedding)
    tables = []
    for measure, row in zip(shown, axes, strict=True):
        for ax, fraction in zip(row, fractions, strict=True):
            sizes = repeated[repeated.repeated_fraction == fraction].parameters_non_embedding
            for size in sorted(sizes.unique()):
                here = final[(final.parameters_non_embedding == size) & final.repeated_fraction.isin([0.0, fraction])]
                line = _line(ax, here, measure, colour[size], f"N = {short_count(size)}")
                tables.append(line.assign(measure=measure.column, repeated_fraction=fraction))
            if measure is shown[0]:
                ax.set_title(f"f = {fraction:.0%}")
            repeats_axis(ax, final.repeats)
            if measure is not shown[-1]:
                ax.set_xlabel("")
        values = final[measure.column]
        low, high = values.min(), values.max()
        if measure.null:
            low, high = min(low, final[measure.null].min()), max(high, final[measure.null].max())
        if measure.column == "prefix_matching":  # where no head forms, what the lines do is noise and should look it
            low, high = 0.0, max(high, 4 * final[measure.null].max())
        limit(row[0], low, high)
        row[0].set_ylabel(measure.label)
    handles, labels = max((ax.get_legend_handles_labels() for ax in axes[0]), key=lambda found: len(found[0]))
    handles.append(axes[0][0].plot([], [], ":", color="0.3")[0])
    figure.legend(handles, [*labels, "clean run, or null"], loc="outside right center")
    table = pd.concat(tables, ignore_index=True)
    absent = "; ".join(" ".join(m.label.split("(")[0].split()) for m in MEASURES if m not in shown)
    left_out = f" Not measured here: {absent}." if absent else ""
    return Plot(
        NAME,
        "The R axis: harm, memorising, copying and heads",
        "Final numbers against R, a line per size, from above: test loss over the clean runs of the size; loss on the repeated"
        " pool; loss on copies 2 onwards of a paragraph; how much lower the loss is on copies 2 onwards of random tokens than"
        " on the first; attention of the best head to what came after earlier occurrences of the present token. Dotted: for"
        " losses the clean run of the size, for the other two their null, the same where nothing repeats. If harm is the"
        " price of memorising, the peak above stands where pool loss falls; copying and heads that break there and come back"
        " beyond share its cause, and ones that only fade do not. Ours; Hernandez et al. (figs. 5-6, f = 3%) give the copying"
        " and prefix matching of the worst R, and no paper the whole axis."
        f"{left_out} {spread_note(table)}",
        figure,
        table,
    )


def _line(ax: Axes, here: pd.DataFrame, measure: Measure, color: Color, label: str) -> pd.DataFrame:
    """Draw one size; returns its means over seeds with what the bars show."""
    means = interval_or_range(here, ["parameters_non_embedding", "repeats"], measure.column)
    bars = [means["mean"] - means.low, means.high - means["mean"]]
    style = {"color": color, "marker": "o", "markersize": 3.5, "linewidth": 1.3, "capsize": 2, "label": label}
    ax.errorbar(means.repeats, means["mean"], yerr=bars if means.seeds.max() > 1 else None, **style)  # type: ignore[arg-type]
    if measure.null:
        null = over_seeds(here, ["repeats"], measure.null)
        ax.plot(null.repeats, null["mean"], ":", color=color, linewidth=1)
    else:
        for value in means[means.repeats == 1]["mean"]:
            ax.axhline(value, linestyle=":", color=color, linewidth=1)
    return means
