"""What laws predict for one plan: penalty and effective size over R, with intervals."""

import io
from pathlib import Path

import matplotlib
import numpy as np

from analysis.figures.panels import grid_of_axes
from analysis.forecast.forecast import SAFE, Forecast, Question
from analysis.formatting import short_count
from data_prep.files import write_atomically

STYLES = ("-", "--", "-.", ":", (0, (3, 1, 1, 1, 1, 1)), (0, (1, 2)))


def draw(answers: list[Forecast], question: Question, path: Path) -> None:
    """Write the figure in the form of the file's ending, .svg, .pdf or .png."""
    figure, axes = grid_of_axes(2, 1, sharey="row")
    colour = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, max(len(answers), 2)))
    upper, lower = axes[0][0], axes[1][0]
    for place, found in enumerate(answers):
        curve, label = found.curve, f"{found.predictor.name}, {found.predictor.origin}"
        color, dashes = tuple(colour[place]), STYLES[place % len(STYLES)]
        upper.plot(curve.repeats, curve.penalty, label=label, color=color, linestyle=dashes, linewidth=1.5)
        lower.plot(curve.repeats, curve.multiplier, color=color, linestyle=dashes, linewidth=1.5)
        if found.spread is not None:
            upper.fill_between(curve.repeats, *found.spread, color=color, alpha=0.15, linewidth=0)
    for ax in (upper, lower):
        if question.repeats:
            ax.axvline(question.repeats, color="grey", linewidth=0.8, linestyle=":")
        ax.set(xscale="log")
    lower.axhline(SAFE, color="grey", linewidth=0.8, linestyle=":")
    upper.set_ylabel("penalty (nats/token)")
    lower.set(ylabel="effective size / size", xlabel="repeats R", yscale="log")
    lower.yaxis.set_major_formatter("{x:g}")
    lower.yaxis.set_minor_formatter("{x:g}")
    upper.set_title(
        f"{short_count(question.params)} parameters, {short_count(question.tokens)} tokens, f = {question.fraction:.3g}",
        fontsize=9,
    )
    figure.legend(loc="outside lower center", fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:], bbox_inches="tight", dpi=150)
    write_atomically(path, buffer.getvalue())
