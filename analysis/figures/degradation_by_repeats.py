"""Final test loss against the number of repeats, one line per size [H22, fig. 2]."""

from analysis.figures.axes import repeats_axis
from analysis.figures.estimates import interval_note, points
from analysis.figures.panels import grid_of_axes, legend
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import styles
from analysis.formatting import size_names
from analysis.intervals import over_seeds
from analysis.runs import Runs

NAME = "degradation_by_repeats"


def plot(runs: Runs) -> Plot | Missing:
    """Plot one panel per fraction; each size's clean run is its point at R = 1."""
    done = runs.done
    repeated = done[done.repeats > 1]
    if repeated.groupby("repeated_fraction").repeats.nunique().max() in (0, 1) or repeated.empty:
        return Missing(NAME, "needs finished runs with two or more values of R")
    data = over_seeds(done, ["parameters_non_embedding", "repeated_fraction", "repeats"], "final_test_loss")
    fractions = sorted(repeated.repeated_fraction.unique(), reverse=True)
    figure, axes = grid_of_axes(1, len(fractions))
    by_size = styles(repeated.parameters_non_embedding)
    names = size_names(repeated.model, repeated.parameters_non_embedding)
    for ax, fraction in zip(axes[0], fractions, strict=True):
        arms = data[data.repeated_fraction.isin([0.0, fraction])]
        for size in sorted(repeated[repeated.repeated_fraction == fraction].parameters_non_embedding.unique()):
            line = arms[arms.parameters_non_embedding == size].sort_values("repeats")
            points(ax, "repeats", line, label=names[size], **by_size[size])
        ax.set_title(f"f = {fraction:.0%}")
        repeats_axis(ax, done.repeats)
    axes[0][0].set_ylabel("final test loss (nats/token)")
    legend(figure, axes)
    return Plot(
        NAME,
        "Degradation against repeats",
        "Final test loss against R, one line per model size, with the clean run on the left. A few repeats do little harm, and so do very"
        " many, because a tiny pool takes almost no capacity to memorize; the worst R is in between. Hernandez et al. (fig. 4 right) find"
        f" that the worst R becomes smaller as models grow. {interval_note(data)}",
        figure,
        data,
    )
