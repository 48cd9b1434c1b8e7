"""Loss on the parent's own texts during fine-tuning, to show whether memorized text is forgotten [H22, section 5]."""

from analysis.figures.axes import log_label, tokens_axis
from analysis.figures.panels import grid_of_axes
from analysis.figures.plot import Missing, Noise, Plot
from analysis.figures.style import along, styles
from analysis.formatting import size_names
from analysis.measures import fine_tuning
from analysis.runs import Runs

NAME = "forgetting"
TEXTS = ("test text", "pool", "unique text")  # in the order of fine_tuning.OF_PARENT


def plot(runs: Runs) -> Plot | Missing:
    """Plot one row of panels per kind of parent and one column per size, with one line per text."""
    table = fine_tuning.starts(runs)
    table = table[table.parent != ""]
    combined = runs.combined
    columns = fine_tuning.OF_PARENT
    if not set(columns) <= set(combined.evaluations):
        return Missing(NAME, "no fine-tuned run was evaluated on its parent's text")
    kinds = fine_tuning.ordered_starts(table.start)
    sizes = size_names(table.model, table.parameters_non_embedding)
    figure, axes = grid_of_axes(len(kinds), len(sizes))
    of_text = styles(range(len(TEXTS)))
    for row, kind in zip(axes, kinds, strict=True):
        for ax, size in zip(row, sizes, strict=True):
            tuned = table[(table.start == kind) & (table.parameters_non_embedding == size)]
            first = float("inf")
            for run in tuned.itertuples(index=False):
                curve = combined.curve(str(run.name))
                first = min(first, curve.tokens[curve.tokens > 0].min())
                for index, column in enumerate(columns):
                    ax.plot(curve.tokens, curve[column], linewidth=1.3, **along(of_text[index], len(curve)))
            ax.set_title(f"{sizes[size]}, {fine_tuning.with_repeats(kind, tuned.parent_repeats)}", fontsize=9)
            if first < float("inf"):
                ax.set_xscale("symlog", linthresh=first)  # because most forgetting happens in the first steps
                ax.minorticks_off()
            tokens_axis(ax, log_label("training tokens") if first < float("inf") else "training tokens")
        row[0].set_ylabel("loss (nats/token)")
    handles = [axes[0][0].plot([], [], label=name, **of_text[index])[0] for index, name in enumerate(TEXTS)]
    figure.legend(handles=handles, loc="outside right center", title="parent's:")
    return Plot(
        NAME,
        "Forgetting",
        "Loss on the parent's texts while the model is fine-tuned on other text. The parent trained R times on its pool, once on the"
        " unique text and never on the test text; a clean parent never trained on its pool either. The pool has been forgotten once its"
        " line meets the test-text line. The token axis is linear up to the first evaluation and logarithmic beyond it.",
        figure,
        fine_tuning.over_training(table, runs, columns),
        Noise("Forgetting: nothing to forget", sentence) if (sentence := fine_tuning.nothing_to_forget(runs)) else None,
    )
