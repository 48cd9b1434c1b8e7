"""Plot the forecasts of `predict`: penalty and effective size against R for each law, with intervals."""

import io
from pathlib import Path

import numpy as np

from analysis.figures.axes import log_axis, log_label
from analysis.figures.panels import grid_of_axes
from analysis.figures.style import along, styles
from analysis.forecast.forecast import SAFE, Forecast
from analysis.forecast.question import Question
from analysis.formatting import short_count
from data_prep.files import write_output


def plot(forecasts: list[Forecast], question: Question, path: Path) -> None:
    """Plot forecasts to a file. Its suffix (.svg, .pdf or .png) determines the format."""
    figure, axes = grid_of_axes(2, 1, sharey="row")
    upper, lower = axes[0][0], axes[1][0]
    for forecast, look in zip(forecasts, styles(range(len(forecasts))).values(), strict=True):
        curve, label = forecast.curve, forecast.predictor.label
        style = along(look, len(curve.repeats)) | {"linewidth": 1.5}
        penalty = np.where(curve.penalty <= forecast.limit, curve.penalty, np.nan)  # NaN leaves a gap in the curve
        upper.plot(curve.repeats, penalty, label=label, **style)
        lower.plot(curve.repeats, curve.multiplier, **style)
        if forecast.band is not None:
            low, high = (np.minimum(end, forecast.limit) for end in forecast.band)
            upper.fill_between(curve.repeats, low, high, color=style["color"], alpha=0.15, linewidth=0)
    for ax in (upper, lower):
        if question.repeats:
            ax.axvline(question.repeats, color="gray", linewidth=0.8, linestyle=":")
        ax.set(xscale="log")
    lower.axhline(SAFE, color="gray", linewidth=0.8, linestyle=":")
    upper.set_ylabel("penalty (nats/token)")
    lower.set_xlabel(log_label("repeats R"))
    log_axis(lower, "effective size / size")
    repeated = f"f = {question.fraction:.3g}"
    if question.subset_tokens is not None:
        repeated = f"a subset of {short_count(question.subset_tokens)} tokens"
        share = question.subset_tokens / question.tokens
        top = upper.secondary_xaxis(
            "top", functions=(lambda repeats: np.asarray(repeats) * share, lambda f: np.asarray(f) / share)
        )
        top.set_xlabel(log_label("repeated fraction f"))
        top.xaxis.set_major_formatter(lambda f, _: f"{100 * f:.3g}%")
    upper.set_title(
        f"{short_count(question.params)} parameters, {short_count(question.tokens)} tokens, {repeated}",
        fontsize=9,
    )
    figure.legend(loc="outside lower center", fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:], bbox_inches="tight", dpi=150)
    write_output(path, buffer.getvalue())
