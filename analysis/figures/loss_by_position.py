"""Final test loss by position in the context, one line per number of repeats [O22]."""

import pandas as pd

from analysis.figures.axes import log_label
from analysis.figures.panels import (
    arms,
    grid_of_axes,
    legend_of_repeats,
    limit,
    over_repeats,
    rows_and_columns,
    seeds_note,
)
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import styles
from analysis.runs import ARM, Runs
from repeat_study.probes.positions import position_bands

NAME = "loss_by_position"


def plot(runs: Runs) -> Plot | Missing:
    """Plot one panel per fraction and model."""
    table = _by_position(runs)
    if table.empty:
        return Missing(NAME, "no finished run recorded its loss by position (older versions did not)")
    panels = arms(table)
    figure, axes = grid_of_axes(*rows_and_columns(len(panels)))
    flat = [ax for row in axes for ax in row]
    repeats_styles = styles(table.repeats[table.repeats > 1])
    for ax, panel in zip(flat, panels, strict=False):
        over_repeats(ax, "position", "loss", panel.runs, repeats_styles)
        ax.set(xscale="log", xlabel=log_label("position in context (tokens)"))
        ax.set_title(panel.title, fontsize=9)
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_tick_params(labelbottom=True)
    for ax in flat[len(panels) :]:
        ax.set_visible(False)
    limit(flat[0], table.loss.min(), table.loss.max())
    for row in axes:
        row[0].set_ylabel("final test loss (nats/token)")
    legend_of_repeats(figure, flat[0], table.repeats, repeats_styles)
    return Plot(
        NAME,
        "Loss by position in context",
        "Final test loss at each position of the context, averaged over log-spaced bands. A falling line means that the model uses its"
        " context: n-grams over the first few tokens, induction heads after that. A repeated run's line that is above the clean run's and"
        " parallel to it means that the run predicts the text less well at every position. If the line flattens where the clean run's"
        " still falls, the run uses less of its context."
        f" {seeds_note(table)}",
        figure,
        table,
    )


def _by_position(runs: Runs) -> pd.DataFrame:
    """One row per finished run and band, with `position` (the middle of the band, in tokens) and `loss` in nats."""
    if "loss_by_position" not in runs.evaluations:
        return pd.DataFrame()
    last = runs.evaluations.sort_values("step").drop_duplicates("name", keep="last")
    last = last[last.loss_by_position.notna()][["name", "loss_by_position"]]
    table = runs.done[[*ARM, "context"]].merge(last, on="name")
    table["position"] = [[(low + 1 + high) / 2 for low, high in position_bands(context)] for context in table.context]
    exploded = table.rename(columns={"loss_by_position": "loss"}).explode(["position", "loss"], ignore_index=True)
    return exploded.astype({"position": float, "loss": float})
