"""Plot several studies on the same axes: the differences against R, final test loss, and the learning curves."""

import pandas as pd

from analysis.figures.axes import repeats_axis, tokens_axis
from analysis.figures.estimates import interval_note, points
from analysis.figures.panels import drawn, grid_of_axes, legend, not_drawn_note, rows_and_columns
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import along, styles
from analysis.formatting import percent, size_name
from analysis.intervals import over_seeds
from analysis.measures.study_comparison import LOSS, Studies, StudyComparison, largest_difference

LOSSES, CURVES, HEADLINE = "study_losses", "study_curves", "study_headline"
MOST_CURVES = 12  # panels of learning curves


def plot_losses(studies: Studies, comparison: StudyComparison) -> Plot | Missing:
    """Plot one column per model and fraction: the difference from the reference above, and final test loss below."""
    done = pd.concat([runs.done.assign(study=name) for name, runs in studies], ignore_index=True)
    panels = _panels(done)
    if not panels:
        return Missing(LOSSES, "no study has a finished run from scratch")
    by = ["study", "model", "parameters_non_embedding", "repeated_fraction", "repeats"]
    losses = over_seeds(done, by, "final_test_loss")
    differences = comparison.differences[comparison.differences.metric == LOSS]
    names = [name for name, _ in studies]
    looks = dict(zip(names, styles(range(len(names))).values(), strict=True))
    figure, axes = grid_of_axes(2, len(panels), sharey="row")
    for (model, fraction), upper, lower in zip(panels, *axes, strict=True):
        for ax, table in ((upper, differences), (lower, losses)):
            panel = table[(table.model == model) & table.repeated_fraction.isin([0.0, fraction])]
            for place, name in enumerate(names):
                line = panel[panel.study == name].sort_values("repeats")
                line = line.assign(repeats=line.repeats * 1.05 ** (place - (len(names) - 1) / 2))
                points(ax, "repeats", line, label=name, **looks[name])
            repeats_axis(ax, losses[losses.model == model].repeats.clip(lower=1))
        upper.axhline(0.0, color="gray", linewidth=0.8, linestyle=":")
        size = losses[losses.model == model].parameters_non_embedding.iloc[0]
        upper.set_title(size_name(model, size) + (f", f = {percent(fraction)}" if fraction else ""), fontsize=9)
    axes[0][0].set_ylabel(f"difference from\n{comparison.reference} (nats/token)")
    axes[1][0].set_ylabel("final test loss\n(nats/token)")
    legend(figure, axes)
    return Plot(
        LOSSES,
        "Final test loss in every study",
        "Above: the difference in final test loss between runs that agree in everything except the factors in which the studies differ."
        f" Below: final test loss against R, one line per study. {interval_note(losses)}",
        figure,
        losses,
    )


def plot_headline(studies: Studies, comparison: StudyComparison) -> Plot:
    """Plot the differences from the reference at the model and fraction with the largest one, one line per other study."""
    arm = largest_difference(comparison)
    losses = comparison.differences[comparison.differences.metric == LOSS]
    same_model = losses[losses.model == arm.model]
    fraction = arm.repeated_fraction or same_model.repeated_fraction.max()  # next to clean runs, repeated ones
    differences = same_model[same_model.repeated_fraction.isin([0.0, fraction])]
    figure, axes = grid_of_axes(1, 1, height=3.0)
    figure.set_size_inches(5.6, 3.9)
    ax = axes[0][0]
    for place, (name, look) in enumerate(zip(dict(studies), styles(range(len(studies))).values(), strict=True)):
        line = differences[differences.study == name].sort_values("repeats")
        if len(line):
            points(ax, "repeats", line.assign(repeats=line.repeats * 1.04**place), label=name, **look)
    ax.axhline(0.0, color="gray", linewidth=0.8, linestyle=":")
    repeats_axis(ax, differences.repeats)
    share = f", f = {percent(fraction)}" if fraction else ""
    ax.set_title(size_name(arm.model, arm.parameters_non_embedding) + share, fontsize=9)
    ax.set_ylabel(f"final test loss minus that of {comparison.reference}\n(nats/token)")
    ax.legend(fontsize=8)
    pairing = "paired by seed" if differences.paired.all() else "paired by seed where the studies share seeds"
    caption = (
        f"Difference in final test loss from {comparison.reference} against R, at the model and fraction with the largest difference,"
        f" {pairing}. {interval_note(differences)}"
    )
    return Plot(HEADLINE, "The result in one figure", caption, figure, differences)


def plot_curves(studies: Studies, comparison: StudyComparison) -> Plot | Missing:
    """Plot test loss over training, one panel per arm, one line per run, for the arms with the largest differences."""
    differences = comparison.differences[comparison.differences.metric == LOSS]
    arms = differences.reindex(differences["mean"].abs().sort_values(ascending=False).index)
    keys = ["model", "parameters_non_embedding", "repeated_fraction", "repeats"]
    arms = arms.drop_duplicates(keys).head(MOST_CURVES).sort_values(keys)
    names = [name for name, _ in studies]
    looks = dict(zip(names, styles(range(len(names))).values(), strict=True))
    figure, axes = grid_of_axes(*rows_and_columns(len(arms)))
    flat = [ax for row in axes for ax in row]
    curves = []
    for ax, arm in zip(flat, arms.itertuples(), strict=False):
        for name, runs in studies:
            table = runs.combined.table
            same = (table.model == arm.model) & (table.repeated_fraction == arm.repeated_fraction)
            for run in table[same & (table.repeats == arm.repeats)].itertuples():
                curve = runs.combined.curve(str(run.name))
                late = drawn(curve, run.trained_tokens)
                ax.plot(late.tokens, late.test_loss, linewidth=1.1, label=name, **along(looks[name], len(late)))
                curves.append(curve[["name", "step", "tokens", "test_loss"]].assign(study=name))
        arm_name = f"f = {percent(arm.repeated_fraction)}, R = {arm.repeats:g}" if arm.repeats > 1 else "clean"
        ax.set_title(f"{size_name(arm.model, arm.parameters_non_embedding)}, {arm_name}", fontsize=9)
        tokens_axis(ax)
    for ax in flat[len(arms) :]:
        ax.set_visible(False)
    for row in axes:
        row[0].set_ylabel("test loss (nats/token)")
    legend(figure, axes)
    longest = max(int(runs.combined.table.trained_tokens.max()) for _, runs in studies)
    return Plot(
        CURVES,
        "Learning curves in every study",
        "Test loss during training on the same axes, one line per run, for the arms with the largest differences."
        f" {not_drawn_note(longest)}",
        figure,
        pd.concat(curves, ignore_index=True).drop_duplicates(),
    )


def _panels(done: pd.DataFrame) -> list[tuple[str, float]]:
    """The pairs of a model and a fraction with finished repeated runs, or every model if there are none."""
    repeated = done[done.repeats > 1]
    rows = repeated if len(repeated) else done
    order = rows.sort_values(["parameters_non_embedding", "repeated_fraction"], ascending=[True, False])
    return list(dict.fromkeys(zip(order.model, order.repeated_fraction, strict=True)))
