"""Harm against R, as predicted by this study's law of partial repetition and as measured in the runs it was fitted to."""

import numpy as np
import pandas as pd

from analysis.figures.axes import repeats_axis
from analysis.figures.panels import grid_of_axes, legend
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import styles
from analysis.formatting import size_names
from analysis.intervals import percentile_band
from analysis.laws import partial
from analysis.laws.law import Constants
from analysis.laws.points import Floats, Points, prediction_points
from analysis.laws.study_fits import fit_study
from analysis.runs import Runs

NAME = "law_of_repetition"


def plot(runs: Runs) -> Plot | Missing:
    """Plot one panel per fraction. Points are runs; lines with 95% bands are the law's predictions, one line per size."""
    laws = fit_study(runs)
    if partial.LAW.name not in laws.fits:
        return Missing(NAME, laws.reasons[partial.LAW.name])
    fitted, points = laws.fits[partial.LAW.name], laws.points
    repeated = points[~points.clean]
    fractions = sorted(np.unique(repeated.fraction), reverse=True)
    figure, axes = grid_of_axes(1, len(fractions), height=3.2)
    by_size = styles(repeated.params)
    models = runs.done[runs.done.repeats > 1]
    names = size_names(models.model, models.parameters_non_embedding)
    rows = []
    for ax, fraction in zip(axes[0], fractions, strict=True):
        for size, style in by_size.items():
            size_runs = repeated[(repeated.params == size) & (repeated.fraction == fraction)]
            if not len(size_runs):
                continue
            excess = size_runs.loss - fitted.loss(size_runs.as_clean())
            ax.plot(size_runs.repeats, excess, label=names[size], **style | {"linestyle": "none", "markersize": 4.5})
            line = prediction_points(
                size, size_runs.tokens[0], fraction, np.geomspace(1.0, repeated.repeats.max(), 200)
            )
            resampled = np.array([_excess(constants, line) for constants in fitted.resamples])
            ax.plot(line.repeats, _excess(fitted.constants, line), linewidth=1.3, **style | {"marker": ""})
            if len(resampled):
                ax.fill_between(line.repeats, *percentile_band(resampled), color=style["color"], alpha=0.2, linewidth=0)
            predicted = fitted.loss(size_runs) - fitted.loss(size_runs.as_clean())
            rows.append(
                pd.DataFrame({"N": size, "f": fraction, "R": size_runs.repeats, "penalty": excess, "law": predicted})
            )
        ax.set_title(f"f = {fraction:.0%}", fontsize=9)
        repeats_axis(ax, np.append(1, repeated.repeats))
    axes[0][0].set_ylabel("test loss above clean law\n(nats/token)")
    legend(figure, axes)
    bands = (
        "Bands: 95% bootstrap intervals, which do not account for a wrong functional form. Nothing was measured between the tested values"
        " of R"
        if fitted.resamples
        else "There are no intervals, because the law has as many constants as there are runs"
    )
    return Plot(
        NAME,
        "A law of partial repetition",
        "Test loss above the fitted clean law. Points: runs. Lines: the law L = E + A/N^alpha + B/D'^beta + P·f^gamma·N^eta·m(R)/R, where"
        " m = 1 - exp(-((R-1)/R_m)^s) is how well the pool is memorized, R_m = k·N^-0.5·f^c·T^b, and D' is the number of effective"
        f" tokens as defined by Muennighoff et al. The law has {len(fitted.free)} constants, which were fitted to {fitted.points} runs,"
        " with a root-mean-square error of"
        f' {fitted.error:.3f} nats. {bands}. The section "Laws" shows how well the law predicts held-out runs.',
        figure,
        pd.concat(rows, ignore_index=True),
    )


def _excess(constants: Constants, line: Points) -> Floats:
    return partial.loss(constants, line) - partial.loss(constants, line.as_clean())
