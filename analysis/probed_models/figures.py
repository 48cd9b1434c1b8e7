"""Copying and prefix matching of probed models against R, one line per size [H22, figs. 5-6]."""

from collections import defaultdict

import pandas as pd

from analysis.figures.along_repeats import line_along_repeats
from analysis.figures.axes import place_of_repeats, repeats_axis
from analysis.figures.estimates import range_note
from analysis.figures.panels import grid_of_axes, legend, limit
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import styles
from analysis.formatting import percent, short_count
from repeat_study.records.metric import FRACTION
from repeat_study.records.metrics import BY_KEY

COPYING = ("copying_loss", "copying_gain", "random_copying_gain")
PREFIX_MATCHING = ("prefix_matching",)
SIZE = ["params", "tokens"]


def copying(table: pd.DataFrame) -> Plot | Missing:
    """Plot one row of panels per measure of copying and one column per fraction."""
    return _along_repeats(
        table,
        "copying_along_repeats",
        COPYING,
        "Copying against R",
        "Copying against R, one line per model size. Copying loss is the loss on the second and later copies of a paragraph. Copying"
        " gain is the loss on the first copy minus the copying loss. Hernandez et al. (fig. 5) find that copying suffers more than test"
        " loss at the worst R. Dotted: the clean models for copying loss, and the null for the gains.",
    )


def prefix_matching(table: pd.DataFrame) -> Plot | Missing:
    """Plot the best head's prefix matching, with one panel per fraction."""
    return _along_repeats(
        table,
        "prefix_matching_along_repeats",
        PREFIX_MATCHING,
        "Prefix matching against R",
        "The best head's prefix matching against R, one line per model size. Hernandez et al. (fig. 6) find that it falls at the worst R."
        " Dotted: the null.",
    )


def _along_repeats(table: pd.DataFrame, name: str, keys: tuple[str, ...], title: str, idea: str) -> Plot | Missing:
    """Plot one row of panels per measured metric and one column per fraction; clean models are in every column."""
    repeated = table[~table.clean]
    if repeated.empty or table.repeats.nunique() < 2:
        return Missing(name, "needs models with two or more values of R")
    measures = [BY_KEY[key] for key in keys if key in table]
    fractions = sorted(repeated.fraction.unique(), reverse=True)
    figure, axes = grid_of_axes(len(measures), len(fractions), sharey="row", height=2.5 if len(measures) == 1 else 1.9)
    sizes = [tuple(size) for size in repeated[SIZE].drop_duplicates().sort_values(SIZE).to_numpy()]
    looks = dict(zip(sizes, styles(range(len(sizes))).values(), strict=True))
    labels = _labels(sizes)
    place = place_of_repeats(table.repeats)
    clean = table.repeats[table.clean].min()
    tables = []
    for measure, row in zip(measures, axes, strict=True):
        for ax, fraction in zip(row, fractions, strict=True):
            for size in sizes:
                models = table[(table[SIZE] == list(size)).all(axis=1) & (table.clean | (table.fraction == fraction))]
                models = models.dropna(subset=[measure.key])
                if models.clean.all():
                    continue
                line = line_along_repeats(ax, models, measure, SIZE, looks[size], labels[size], clean, place)
                tables.append(line.assign(measure=measure.key, fraction=fraction))
            if measure is measures[0]:
                ax.set_title(f"f = {percent(fraction)}")
            repeats_axis(ax, table.repeats)
            if measure is not measures[-1]:
                ax.set_xlabel("")
        values = table[[key for key in (measure.key, measure.null_key) if key]]
        low, high = values.min(axis=None), values.max(axis=None)
        if measure.unit == FRACTION:  # without this, the noise of models without induction heads would fill the panel
            low, high = 0.0, max(high, 4 * table[measure.null_key].max())
        limit(row[0], low, high)
        row[0].set_ylabel(measure.axis_label)
    rows_by_line = defaultdict(list)
    for number, measure in enumerate(measures, start=1):
        rows_by_line["null" if measure.null_key else "clean models"].append(f"{number}")
    for line, rows in rows_by_line.items():
        label = line if len(rows_by_line) == 1 else f"row{'s' * (len(rows) > 1)} {' and '.join(rows)}: {line}"
        axes[-1][-1].errorbar([], [], linestyle=":", color="0.3", label=label)
    legend(figure, axes)
    data = pd.concat(tables, ignore_index=True)
    return Plot(name, title, f"{idea} {range_note(data)}", figure, data)


def _labels(sizes: list[tuple[float, float]]) -> dict[tuple[float, float], str]:
    """Names of sizes; sizes that were trained on different numbers of tokens are told apart."""
    several = len({params for params, _ in sizes}) < len(sizes)
    return {
        (params, tokens): short_count(params) + (f", {short_count(tokens)} tokens" if several else "")
        for params, tokens in sizes
    }
