"""The worst R and the pool size at this R, against the number of all parameters [C26]."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.axes import log_axis, size_axis
from analysis.figures.estimates import BOUNDS, estimates, peak_interval_note
from analysis.figures.panels import grid_of_axes
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import colors
from analysis.formatting import short_count, size_name
from analysis.measures.peak_laws import PowerLawOfSize, peak_law, peak_table
from analysis.measures.peaks import NO_PEAK, Peak, peaks
from analysis.published import C26_FRACTION, C26_SIZES, C26_TOKENS_PER_PARAMETER, C26_WORST_POOL, C26_WORST_REPEATS
from analysis.runs import Runs

NAME = "peak_location"
GAUSSIAN, TRIED = list(colors(range(3)).values())[:2]
PUBLISHED = "0.3"  # gray


def plot(runs: Runs) -> Plot | Missing:
    """Plot one column of panels per fraction. Top: the worst R; bottom: the pool size at this R.

    Each is estimated by the center of a Gaussian in log R and by the worst R tried.
    """
    all_peaks = peaks(runs)
    if not all_peaks:
        return Missing(NAME, NO_PEAK)
    sizes = [peak.total for peak in all_peaks]
    if len(set(sizes)) < 2:
        return Missing(NAME, "needs peaks for at least two model sizes, but only one has a peak")
    fractions = sorted({peak.fraction for peak in all_peaks}, reverse=True)
    figure, axes = grid_of_axes(2, len(fractions), sharey="row")
    overlap = C26_FRACTION in fractions and min(sizes) <= C26_SIZES[1] and max(sizes) >= C26_SIZES[0]
    fits, has_lines = [], False
    for column, fraction in enumerate(fractions):
        fraction_peaks = [peak for peak in all_peaks if peak.fraction == fraction]
        for row, symbol in enumerate(("R", "D_r")):
            ax, is_pool = axes[row][column], symbol == "D_r"
            law = _points(ax, fraction_peaks, is_pool)
            if isinstance(law, PowerLawOfSize):
                fits.append(f"f = {fraction:.0%}: {law.equation(symbol)}")
                has_lines |= law.is_determined
            # The published pool sizes are for 20 tokens per parameter and do not apply to other budgets.
            same_budget = all(0.5 < peak.tokens / peak.total / C26_TOKENS_PER_PARAMETER < 2 for peak in fraction_peaks)
            if overlap and fraction == C26_FRACTION and (same_budget or not is_pool):
                ends = np.array([max(min(sizes), C26_SIZES[0]), min(max(sizes), C26_SIZES[1])])
                published = C26_WORST_POOL if is_pool else C26_WORST_REPEATS
                ax.plot(ends, [published.at(size) for size in ends], ":", color=PUBLISHED, linewidth=1.6)
            label = "pool size $D_r$ (tokens)" if is_pool else "worst R"
            log_axis(ax, "" if column else label, short_count if is_pool else "{:g}".format)
            size_axis(ax, sizes, "all parameters")
        axes[0][column].set_title(f"f = {fraction:.0%}")
    _legend(figure, axes[0][0], has_lines, overlap)
    return Plot(NAME, "Location of the worst R", _caption(all_peaks, fits, overlap), figure, peak_table(all_peaks))


def _points(ax: Axes, fraction_peaks: list[Peak], is_pool: bool) -> object:
    """Plot one fraction's peaks and the power law of their Gaussian centers; return the law, or a NoLaw."""
    x = [peak.total for peak in fraction_peaks]
    tried = [peak.pool(peak.worst) if is_pool else peak.worst for peak in fraction_peaks]
    centers = [peak.gaussian and (peak.pool(peak.gaussian) if is_pool else peak.gaussian) for peak in fraction_peaks]
    estimates(ax, [1.03 * size for size in x], tried, TRIED, "s", join=False)
    estimates(ax, x, centers, GAUSSIAN, "o", join=False)
    law = peak_law(fraction_peaks, "pool_at_gaussian" if is_pool else "gaussian")
    if isinstance(law, PowerLawOfSize) and law.is_determined:
        span = [size for size in x if law.law.smallest <= 1.001 * size and size <= 1.001 * law.law.largest]
        ax.plot(span, [law.law.at(size) for size in span], "--", color=GAUSSIAN, linewidth=1.2)
    return law


def _legend(figure: Figure, ax: Axes, has_fits: bool, has_published: bool) -> None:
    handles = [
        ax.plot([], [], "o", color=GAUSSIAN, label="Gaussian in log R")[0],
        ax.plot([], [], "s", color=TRIED, label="worst R tried")[0],
    ]
    if has_fits:
        handles.append(ax.plot([], [], "--", color=GAUSSIAN, label="fitted $k N^a$")[0])
    if has_published:
        handles.append(ax.plot([], [], ":", color=PUBLISHED, label="published")[0])
    figure.legend(handles=handles, loc="outside right center")


def _named(peaks_to_name: list[Peak]) -> str:
    return "; ".join(f"{size_name(peak.model, peak.size)}, f = {peak.fraction:.0%}" for peak in peaks_to_name)


def _caption(all_peaks: list[Peak], fits: list[str], overlap: bool) -> str:
    seeds = [peak.seeds for peak in all_peaks]
    misses = max((peak.gaussian_misses / peak.height.value for peak in all_peaks if peak.gaussian), default=0.0)
    open_ended = _named([peak for peak in all_peaks if not peak.interior])
    too_few = _named([peak for peak in all_peaks if peak.interior and peak.gaussian is None])
    fit_quality = (
        f" The Gaussians deviate from the measured excess by up to {misses:.0%} of its height. A large deviation makes the center"
        " unreliable even if its interval is narrow."
        if any(peak.gaussian for peak in all_peaks)
        else ""
    )
    power_laws = (
        "; ".join(fits) + " (with the exponent's interval in brackets)"
        if fits
        else "none, because a fit needs three sizes with a Gaussian center within the tested range of R"
    )
    return (
        "The worst R and the pool size at this R, D_r = f·T/R. Circles: the center of a Gaussian in log R, fitted to the excess final test"
        " loss. Squares: the worst of the tested values of R."
        f"{f' Peaks that may lie outside the tested range have only a bound, which fits exclude: {open_ended}.' if open_ended else ''}"
        f"{f' Too few values of R for a Gaussian: {too_few}.' if too_few else ''}{fit_quality} {BOUNDS} Power laws, where N counts all"
        f" parameters: {power_laws}. Chudnovsky et al. (f = 10%, 20 tokens per parameter, N from {C26_SIZES[0]:.3g} to {C26_SIZES[1]:.3g})"
        f" find R = {C26_WORST_REPEATS.coefficient:.3g}·N^{C26_WORST_REPEATS.exponent} and"
        f" D_r = {C26_WORST_POOL.coefficient:.3g}·N^{C26_WORST_POOL.exponent}"
        f"{'' if overlap else ' (not plotted, because this study has no runs of these sizes at this f)'}."
        f" {peak_interval_note(min(seeds), max(seeds))}"
    )
