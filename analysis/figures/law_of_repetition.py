"""Harm against R, as predicted by this study's law of partial repetition and as measured in the runs it was fitted to."""

import numpy as np
import pandas as pd

from analysis.figures.axes import repeats_axis
from analysis.figures.panels import grid_of_axes, legend
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import styles
from analysis.formatting import size_names
from analysis.laws import partial
from analysis.laws.partial import DATA_EXPONENT, HALF_LIFE
from analysis.laws.points import prediction_points
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
            assert size_runs.control is not None
            ax.plot(
                size_runs.repeats,
                size_runs.penalty,
                label=names[size],
                **style | {"linestyle": "none", "markersize": 4.5},
            )
            line = prediction_points(
                size, size_runs.tokens[0], fraction, np.geomspace(1.0, repeated.repeats.max(), 200)
            )
            low, high = fitted.penalty_interval(line, np.full(len(line), size_runs.control.mean()))
            ax.plot(line.repeats, fitted.penalty(line), linewidth=1.3, **style | {"marker": ""})
            ax.fill_between(line.repeats, low, high, color=style["color"], alpha=0.2, linewidth=0)
            columns = {"N": size, "f": fraction, "R": size_runs.repeats, "penalty": size_runs.penalty}
            rows.append(pd.DataFrame(columns | {"law": fitted.penalty(size_runs)}))
        ax.set_title(f"f = {fraction:.0%}", fontsize=9)
        repeats_axis(ax, np.append(1, repeated.repeats))
    axes[0][0].set_ylabel("test loss above clean run\n(nats/token)")
    legend(figure, axes)
    return Plot(
        NAME,
        "A law of partial repetition",
        "Test loss above the clean run of the same size. Points: runs. Lines: this tool's own law of partial repetition, the sum of the"
        f" value that repeated tokens lose, B·(D'^-{DATA_EXPONENT} - T^-{DATA_EXPONENT}), and the cost of memorizing the pool,"
        " P·f^gamma·N^eta·(1 - exp(-((R-1)/R_m)^s))/(R/R_m)^kappa, where R_m = k·N^a·T^b·f^c. D' is the effective number of tokens,"
        f" because every further pass over the pool is worth less: D' = T·(1 - f + f/R·(1 + {HALF_LIFE}·(1 - exp(-(R-1)/{HALF_LIFE}))))."
        f" The law has {len(fitted.free)} constants with priors, which were fitted to {fitted.points} runs, with a"
        f" root-mean-square error of {fitted.error:.3f} nats. Bands: 95% intervals for another run, measured by leaving out sizes and"
        ' ranges of R. The section "Laws" shows how well the law predicts held-out runs.',
        figure,
        pd.concat(rows, ignore_index=True),
    )
