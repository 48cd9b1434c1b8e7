"""Plot the result that a report shows first, for the page and for card.png, an image for sharing."""

import io
import re
import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.axes import apart, repeats_axis, size_axis
from analysis.figures.estimates import interval_note, points
from analysis.figures.panels import grid_of_axes
from analysis.figures.plot import UNDATED, Missing, Plot
from analysis.figures.style import styles
from analysis.formatting import nats_digits, percent, shared_settings, size_name
from analysis.measures.headline import Headline, Kind, headline
from analysis.runs import Runs

NAME = "headline"
CARD_INCHES = (12.0, 6.3)
CARD_DPI = 100  # 1200 x 630 pixels, the size that social networks and chats show
NEXT_TO = 1.04  # lines are shifted sideways by this factor, so that their error bars do not overlap
QUANTITY = {
    Kind.REPEATS: "test loss above the clean run's\n(nats/token)",
    Kind.VARIANTS: "test loss above the clean run's\n(nats/token)",
    Kind.NAMED_POOL: "change in test loss from R = 0\n(nats/token)",
    Kind.FINE_TUNING: "test loss with a repeated parent minus\nthat with a clean parent (nats/token)",
}


def plot(runs: Runs) -> Plot | Missing:
    """Plot the difference from the control, paired by seed, with one line per size and fraction, variant, text or parent."""
    result = headline(runs)
    if result is None:
        return Missing(NAME, "no finished run can be compared with a finished control of the same size and seed")
    figure, axes = grid_of_axes(1, 1, height=3.0)
    figure.set_size_inches(5.6, 3.9)
    _draw(axes[0][0], result)
    return Plot(
        NAME,
        "The result in one figure",
        f"{_quantity(result.kind)} at the end of training, paired by seed{_where(result)}."
        f" {interval_note(result.lines)}",
        figure,
        result.lines.drop(columns="x"),
    )


def card(runs: Runs, study: str, question: str, answer: str, certainty: str, footer: str) -> bytes:
    """An image of 1200 x 630 pixels with the question, the answer, its uncertainty, and the figure, as PNG.

    The figure is empty without a result. Sentences of `certainty` that do not fit are left out.
    """
    figure = Figure(figsize=CARD_INCHES, dpi=CARD_DPI)
    figure.text(0.04, 0.92, study, fontsize=15, color="0.35", va="top")
    title = _filled(question, 29)
    figure.text(0.04, 0.85, title, fontsize=23, weight="bold", va="top", linespacing=1.25)
    top = 0.80 - 0.065 * (title.count("\n") + 1)
    text = _filled(answer, 48)
    figure.text(0.04, top, text, fontsize=15.5, va="top", linespacing=1.4)
    top -= 0.05 * (text.count("\n") + 1) + 0.035
    for sentence in re.split(r"(?<=\.) ", certainty):
        text = _filled(sentence, 60)
        if (bottom := top - 0.036 * (text.count("\n") + 1)) < 0.1:
            break
        figure.text(0.04, top, text, fontsize=12.5, va="top", linespacing=1.35, color="0.25")
        top = bottom - 0.012
    figure.text(0.04, 0.05, footer, fontsize=12, color="0.35")
    if result := headline(runs):
        ax = figure.add_axes((0.61, 0.17, 0.36, 0.72))
        _draw(ax, result)
        for item in (ax.xaxis.label, ax.yaxis.label, *ax.get_xticklabels(), *ax.get_yticklabels()):
            item.set_fontsize(12)
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata=UNDATED["png"])
    return content.getvalue()


def _filled(text: str, width: int) -> str:
    """Break a text into lines, but not at hyphens or around "="."""
    unbroken = text.replace(" = ", "\u00a0=\u00a0")
    return textwrap.fill(unbroken, width, break_on_hyphens=False).replace("\u00a0", " ")


def _quantity(kind: Kind) -> str:
    text = QUANTITY[kind].replace("\n", " ")
    return text[0].upper() + text[1:]


def _where(result: Headline) -> str:
    """The panel that the figure shows, if the lines do not name it."""
    if result.kind is Kind.VARIANTS:
        arm = result.arm
        return f", at {size_name(arm.model, arm.parameters_non_embedding)} and f = {percent(arm.repeated_fraction)}"
    if result.kind is Kind.FINE_TUNING and (result.lines.label != "").any():
        return ". Labels: f and R of the repeated parent"
    return f", with {result.arm.design}" if result.kind is Kind.NAMED_POOL else ""


def _draw(ax: Axes, result: Headline) -> None:
    names = list(dict.fromkeys(result.lines.line))
    title, short = shared_settings(names) if result.kind is Kind.VARIANTS else ("", names)
    by_line = dict(zip(names, styles(range(len(names))).values(), strict=True))
    for place, name in enumerate(names):
        line = result.lines[result.lines.line == name].sort_values("x")
        shifted = line.assign(x=line.x * NEXT_TO ** (place - (len(names) - 1) / 2))
        labels = dict(zip(shifted.x, line.label, strict=True)) if result.kind is Kind.FINE_TUNING else {}
        style = by_line[name] | ({"linestyle": "none"} if any(labels.values()) else {})
        points(ax, "x", shifted, label=short[place], **style)
        for row in shifted.itertuples():
            if labels.get(row.x):  # the parent's f and R
                ax.annotate(
                    labels[row.x], (row.x, row.mean), (8, 0), textcoords="offset points", va="center", fontsize=8
                )
    ax.axhline(0.0, color="black", linewidth=1.0, linestyle="--")
    if result.kind is Kind.FINE_TUNING:
        size_axis(ax, result.lines.x)
        extent = result.lines.x.max() / result.lines.x.min()
        room = 1.5 * extent**0.35 if result.lines.label.any() else 1.25  # for labels to the right of the points
        ax.set_xlim(result.lines.x.min() / 1.25, result.lines.x.max() * room)
    else:
        repeats_axis(ax, result.lines.x)
        if result.kind is Kind.NAMED_POOL:  # R = 1 is a pool that is read once, and not a clean run
            ticks = apart(result.lines.x)
            ax.set_xticks(ticks, [f"{value:g}" for value in ticks])
    ax.set_ylabel(QUANTITY[result.kind])
    if result.kind is not Kind.VARIANTS:  # the answer is a difference between two lines
        _label_of_arm(ax, result)
    if len(names) > 1 or (result.kind is Kind.FINE_TUNING and not result.lines.label.any()):
        low, high = ax.get_ylim()
        ax.set_ylim(low, high + 0.09 * (high - low) * ((len(names) + 1) // 2 + bool(title)))
        ax.legend(title=title or None, fontsize=8, loc="upper left", ncols=2 if len(names) > 3 else 1)


def _label_of_arm(ax: Axes, result: Headline) -> None:
    """Write the answer next to its point."""
    arm, above = result.arm, result.arm["mean"] > 0
    line = result.lines[(result.lines["mean"] == arm["mean"]) & (result.lines.seeds == arm.seeds)].iloc[0]
    end = arm["mean"] if arm.seeds < 2 else arm.high if above else arm.low
    offset, side = ((0, 4), "bottom") if above else ((0, -4), "top")
    ax.annotate(
        f"{arm['mean']:+z.{nats_digits(arm['mean'], arm.low, arm.high)}f}",
        (line.x, end),
        offset,
        textcoords="offset points",
        ha="center",
        va=side,
        fontsize=9,
    )
    low, high = ax.get_ylim()
    ax.set_ylim(low - (0.0 if above else 0.08 * (high - low)), high + (0.05 * (high - low) if above else 0.0))
