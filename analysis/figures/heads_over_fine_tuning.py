"""Copying and prefix matching while models are fine-tuned: whether heads that repeats kept from forming form now [H22, figs. 5-6]."""

from analysis.figures.axes import tokens_axis
from analysis.figures.induction_over_training import UNTRAINED, Measured
from analysis.figures.panels import grid_of_axes
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import start_colours
from analysis.formatting import short_count
from analysis.measures import fine_tuning
from analysis.runs import Runs

NAME = "heads_over_fine_tuning"
ROWS = (
    Measured("prefix_matching", "prefix matching,\nbest head", null="prefix_matching_null"),
    Measured("random_copying_gain", "copying gain, random\ntokens (nats/token)", null="random_copying_gain_null"),
    Measured("copying_gain", "copying gain\n(nats/token)", null="copying_gain_null"),
)


def plot(runs: Runs) -> Plot | Missing:
    """A column per size and a row per measure, in aligned time; a line per run."""
    table = fine_tuning.starts(runs)
    table = table[table.model.isin(table[table.parent != ""].model)]
    together = runs.combined
    if "prefix_matching" not in together.evaluations:
        return Missing(NAME, "the runs hold no scores of heads: their context is too short for the probe")
    names, sizes = fine_tuning.ordered_starts(table.start), sorted(table.parameters_non_embedding.unique())
    colour = start_colours(names)
    figure, axes = grid_of_axes(len(ROWS), len(sizes), sharey="row", height=1.9)
    for row, measured in zip(axes, ROWS, strict=True):
        for ax, size in zip(row, sizes, strict=True):
            for run in table[table.parameters_non_embedding == size].itertuples(index=False):
                curve = together.curve(str(run.name))
                ax.plot(curve.tokens, curve[measured.column], color=colour[run.start], linewidth=1.3)
                ax.plot(curve.tokens, curve[measured.null], color=colour[run.start], linewidth=0.8, linestyle=":")
            if measured is ROWS[0]:
                ax.set_title(f"{short_count(size)} parameters", fontsize=9)
                untrained = [
                    together.curve(str(name)).prefix_matching.iloc[0]
                    for name in table[(table.parameters_non_embedding == size) & (table.parent == "")].name
                ]
                if untrained:
                    ax.axhline(max(untrained), color=UNTRAINED, linewidth=1)
            tokens_axis(ax)
            if measured is not ROWS[-1]:
                ax.set_xlabel("")
        row[0].set_ylabel(measured.label)
    axes[0][0].set_ylim(0.0, max(axes[0][0].get_ylim()[1], 4 * together.evaluations.prefix_matching_null.max()))
    handles = [axes[0][0].plot([], [], color=colour[name], label=name)[0] for name in names]
    handles.append(axes[0][0].plot([], [], color="black", linestyle=":", label="null of each")[0])
    handles.append(axes[0][0].plot([], [], color=UNTRAINED, label="untrained")[0])
    figure.legend(handles=handles, loc="outside right center")
    measured_columns = [column for row in ROWS for column in (row.column, row.null)]
    return Plot(
        NAME,
        "Copying and prefix matching over fine-tuning",
        "From above: attention that the best head pays to what came after earlier occurrences of the present token; how much lower"
        " the loss is on copies 2 onwards of random tokens, then of a paragraph, than on the first copy. Dotted: each run's null, the"
        " same where nothing, or no order, repeats; grey: the best head of an untrained model. A line per run; at 0 tokens a"
        " fine-tuned run is its parent.",
        figure,
        fine_tuning.over_training(table, runs, measured_columns),
    )
