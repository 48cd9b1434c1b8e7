"""Laws judged on runs they were not fitted on: a size that was left out, a range of R that was left out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.laws.clean import IN_SIZE
from analysis.laws.fit import CannotFit, fit
from analysis.laws.law import Law
from analysis.laws.points import Floats, Points, ask
from analysis.laws.registry import JUDGED

NO_HARM, NEAREST = "no harm at all", "harm of the nearest size and R"
CHOSEN = (
    "The form of partial was settled on the runs of repeats_axis, which this comparison therefore flatters; partial_free holds nothing"
    " that was chosen so, the printed forms hold what their papers print, and results/LOG.md has runs made after the choice."
)
FEWEST_FOR_A_PEAK = 4  # values of R above 1

Predict = Callable[[Points], Floats]


@dataclass(frozen=True)
class Split:
    """Runs to fit on and those that were left out."""

    left_out: str
    fitted: Points
    judged: Points


def compare(points: Points) -> pd.DataFrame:
    """One row per split and law: `error`, the root mean square of predicted - measured over the repeated runs left out, and
    `median`, of its absolute values, both in nats; `peak`, the root mean square of log10 R of the predicted over the measured worst R,
    over the fractions at which the size left out has an interior one; `reason` where the law could not be fitted.

    A law without f is fitted on each fraction by itself. Two rules that are no laws are there to be beaten: that repeats
    do nothing, and that they do what they do to the nearest size at the nearest R that was not left out.
    """
    rows = []
    for split in splits(points):
        judges: list[tuple[str, Callable[[Points], Predict]]] = [(law.name, _fitter(law)) for law in JUDGED]
        judges += [(NO_HARM, _no_harm), (NEAREST, _nearest)]
        for name, judge in judges:
            row = {"left_out": split.left_out, "law": name, "runs": len(split.judged)}
            try:
                predict = judge(split.fitted)
                off = predict(split.judged) - split.judged.loss
                row |= {"error": float(np.sqrt(np.mean(off**2))), "median": float(np.median(np.abs(off)))}
                row |= {"peak": _peak_error(predict, split) if name != NO_HARM else float("nan"), "reason": ""}
            except CannotFit as error:
                row |= {"error": np.nan, "median": np.nan, "peak": np.nan, "reason": str(error)}
            rows.append(row)
    return pd.DataFrame(rows)


def verdict(compared: pd.DataFrame) -> str:
    """Which law predicts best what it did not see, and whether it beats the rules that are no laws."""
    said = []
    for kind, name in (("N", "a size"), ("R", "a range of R")):
        of_kind = compared[compared.left_out.str.startswith(kind) & compared.error.notna()]
        splits_ = of_kind.left_out.nunique()
        everywhere = of_kind.groupby("law").left_out.transform("nunique") == splits_
        means = of_kind[everywhere].groupby("law").error.mean().sort_values()
        rules, laws = means[means.index.isin([NO_HARM, NEAREST])], means[~means.index.isin([NO_HARM, NEAREST])]
        if laws.empty or rules.empty:
            continue
        ranking = ", ".join(f"{law} {error:.3f}" for law, error in laws.items())
        beaten = "which is better than" if laws.iloc[0] < rules.iloc[0] else "and none is better than"
        said.append(
            f"Where {name} is left out, the laws are off by (nats, mean over {splits_} splits) {ranking};"
            f" {laws.index[0]} is best, {beaten} the rule of {rules.index[0]} ({rules.iloc[0]:.3f})."
        )
    return " ".join([*said, CHOSEN]) if said else "Too few laws could be fitted to compare them."


def splits(points: Points) -> Iterator[Split]:
    """Each size, with its clean runs, where three others remain; then the R of the lower, middle and upper third."""
    sizes = np.unique(points.params[~points.clean])
    for size in sizes:
        of_size = points.params == size
        if len(np.unique(points.params[points.clean & ~of_size])) >= 3:
            yield Split(f"N = {size:,.0f}", points[~of_size], points[of_size & ~points.clean])
    repeats = np.unique(points.repeats[~points.clean])
    if len(repeats) >= 5:
        for name, part in zip(("few", "middling", "many"), np.array_split(repeats, 3), strict=True):
            chosen = np.isin(points.repeats, part)
            range_ = f"{part[0]:,.0f}" if len(part) == 1 else f"{part[0]:,.0f} to {part[-1]:,.0f}"
            yield Split(f"R = {range_} ({name})", points[~chosen], points[chosen])


def measured_peak(points: Points) -> float:
    """Worst R of the repeated runs of one size and fraction: of the parabola in log R through the largest mean loss
    and its neighbours; NaN where the largest is at an end of the R tried, or these are too few."""
    repeats = np.unique(points.repeats)
    means = np.array([points.loss[points.repeats == value].mean() for value in repeats])
    worst = int(means.argmax())
    if len(repeats) < FEWEST_FOR_A_PEAK or worst in (0, len(repeats) - 1):
        return float("nan")
    around = slice(worst - 1, worst + 2)
    curvature, slope, _ = np.polyfit(np.log(repeats[around]), means[around], 2)
    return float(np.exp(-slope / (2 * curvature)))


def _peak_error(predict: Predict, split: Split) -> float:
    """Of the sizes that were left out whole; where R were left out there is no peak to measure without them."""
    if split.left_out.startswith("R"):
        return float("nan")
    off = []
    for fraction in np.unique(split.judged.fraction):
        at = split.judged[split.judged.fraction == fraction]
        if np.isnan(measured := measured_peak(at)):
            continue
        grid = np.geomspace(1.0, at.repeats.max(), 1000)
        predicted = predict(ask(at.params[0], at.tokens[0], fraction, grid))
        if (worst := int(predicted.argmax())) < len(grid) - 1:  # or this law knows none there
            off.append(np.log10(grid[worst] / measured))
    return float(np.sqrt(np.mean(np.square(off)))) if off else float("nan")


def _fitter(law: Law) -> Callable[[Points], Predict]:
    def one(points: Points) -> Predict:
        return fit(law, points, draws=0).loss

    def for_each_fraction(points: Points) -> Predict:
        fractions = np.unique(points.fraction[~points.clean])
        fits = {value: one(points[points.clean | (points.fraction == value)]) for value in fractions}

        def predict(asked: Points) -> Floats:
            found = np.empty_like(asked.params)
            nearest = fractions[np.abs(asked.fraction[:, None] - fractions).argmin(axis=1)]
            for value, fitted in fits.items():
                found[nearest == value] = fitted(asked[nearest == value])
            return found

        return predict

    return for_each_fraction if law.one_fraction else one


def _no_harm(points: Points) -> Predict:
    return fit(IN_SIZE, points, draws=0).loss


def _nearest(points: Points) -> Predict:
    """The clean law and, above it, the mean excess of the runs that are nearest in f, then N, then R."""
    clean = _no_harm(points)
    known = points[~points.clean]
    excess = known.loss - clean(known)

    def predict(asked: Points) -> Floats:
        distance = 1e6 * np.abs(asked.fraction[:, None] - known.fraction)
        distance += 1e3 * np.abs(np.log(asked.params[:, None] / known.params))
        distance += np.abs(np.log(asked.repeats[:, None] / known.repeats))
        least = distance <= distance.min(axis=1, keepdims=True) + 1e-9
        return clean(asked) + (least * excess).sum(axis=1) / least.sum(axis=1)

    return predict
