"""The worst R and the pool's size there against all parameters [C26]: whether it is repeats or tokens that matter."""

import numpy as np

from analysis.figures.axes import log_axis, size_axis
from analysis.figures.estimates import BOUNDS, estimates, seeds_say
from analysis.figures.panels import grid_of_axes
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import colours
from analysis.formatting import short_count
from analysis.measures.peak_laws import PowerLawOfSize, peak_law, peak_table
from analysis.measures.peaks import NO_PEAK, peaks
from analysis.published import C26_FRACTION, C26_SIZES, C26_TOKENS_PER_PARAMETER, C26_WORST_POOL, C26_WORST_REPEATS
from analysis.runs import Runs

NAME = "peak_location"


def plot(runs: Runs) -> Plot | Missing:
    """A column per fraction; above the worst R, below the pool there, by a Gaussian in log R and by the R tried."""
    found = peaks(runs)
    if not found:
        return Missing(NAME, NO_PEAK)
    sizes = [peak.total for peak in found]
    if len(set(sizes)) < 2:
        return Missing(NAME, "needs peaks of at least two sizes, and there is one")
    fractions = sorted({peak.fraction for peak in found}, reverse=True)
    figure, axes = grid_of_axes(2, len(fractions), sharey="row")
    of_gaussian, of_tried = list(colours(range(3)).values())[:2]
    overlap = C26_FRACTION in fractions and min(sizes) <= C26_SIZES[1] and max(sizes) >= C26_SIZES[0]
    said = []
    for column, fraction in enumerate(fractions):
        here = [peak for peak in found if peak.fraction == fraction]
        x = [peak.total for peak in here]
        for row, (symbol, published) in enumerate((("R", C26_WORST_REPEATS), ("D_r", C26_WORST_POOL))):
            ax, pool = axes[row][column], row == 1
            tried = [peak.pool(peak.worst) if pool else peak.worst for peak in here]
            centres = [p.gaussian and (p.pool(p.gaussian) if pool else p.gaussian) for p in here]
            estimates(ax, [1.03 * size for size in x], tried, of_tried, "s", join=False)
            estimates(ax, x, centres, of_gaussian, "o", join=False)
            law = peak_law(here, "pool_at_gaussian" if pool else "gaussian")
            if isinstance(law, PowerLawOfSize):
                span = [size for size in x if law.law.smallest <= 1.001 * size and size <= 1.001 * law.law.largest]
                ax.plot(span, [law.law.at(size) for size in span], "--", color=of_gaussian, linewidth=1.2)
                said.append(f"f = {fraction:.0%}: {symbol} = {law}")
            # Their pools are shares of 20 tokens per parameter and mean nothing beside other budgets.
            alike = all(0.5 < peak.tokens / peak.total / C26_TOKENS_PER_PARAMETER < 2 for peak in here)
            if overlap and fraction == C26_FRACTION and (alike or not pool):
                ends = np.array([max(min(sizes), C26_SIZES[0]), min(max(sizes), C26_SIZES[1])])
                ax.plot(ends, [published.at(size) for size in ends], ":", color="0.3", linewidth=1.6)
            log_axis(ax, short_count if pool else "{:g}".format)
            size_axis(ax, sizes)
            ax.set_xlabel("all parameters")
        axes[0][column].set_title(f"f = {fraction:.0%}")
    axes[0][0].set_ylabel("worst R")
    axes[1][0].set_ylabel("pool $D_r$ there (tokens)")
    blank = axes[0][0]
    handles = [
        blank.plot([], [], "o", color=of_gaussian, label="Gaussian in log R")[0],
        blank.plot([], [], "s", color=of_tried, label="worst R tried")[0],
        blank.plot([], [], "--", color=of_gaussian, label="fitted $k N^a$")[0],
    ]
    if overlap:
        handles.append(blank.plot([], [], ":", color="0.3", label="published")[0])
    figure.legend(handles=handles, loc="outside right center")
    seeds = [peak.seeds for peak in found]
    fits = (
        "; ".join(said) + " (in brackets the interval of the exponent)"
        if said
        else "none: three sizes with a Gaussian centre inside the R tried are needed"
    )
    misses = max((p.gaussian_misses / p.height.value for p in found if p.gaussian), default=0.0)
    few = [f"{peak.model}, f = {peak.fraction:.0%}" for peak in found if peak.gaussian is None]
    return Plot(
        NAME,
        "Where the peak lies",
        "Worst R and the pool's size there, D_r = f·T/R, against all parameters: the centre of a Gaussian in log R through"
        " the excess of final test loss, and the worst of the R tried, whose interval reaches half-way to the next."
        f"{' Too few R for a Gaussian: ' + ', '.join(few) + '.' if few else ''} The Gaussians miss the excess by up to"
        f" {misses:.0%} of its height: where this is much, as with a tail that stays high, the centre is no peak, however"
        f" narrow its interval. {BOUNDS} Power laws, N being all parameters:"
        f" {fits}. Chudnovsky et al. (f = 10%, 20 tokens per parameter, N from {C26_SIZES[0]:.3g} to {C26_SIZES[1]:.3g}):"
        f" R = {C26_WORST_REPEATS.coefficient:.3g}·N^{C26_WORST_REPEATS.exponent}, D_r ="
        f" {C26_WORST_POOL.coefficient:.3g}·N^{C26_WORST_POOL.exponent}"
        f"{'' if overlap else '; not drawn, for no size of theirs is among these at their f'}. {seeds_say(min(seeds), max(seeds))}",
        figure,
        peak_table(found),
    )
