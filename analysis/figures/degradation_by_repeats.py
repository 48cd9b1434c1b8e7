"""Final test loss against the number of repeats, one line per size [H22, fig. 2]."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from analysis.figures.axes import apart, repeats_axis
from analysis.figures.estimates import interval_note, points
from analysis.figures.panels import grid_of_axes, legend
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import styles
from analysis.formatting import percent, short_count, size_names, span
from analysis.intervals import over_seeds
from analysis.runs import Runs

NAME = "degradation_by_repeats"
RULE = 4  # "at most 4 epochs" [M23]
MOST_LABELED = 3  # lines whose highest points are labeled with their R
FEWEST_FOR_LABELS = 3  # points at R > 1
# Where the labels of the highest points are if several lines have them at the same R: offset in points, and alignment
LABELS = [((0, 5), "center", "bottom"), ((6, 0), "left", "center"), ((-6, 0), "right", "center")]


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
        highest: list[float] = []  # the R of the highest point of every labeled line
        for size in sorted(repeated[repeated.repeated_fraction == fraction].parameters_non_embedding.unique()):
            line = arms[arms.parameters_non_embedding == size].sort_values("repeats")
            points(ax, "repeats", line, label=names[size], **by_size[size])
            above_one = line[line.repeats > 1]
            if len(by_size) <= MOST_LABELED and len(above_one) >= FEWEST_FOR_LABELS:
                worst = float(above_one.repeats[above_one["mean"].idxmax()])
                highest.append(worst)
                _label_extremes(ax, above_one, by_size[size]["color"], len(by_size) == 1, highest.count(worst))
        repeats_axis(ax, done.repeats)
        ax.set_title(f"f = {percent(fraction)}")
        _pool_axis(ax, repeated[repeated.repeated_fraction == fraction])
        _rule_of_thumb(ax, arms)
    low, high = axes[0][0].get_ylim()
    axes[0][0].set_ylim(low - 0.14 * (high - low), high + 0.08 * (high - low))  # room for labels
    axes[0][0].set_ylabel("final test loss (nats/token)")
    legend(figure, axes)
    return Plot(
        NAME,
        "Degradation against repeats",
        "Final test loss against R, one line per model size, with the clean run on the left. If a line has a peak between the smallest"
        " and the largest R, fewer and more repeats both do less harm than the worst R. Hernandez et al. (fig. 4 right) find"
        f" that the worst R becomes smaller as models grow. The upper axis gives the size of the pool. Labels give the worst R."
        f" {_rule_note(done)}{interval_note(data)}",
        figure,
        data,
    )


def _label_extremes(ax: Axes, line: pd.DataFrame, color: object, lowest: bool, count: int) -> None:
    """Label the highest point with its R, and the lowest one too if `lowest`.

    count: how many labeled lines so far, including this one, have their highest points at this R.
    """
    ends = [(line["mean"].idxmax(), *LABELS[count - 1]), (line["mean"].idxmin(), (0, -5), "center", "top")]
    for index, offset, horizontal, vertical in ends if lowest else ends[:1]:
        point = line.loc[index]
        end = point["mean"] if point.seeds < 2 else point.high if vertical == "bottom" else point.low
        ax.annotate(
            f"R = {point.repeats:g}",
            (point.repeats, point["mean"] if vertical == "center" else end),
            offset,
            textcoords="offset points",
            ha=horizontal,
            va=vertical,
            fontsize=7,
            color=color,
            path_effects=[withStroke(linewidth=2, foreground="white")],  # readable on top of other lines
        )


def _pool_axis(ax: Axes, repeated: pd.DataFrame) -> None:
    """Add an upper axis with the number of tokens in the pool at every R, if it is the same for all sizes."""
    pools = repeated.groupby("repeats").pool_tokens
    if pools.nunique().max() > 1:
        return
    tokens = {float(repeats): short_count(int(pool)) for repeats, pool in pools.first().items()}
    ticks = apart(tokens, tokens.__getitem__)
    upper = ax.secondary_xaxis("top")
    upper.set_xticks(ticks, [tokens[repeats] for repeats in ticks])
    upper.minorticks_off()
    upper.tick_params(labelsize=7)
    upper.set_xlabel("tokens in the pool", fontsize=7)


def _costs(arms: pd.DataFrame) -> list[float]:
    """How much the loss at 1 < R <= RULE exceeds that of clean runs, for every size and R, in nats."""
    clean = arms[arms.repeats == 1].set_index("parameters_non_embedding")["mean"]
    few = arms[(arms.repeats > 1) & (arms.repeats <= RULE)]
    excess = few["mean"] - few.parameters_non_embedding.map(clean)
    return list(excess.dropna())


def _rule_of_thumb(ax: Axes, arms: pd.DataFrame) -> None:
    """Draw a bracket over the R that the rule of thumb allows, with what they cost."""
    costs = _costs(arms)
    if not costs:
        return
    transform = ax.get_xaxis_transform()
    ax.plot([1, 1, RULE, RULE], [0.07, 0.04, 0.04, 0.07], color="0.35", linewidth=1, transform=transform, clip_on=False)
    text = f"at most {RULE} epochs: {span(costs, '{:+z.3f}'.format)}"
    ax.text(1, 0.085, text, fontsize=7, color="0.25", transform=transform)


def _rule_note(done: pd.DataFrame) -> str:
    repeats = done.repeats[(done.repeats > 1) & (done.repeats <= RULE)]
    if repeats.empty or not (done.repeats == 1).any():
        return ""
    return (
        f"The bracket shows the rule of thumb to repeat data at most {RULE} times [M23] and how much its R cost compared with clean runs."
        " "
    )
