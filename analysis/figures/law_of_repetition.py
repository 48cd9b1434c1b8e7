"""This study's law of partial repetition and the runs it was fitted on: harm against R, one line per size."""

import numpy as np
import pandas as pd

from analysis.figures.axes import repeats_axis
from analysis.figures.panels import grid_of_axes
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import colors
from analysis.formatting import short_count
from analysis.intervals import percentile_band
from analysis.laws import partial
from analysis.laws.law import Constants
from analysis.laws.points import Floats, Points, prediction_points
from analysis.laws.study_fits import fit_study
from analysis.runs import Runs

NAME = "law_of_repetition"


def plot(runs: Runs) -> Plot | Missing:
    """One panel per fraction: runs as points, the law as lines with 95% bands."""
    laws = fit_study(runs)
    if partial.LAW.name not in laws.fits:
        return Missing(NAME, laws.reasons[partial.LAW.name])
    fitted, points = laws.fits[partial.LAW.name], laws.points
    repeated = points[~points.clean]
    fractions = sorted(np.unique(repeated.fraction), reverse=True)
    figure, axes = grid_of_axes(1, len(fractions), height=3.2)
    palette = colors(repeated.params)
    rows = []
    for ax, fraction in zip(axes[0], fractions, strict=True):
        for size, color in palette.items():
            size_runs = repeated[(repeated.params == size) & (repeated.fraction == fraction)]
            if not len(size_runs):
                continue
            excess = size_runs.loss - fitted.loss(size_runs.as_clean())
            ax.plot(size_runs.repeats, excess, "o", color=color, markersize=3.5, label=f"N = {short_count(size)}")
            line = prediction_points(
                size, size_runs.tokens[0], fraction, np.geomspace(1.0, repeated.repeats.max(), 200)
            )
            resampled = np.array([_excess(constants, line) for constants in fitted.resamples])
            ax.plot(line.repeats, _excess(fitted.constants, line), color=color, linewidth=1.3)
            if len(resampled):
                ax.fill_between(line.repeats, *percentile_band(resampled), color=color, alpha=0.2, linewidth=0)
            predicted = fitted.loss(size_runs) - fitted.loss(size_runs.as_clean())
            rows.append(
                pd.DataFrame({"N": size, "f": fraction, "R": size_runs.repeats, "penalty": excess, "law": predicted})
            )
        ax.set_title(f"f = {fraction:.0%}", fontsize=9)
        repeats_axis(ax, np.append(1, repeated.repeats))
    axes[0][0].set_ylabel("test loss above clean law\n(nats/token)")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center")
    bands = (
        "Bands: 95% bootstrap intervals, without the error of a wrong form; between the tested R nothing was measured"
        if fitted.resamples
        else "No intervals, because there are as many constants as runs"
    )
    return Plot(
        NAME,
        "A law of partial repetition",
        "Test loss above the fitted clean law. Points: runs. Lines: L = E + A/N^alpha + B/D'^beta + P·f^gamma·N^eta·m(R)/R, where"
        " m = 1 - exp(-((R-1)/R_m)^s) is how well the pool is memorized, R_m = k·N^-0.5·f^c·T^b, and D' are the effective tokens of"
        f" Muennighoff et al. {len(fitted.free)} constants were fitted on {fitted.points} runs, with a root mean square error of"
        f" {fitted.error:.3f} nats. {bands}. The section Laws shows how well it predicts held-out runs.",
        figure,
        pd.concat(rows, ignore_index=True),
    )


def _excess(constants: Constants, line: Points) -> Floats:
    return partial.loss(constants, line) - partial.loss(constants, line.as_clean())
