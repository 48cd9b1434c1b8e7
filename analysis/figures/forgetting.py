"""Loss on the parent's own texts while it is fine-tuned on another: whether what was learnt by heart is forgotten [H22, section 5]."""

from analysis.figures.axes import tokens_axis
from analysis.figures.panels import grid_of_axes
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import colours
from analysis.formatting import short_count
from analysis.measures import fine_tuning
from analysis.runs import Runs

NAME = "forgetting"
TEXTS = ("its test text", "its pool", "unique text it saw")  # as fine_tuning.OF_PARENT has them


def plot(runs: Runs) -> Plot | Missing:
    """A row per kind of parent and a column per size; a line per text."""
    table = fine_tuning.starts(runs)
    table = table[table.parent != ""]
    together = runs.combined
    columns = fine_tuning.OF_PARENT
    if not set(columns) <= set(together.evaluations):
        return Missing(NAME, "no fine-tuned run was evaluated on its parent's text")
    kinds, sizes = fine_tuning.ordered_starts(table.start), sorted(table.parameters_non_embedding.unique())
    figure, axes = grid_of_axes(len(kinds), len(sizes))
    shade = colours(range(len(TEXTS)))
    for row, kind in zip(axes, kinds, strict=True):
        for ax, size in zip(row, sizes, strict=True):
            here = table[(table.start == kind) & (table.parameters_non_embedding == size)]
            first = float("inf")
            for run in here.itertuples(index=False):
                curve = together.curve(str(run.name))
                first = min(first, curve.tokens[curve.tokens > 0].min())
                for place, column in enumerate(columns):
                    ax.plot(curve.tokens, curve[column], color=shade[place], linewidth=1.3)
            repeats = ", ".join(f"R = {value:,}" for value in sorted(here.parent_repeats.unique()) if value > 1)
            ax.set_title(
                f"{short_count(size)}, {kind}{', ' + repeats if repeats and repeats not in kind else ''}", fontsize=9
            )
            tokens_axis(ax)
            if first < float("inf"):
                ax.set_xscale("symlog", linthresh=first)  # most is forgotten in the first steps
                ax.minorticks_off()
        row[0].set_ylabel("loss (nats/token)")
    handles = [axes[0][0].plot([], [], color=shade[place], label=name)[0] for place, name in enumerate(TEXTS)]
    figure.legend(handles=handles, loc="outside right center", title="the parent's text:")
    return Plot(
        NAME,
        "Forgetting",
        "Loss on texts of the parent while it is fine-tuned on another text, from 0 tokens on (linear up to the first evaluation,"
        " then logarithmic). The pool was trained on R times, unique text once, the test text never; in a clean parent the pool is"
        " text that it never saw either, so the three lie together. Where the pool's line meets that of the test text, what was"
        " learnt by heart is gone.",
        figure,
        fine_tuning.over_training(table, runs, columns),
    )
