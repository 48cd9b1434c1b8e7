"""Induction heads and copying over training, above test loss [O22, figs. 1-3; H22 figs. 5-7]: formed, delayed or broken."""

from dataclasses import dataclass

import pandas as pd
from matplotlib.lines import Line2D

from analysis.figures.axes import tokens_axis
from analysis.figures.panels import arms, grid_of_axes, legend_of_repeats, limit, nulls, over_repeats, seeds_note
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import CLEAN, colours
from analysis.runs import ARM, Runs

NAME = "induction_over_training"
COLUMNS = 4
UNTRAINED = "0.6"  # grey


@dataclass(frozen=True)
class Measured:
    """A row of panels."""

    column: str  # of metrics.jsonl
    label: str
    null: str = ""
    from_share: float = 0.0  # of the run, where the first fall would squeeze everything else


ROWS = (
    Measured("prefix_matching", "prefix matching,\nbest head", null="prefix_matching_null"),
    Measured("copying_score", "copying score,\nbest head", null="copying_score_null"),
    Measured("random_copying_gain", "copying gain, random\ntokens (nats/token)", null="random_copying_gain_null"),
    Measured("copying_gain", "copying gain\n(nats/token)", null="copying_gain_null"),
    Measured("in_context_score", "in-context score\n(nats/token)"),
    Measured("test_loss", "test loss\n(nats/token)", from_share=0.02),
)


def plot(runs: Runs) -> Plot | Missing:
    """A column per fraction and model; a row per measure, in aligned time."""
    if "prefix_matching" not in runs.evaluations:
        return Missing(NAME, "the runs hold no scores of heads: made before they were measured, or contexts too short")
    columns = [name for row in ROWS for name in (row.column, row.null) if name in runs.evaluations]
    seen = runs.evaluations.loc[runs.evaluations.prefix_matching.notna(), ["name", "step", "tokens", *columns]]
    table = runs.table[ARM].merge(seen, on="name")
    panels = arms(table)
    blocks = [panels[start : start + COLUMNS] for start in range(0, len(panels), COLUMNS)]
    figure, axes = grid_of_axes(len(blocks) * len(ROWS), min(len(panels), COLUMNS), sharey="row", height=1.75)
    colour = colours(table.repeats[table.repeats > 1])
    for row, measured in enumerate(ROWS):
        late = table[table.tokens >= measured.from_share * table.tokens.max()]
        low, high = late[measured.column].min(), late[measured.column].max()
        if measured.null:
            low, high = min(low, late[measured.null].min()), max(high, late[measured.null].max())
        if measured.column == "prefix_matching":  # where no head forms, what the lines do is noise and should look it
            low, high = 0.0, max(high, 4 * late[measured.null].max())
        for block, shown in enumerate(blocks):
            line_of_axes = axes[block * len(ROWS) + row]
            for place, ax in enumerate(line_of_axes):
                ax.set_visible(place < len(shown))
                if place >= len(shown):
                    continue
                here = shown[place].runs
                if measured.null:
                    nulls(ax, "tokens", measured.null, here, colour)
                if measured.column == "prefix_matching":
                    ax.axhline(here[here.step == 0].prefix_matching.max(), color=UNTRAINED, linewidth=1)
                here = here[here.tokens >= measured.from_share * here.tokens.max()]
                over_repeats(ax, "tokens", measured.column, here, colour)
                if row == 0:
                    ax.set_title(shown[place].title, fontsize=9)
                tokens_axis(ax)
                if row < len(ROWS) - 1:
                    ax.set_xlabel("")
            limit(line_of_axes[0], low, high)
            line_of_axes[0].set_ylabel(measured.label)
    legend_of_repeats(
        figure,
        axes[0][0],
        colour,
        null=Line2D([], [], color=CLEAN, linestyle=":"),
        untrained=Line2D([], [], color=UNTRAINED),
    )
    return Plot(
        NAME,
        "Induction heads and copying over training",
        "From above: attention that the best head pays to what came after earlier occurrences of the present token; how far"
        " the best head's direct path raises the token it attends to, -1 to 1; how much lower the loss is on copies 2 onwards of"
        " random tokens, then of a paragraph, than on the first copy; loss late in the context less loss early in"
        " it (lower is better); test loss. Dotted: each line's null, the same where nothing, or no order, repeats;"
        " grey: the best head of an untrained model. Heads form where prefix matching leaves both, and copying and the"
        " in-context score follow (Olsson et al. 2022). Hernandez et al. (fig. 7, two layers, attention only, f = 50%):"
        " repeating breaks the copying of a paragraph down. A model of one layer cannot form induction heads."
        f" {seeds_note(table)}",
        figure,
        _numbers(table),
    )


def _numbers(table: pd.DataFrame) -> pd.DataFrame:
    measured = [name for row in ROWS for name in (row.column, row.null) if name]
    return table[[*ARM, "step", "tokens", *measured]]
