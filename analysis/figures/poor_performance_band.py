"""The harmful range of R, where the excess loss is at least half its maximum, against model size [H22, fig. 4 right]."""

import numpy as np

from analysis.figures.axes import log_axis, size_axis
from analysis.figures.estimates import BOUNDS, estimates, peak_interval_note
from analysis.figures.panels import grid_of_axes
from analysis.figures.plot import Missing, Plot
from analysis.figures.style import colors
from analysis.measures.peak_laws import PowerLawOfSize, peak_law, peak_table
from analysis.measures.peaks import NO_PEAK, peaks
from analysis.published import H22_BAND_FRACTION, H22_LEFT_EDGE, H22_RIGHT_EDGE, H22_SIZES
from analysis.runs import Runs

NAME = "poor_performance_band"
EDGES = (("right", "right edge", "s"), ("worst", "worst R", "o"), ("left", "left edge", "D"))


def plot(runs: Runs) -> Plot | Missing:
    """Plot one panel per fraction with peaks at two or more sizes; fitted power laws are dashed, published ones dotted."""
    all_peaks = peaks(runs)
    fractions = sorted({peak.fraction for peak in all_peaks}, reverse=True)
    fractions = [value for value in fractions if len({p.size for p in all_peaks if p.fraction == value}) > 1]
    if not all_peaks:
        return Missing(NAME, NO_PEAK)
    if not fractions:
        return Missing(NAME, "needs peaks for at least two model sizes at one fraction, but only one has a peak")
    plotted = [peak for peak in all_peaks if peak.fraction in fractions]
    sizes = [peak.size for peak in plotted]
    figure, axes = grid_of_axes(1, len(fractions), height=2.9)
    palette = dict(zip((name for name, *_ in EDGES), reversed(list(colors(range(3)).values())), strict=True))
    overlap = H22_BAND_FRACTION in fractions and min(sizes) <= H22_SIZES[1] and max(sizes) >= H22_SIZES[0]
    fitted, has_lines = [], False
    for ax, fraction in zip(axes[0], fractions, strict=True):
        fraction_peaks = [peak for peak in plotted if peak.fraction == fraction]
        x = [peak.size for peak in fraction_peaks]
        if len(set(x)) == len(x):
            ax.fill_between(
                x,
                [p.left.value for p in fraction_peaks],
                [p.right.value for p in fraction_peaks],
                color="0.85",
                linewidth=0,
                zorder=0,
            )
        for name, label, marker in EDGES:
            values = [getattr(peak, name) for peak in fraction_peaks]
            estimates(ax, x, values, palette[name], marker, join=False, label=label)
            law = peak_law(fraction_peaks, name)
            if isinstance(law, PowerLawOfSize):
                if law.is_determined:
                    span = [size for size in x if law.law.smallest <= 1.001 * size and size <= 1.001 * law.law.largest]
                    ax.plot(span, [law.law.at(size) for size in span], "--", color=palette[name], linewidth=1.2)
                    has_lines = True
                fitted.append(f"f = {fraction:.0%}, {label}: {law.equation('R')}")
        if overlap and fraction == H22_BAND_FRACTION:
            ends = np.array([max(min(sizes), H22_SIZES[0]), min(max(sizes), H22_SIZES[1])])
            for name, edge in (("left", H22_LEFT_EDGE), ("right", H22_RIGHT_EDGE)):
                ax.plot(ends, [edge.at(size) for size in ends], ":", color=palette[name], linewidth=1.6)
        ax.set_title(f"f = {fraction:.0%}")
        size_axis(ax, sizes)
        log_axis(ax, "repeats R" if ax is axes[0][0] else "")
    handles = [axes[0][0].plot([], [], color=palette[n], marker=m, linestyle="none", label=t)[0] for n, t, m in EDGES]
    if has_lines:
        handles.append(axes[0][0].plot([], [], "--", color="0.4", label="fitted $k N^a$")[0])
    if overlap:
        handles.append(axes[0][0].plot([], [], ":", color="0.4", label="published")[0])
    figure.legend(handles=handles, loc="outside right center")
    seeds = [peak.seeds for peak in plotted]
    fits = (
        "; ".join(fitted) + " (with the exponent's interval in brackets)"
        if fitted
        else "none, because a fit needs three sizes without bounds"
    )
    return Plot(
        NAME,
        "The harmful range of R",
        "Gray: the harmful range, where final test loss exceeds the clean run's by at least half the largest excess; values of R"
        " outside this range can be harmful too. Its edges come from a monotone curve through the tested values of R. The worst R is one"
        f" of these values. {BOUNDS} A bound means that the range extends beyond the tested values; fits exclude bounds."
        f" Power laws: {fits}."
        f" Hernandez et al. (fig. 4 right, f = 10%, 100B tokens, N from {H22_SIZES[0]:.3g} to {H22_SIZES[1]:.3g}) find the left edge at"
        f" {H22_LEFT_EDGE.coefficient:.2g}·N^{H22_LEFT_EDGE.exponent:.2f} and the right edge at"
        f" {H22_RIGHT_EDGE.coefficient:.2g}·N^{H22_RIGHT_EDGE.exponent:.2f}"
        f"{'' if overlap else ' (not plotted, because this study has no runs of these sizes at this f)'}."
        f" {peak_interval_note(min(seeds), max(seeds))}",
        figure,
        peak_table(plotted),
    )
