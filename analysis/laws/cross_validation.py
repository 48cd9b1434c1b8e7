"""Cross-validate the laws: fit each law without the runs of one model size or one range of R, and predict those runs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.laws.clean import IN_SIZE
from analysis.laws.fit import CannotFit, Progress, fit
from analysis.laws.law import Law
from analysis.laws.points import Floats, Points, prediction_points
from analysis.laws.registry import CROSS_VALIDATED, title_of

# Baselines that a useful law must beat: repetition does no harm, or as much harm as in the nearest runs.
NO_HARM, NEAREST = "baseline: no harm", "baseline: harm of the nearest size and R"
FEWEST_FOR_A_PEAK = 4  # number of distinct R above 1

Predict = Callable[[Points], Floats]


@dataclass(frozen=True)
class Split:
    """Runs to fit on, and held-out runs to predict."""

    held_out: str  # "N = 98,304", "R = 4 to 16 (low)"
    train: Points
    test: Points


def cross_validate(points: Points, progress: Progress | None = None) -> pd.DataFrame:
    """Predict held-out runs with every law and baseline. Returns one row per split and law or baseline.

    held_out, law: names of the split and of the law.
    runs: number of held-out runs.
    error, median: root mean square and median of the absolute prediction error, nats.
    peak: root mean square of log10(predicted / measured worst R), over the fractions at which the held-out size has an interior
        worst R.
    reason: why the law could not be fitted.

    A law that does not depend on f is fitted to each fraction separately.
    """
    fitters: list[tuple[str, Callable[[Points], Predict]]] = [(law.name, _fitter(law)) for law in CROSS_VALIDATED]
    fitters += [(NO_HARM, _no_harm), (NEAREST, _nearest)]
    tasks = [(split, name, fitter) for split in splits(points) for name, fitter in fitters]
    rows = []
    for number, (split, name, fitter) in enumerate(tasks):
        if progress:
            progress(number / len(tasks))
        row = {"held_out": split.held_out, "law": name, "runs": len(split.test)}
        try:
            predict = fitter(split.train)
            differences = predict(split.test) - split.test.loss
            row |= {"error": float(np.sqrt(np.mean(differences**2))), "median": float(np.median(np.abs(differences)))}
            row |= {"peak": _peak_error(predict, split) if name != NO_HARM else float("nan"), "reason": ""}
        except CannotFit as error:
            row |= {"error": np.nan, "median": np.nan, "peak": np.nan, "reason": str(error)}
        rows.append(row)
    if progress:
        progress(1.0)
    return pd.DataFrame(rows)


def verdict(errors: pd.DataFrame) -> str:
    """Sentences that say which law predicts held-out runs best, and whether it beats the baselines.

    errors: the table returned by `cross_validate`.
    """
    sentences = []
    for kind, name in (("N", "a model size"), ("R", "a range of R")):
        of_kind = errors[errors.held_out.str.startswith(kind) & errors.error.notna()]
        number = of_kind.held_out.nunique()
        in_every_split = of_kind.groupby("law").held_out.transform("nunique") == number
        means = of_kind[in_every_split].groupby("law").error.mean().sort_values()
        is_baseline = means.index.isin([NO_HARM, NEAREST])
        baselines, laws = means[is_baseline], means[~is_baseline]
        if laws.empty or baselines.empty:
            continue
        ranking = ", ".join(f"{title_of(str(law))} {error:.3f}" for law, error in laws.items())
        winner = f"The best law, {title_of(str(laws.index[0]))}," if laws.iloc[0] < baselines.iloc[0] else "No law"
        sentences.append(
            f"With {name} held out, the root mean square prediction errors in nats, averaged over {number} splits, are: {ranking}."
            f" {winner} beats the better baseline, {str(baselines.index[0]).removeprefix('baseline: ')} ({baselines.iloc[0]:.3f})."
        )
    if not sentences:
        return "Too few laws could be fitted to compare them."
    return " ".join([*sentences, *(law.caveat for law in CROSS_VALIDATED if law.caveat)])


def splits(points: Points) -> Iterator[Split]:
    """Hold out each size and its clean runs if at least three other sizes have clean runs. Then hold out each third of the R values."""
    for size in np.unique(points.params[~points.clean]):
        of_size = points.params == size
        if len(np.unique(points.params[points.clean & ~of_size])) >= 3:
            yield Split(f"N = {size:,.0f}", points[~of_size], points[of_size & ~points.clean])
    repeats = np.unique(points.repeats[~points.clean])
    if len(repeats) >= 5:
        for name, third in zip(("low", "middle", "high"), np.array_split(repeats, 3), strict=True):
            chosen = np.isin(points.repeats, third)
            values = f"{third[0]:,.0f}" if len(third) == 1 else f"{third[0]:,.0f} to {third[-1]:,.0f}"
            yield Split(f"R = {values} ({name})", points[~chosen], points[chosen])


def measured_peak(points: Points) -> float:
    """The worst R among the repeated runs of one size and fraction.

    It is the peak of a parabola in log R through the largest mean loss and its two neighbors. NaN if the largest mean loss is at
    the smallest or largest R, or if there are fewer than FEWEST_FOR_A_PEAK values of R.
    """
    repeats = np.unique(points.repeats)
    means = np.array([points.loss[points.repeats == value].mean() for value in repeats])
    worst = int(means.argmax())
    if len(repeats) < FEWEST_FOR_A_PEAK or worst in (0, len(repeats) - 1):
        return float("nan")
    around = slice(worst - 1, worst + 2)
    curvature, slope, _ = np.polyfit(np.log(repeats[around]), means[around], 2)
    return float(np.exp(-slope / (2 * curvature)))


def _peak_error(predict: Predict, split: Split) -> float:
    """Error in decades of the worst R predicted for a held-out size. NaN if a range of R is held out."""
    if split.held_out.startswith("R"):
        return float("nan")
    errors = []
    for fraction in np.unique(split.test.fraction):
        measured_at = split.test[split.test.fraction == fraction]
        if np.isnan(measured := measured_peak(measured_at)):
            continue
        grid = np.geomspace(1.0, measured_at.repeats.max(), 1000)
        losses = predict(prediction_points(measured_at.params[0], measured_at.tokens[0], fraction, grid))
        if (worst := int(losses.argmax())) < len(grid) - 1:  # otherwise the law predicts no interior worst R
            errors.append(np.log10(grid[worst] / measured))
    return float(np.sqrt(np.mean(np.square(errors)))) if errors else float("nan")


def _fitter(law: Law) -> Callable[[Points], Predict]:
    def fit_all(train: Points) -> Predict:
        return fit(law, train, resamples=0).loss

    def fit_each_fraction(train: Points) -> Predict:
        fractions = np.unique(train.fraction[~train.clean])
        fits = {value: fit_all(train[train.clean | (train.fraction == value)]) for value in fractions}

        def predict(points: Points) -> Floats:
            losses = np.empty_like(points.params)
            nearest = fractions[np.abs(points.fraction[:, None] - fractions).argmin(axis=1)]
            for value, fitted in fits.items():
                losses[nearest == value] = fitted(points[nearest == value])
            return losses

        return predict

    return fit_each_fraction if law.ignores_fraction else fit_all


def _no_harm(train: Points) -> Predict:
    return fit(IN_SIZE, train, resamples=0).loss


def _nearest(train: Points) -> Predict:
    """Predict the clean law's loss plus the mean excess of the training runs that are nearest in f, then in N, then in R."""
    clean = _no_harm(train)
    repeated = train[~train.clean]
    excess = repeated.loss - clean(repeated)

    def predict(points: Points) -> Floats:
        distance = 1e6 * np.abs(points.fraction[:, None] - repeated.fraction)
        distance += 1e3 * np.abs(np.log(points.params[:, None] / repeated.params))
        distance += np.abs(np.log(points.repeats[:, None] / repeated.repeats))
        nearest = distance <= distance.min(axis=1, keepdims=True) + 1e-9
        return clean(points) + (nearest * excess).sum(axis=1) / nearest.sum(axis=1)

    return predict
