"""Our law of partial repetition over the runs it was fitted on: penalty against R, one line per size."""

import numpy as np
import pandas as pd

from analysis.figures.axes import repeats_axis
from analysis.figures.panels import grid_of_axes
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import colours
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
    colour = colours(repeated.params)
    rows = []
    for ax, fraction in zip(axes[0], fractions, strict=True):
        for size, color in colour.items():
            here = repeated[(repeated.params == size) & (repeated.fraction == fraction)]
            if not len(here):
                continue
            excess = here.loss - fitted.loss(here.as_clean())
            ax.plot(here.repeats, excess, "o", color=color, markersize=3.5, label=f"N = {short_count(size)}")
            asked = prediction_points(size, here.tokens[0], fraction, np.geomspace(1.0, repeated.repeats.max(), 200))
            drawn = np.array([_excess(constants, asked) for constants in fitted.resamples])
            ax.plot(asked.repeats, _excess(fitted.constants, asked), color=color, linewidth=1.3)
            if len(drawn):
                ax.fill_between(asked.repeats, *percentile_band(drawn), color=color, alpha=0.2, linewidth=0)
            predicted = fitted.loss(here) - fitted.loss(here.as_clean())
            rows.append(
                pd.DataFrame({"N": size, "f": fraction, "R": here.repeats, "penalty": excess, "law": predicted})
            )
        ax.set_title(f"f = {fraction:.0%}", fontsize=9)
        repeats_axis(ax, np.append(1, repeated.repeats))
    axes[0][0].set_ylabel("penalty (nats/token)")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center")
    inside = (
        "Bands: 95% over a bootstrap of the residuals, in which what the form misses is not; between the R tried nothing was measured"
        if fitted.resamples
        else "No interval, for it has as many constants as runs"
    )
    return Plot(
        NAME,
        "A law of partial repetition",
        "Test loss above the fitted clean law. Points: runs. Lines: L = E + A/N^alpha + B/D'^beta +"
        " P·f^gamma·N^eta·m(R)/R, where m = 1 - exp(-((R-1)/R_m)^s) says how well the pool is known, R_m = k·N^-0.5·f^c·T^b, and D'"
        f" counts passes as Muennighoff et al. do; {len(fitted.free)} constants through {fitted.points} runs, off by {fitted.error:.3f}"
        f" nats (root mean square). {inside}. How it predicts runs that it was not fitted on is in the table of laws.",
        figure,
        pd.concat(rows, ignore_index=True),
    )


def _excess(constants: Constants, asked: Points) -> Floats:
    return partial.loss(constants, asked) - partial.loss(constants, asked.as_clean())
