"""Final test loss against model size, one line per number of repeats [H22, fig. 2 left]."""

from analysis.figures.axes import log_axis, size_axis
from analysis.figures.estimates import interval_note, points
from analysis.figures.panels import grid_of_axes, legend
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import CLEAN, styles
from analysis.intervals import over_seeds
from analysis.measures.clean_law import PowerLaw
from analysis.measures.effective_size import clean_law
from analysis.runs import Runs

NAME = "degradation_by_size"


def plot(runs: Runs) -> Plot | Missing:
    """Plot one panel per fraction, with the clean runs and their law for comparison."""
    done = runs.done
    repeated = done[done.repeats > 1]
    sizes = repeated.groupby("repeated_fraction").parameters_non_embedding.nunique()
    fractions = sorted(sizes[sizes > 1].index, reverse=True)
    if not fractions:
        return Missing(NAME, "needs finished repeated runs of at least two sizes")
    data = over_seeds(done, ["repeated_fraction", "repeats", "parameters_non_embedding"], "final_test_loss")
    figure, axes = grid_of_axes(1, len(fractions))
    repeats_styles = styles(repeated.repeats)
    law = clean_law(runs)
    for ax, fraction in zip(axes[0], fractions, strict=True):
        clean = data[data.repeats == 1]
        points(
            ax,
            "parameters_non_embedding",
            clean,
            **CLEAN | ({"linestyle": "none"} if isinstance(law, PowerLaw) else {}),
            label="clean",
        )
        if isinstance(law, PowerLaw):
            fitted = clean.parameters_non_embedding[clean.parameters_non_embedding.between(law.smallest, law.largest)]
            ax.plot(fitted, law.loss(fitted), label="clean law", **CLEAN)
        for repeats, style in repeats_styles.items():
            line = data[(data.repeated_fraction == fraction) & (data.repeats == repeats)]
            points(ax, "parameters_non_embedding", line, label=f"R = {repeats:g}", **style)
        ax.set_title(f"f = {fraction:.0%}")
        size_axis(ax, done.parameters_non_embedding)
    log_axis(axes[0][0], "final test loss (nats/token)")
    legend(figure, axes)
    return Plot(
        NAME,
        "Degradation against model size",
        "Final test loss against model size, one line per R. The distance above the clean runs is the harm. Hernandez et al."
        " (fig. 2 left, f = 10%) find a range of R in which an 800M model is no better than a clean model of 340M to 400M."
        f" {interval_note(data)}",
        figure,
        data,
    )
