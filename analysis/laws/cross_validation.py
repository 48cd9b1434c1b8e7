"""Cross-validate the laws: fit each law without the runs of one size or one range of R, and predict what repetition costs in those runs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.laws.estimate import CannotFit, check
from analysis.laws.fit import Mask, Progress, SubsetFit, fit_subsets
from analysis.laws.law import Law
from analysis.laws.leave_out import KINDS, SIZE, Fold, folds
from analysis.laws.pairing import with_controls
from analysis.laws.points import Floats, Points, prediction_points
from analysis.laws.registry import CROSS_VALIDATED, title_of

# Baselines that a useful law must beat: repetition does no harm, or as much harm as in the nearest runs.
NO_HARM, NEAREST = "baseline: no harm", "baseline: harm of the nearest size and R"
FEWEST_FOR_A_PEAK = 4  # number of distinct R above 1
MOST_NAMED = 4  # held-out sizes or ranges that are listed one by one
MOST_FRACTIONS = 4  # a law without f is fitted to each fraction separately, up to this many fractions
IMPLAUSIBLE = 12.5  # nats; about the loss of a uniform guess over 2^18 tokens

Predict = Callable[[Points], Floats]
Interval = Callable[[Points, Floats], tuple[Floats, Floats]]  # points and their clean losses -> ends in nats


@dataclass(frozen=True)
class Prediction:
    """A law that was fitted without some runs. interval: None for baselines."""

    penalty: Predict
    interval: Interval | None = None


def cross_validate(
    points: Points, progress: Progress | None = None, laws: Sequence[Law] = CROSS_VALIDATED
) -> pd.DataFrame:
    """Predict the penalties of held-out runs with every law and baseline. Returns one row per fold and law or baseline.

    points: the runs; repeated runs without a control are compared with clean runs of the same size and tokens, or left out.

    kind, held_out, law: "size" or "range of R", and the names of the fold and of the law.
    runs: number of held-out repeated runs.
    error, median: root mean square and median of the absolute error of the penalty, nats.
    worst_repeats: root mean square of log10(predicted / measured worst R), over the fractions at which the held-out size has an interior
        worst R; NaN if a range of R is held out.
    coverage: share of the held-out runs inside the 95% interval, which is computed without them; NaN for baselines.
    implausible: number of held-out runs for which the law predicts a loss above IMPLAUSIBLE. They count as a prediction of IMPLAUSIBLE,
        so that no law loses by an explosion alone.
    reason: why the law could not be fitted.
    """
    points = with_controls(points)
    left_out = folds(points)
    names = [law.name for law in laws] + [NO_HARM, NEAREST]
    rows = []
    for number, name in enumerate(names if left_out else []):
        if progress:
            progress(number / len(names))
        predictions = list(_predictions(name, laws, points, left_out))
        for place, (fold, prediction) in enumerate(zip(left_out, predictions, strict=True)):
            rows.append({"fold": place} | _row(name, fold, points, prediction))
    if progress:
        progress(1.0)
    table = pd.DataFrame(rows)
    return table if table.empty else table.sort_values("fold", kind="stable", ignore_index=True).drop(columns="fold")


def summarize(errors: pd.DataFrame) -> pd.DataFrame:
    """One row per kind of fold and law: errors over all folds. errors: the table returned by `cross_validate`.

    error: root mean square over all held-out runs, nats. median: median over folds of the folds' medians. coverage: over all held-out runs.
    """
    rows = []
    for (kind, law), group in errors.groupby(["kind", "law"], sort=False):
        fitted = group[group.error.notna()]
        row = {"kind": kind, "law": law, "folds": len(fitted), "runs": int(fitted.runs.sum())}
        if len(fitted):
            row["error"] = float(np.sqrt(np.average(fitted.error**2, weights=fitted.runs)))
            row["median"] = float(fitted["median"].median())
            peaks = fitted.worst_repeats.dropna()
            row["worst_repeats"] = float(np.sqrt(np.mean(peaks**2))) if len(peaks) else np.nan
            row["coverage"] = float(np.average(fitted.coverage, weights=fitted.runs))
            row["implausible"] = int(fitted.implausible.sum())
        rows.append(row | {"reason": "; ".join(dict.fromkeys(reason for reason in group.reason if reason))})
    return pd.DataFrame(rows)


def verdict(errors: pd.DataFrame) -> str:
    """Sentences that say which law predicts held-out runs best, and whether it beats the baselines.

    errors: the table returned by `cross_validate`.
    """
    summary = summarize(errors)
    sentences = []
    for kind in KINDS:
        of_kind = summary[(summary.kind == kind) & (summary.folds == summary[summary.kind == kind].folds.max())]
        is_baseline = of_kind.law.isin([NO_HARM, NEAREST])
        laws, baselines = of_kind[~is_baseline].sort_values("error"), of_kind[is_baseline].sort_values("error")
        if laws.empty or baselines.empty:
            continue
        ranking = ", ".join(f"{title_of(row.law)} {row.error:.3f} ({row.median:.3f})" for row in laws.itertuples())
        best, better = laws.iloc[0], baselines.iloc[0]
        winner = f"The best law, {title_of(best.law)}," if best.error < better.error else "No law"
        sentences.append(
            f"With a {kind} held out, the root mean square errors of the penalty in nats over {int(best.runs)} runs (median in"
            f" parentheses) are: {ranking}. {winner} beats the better baseline,"
            f" {better.law.removeprefix('baseline: ')} ({better.error:.3f}).{_where_baselines_win(errors, kind, str(best.law))}"
        )
    return " ".join(sentences) if sentences else "Too few laws could be fitted to compare them."


def _where_baselines_win(errors: pd.DataFrame, kind: str, law: str) -> str:
    """A sentence, with a leading space, about the folds in which a baseline predicts better than this law. Empty if there are none."""
    folds = errors[errors.kind == kind].pivot_table(index="held_out", columns="law", values="error", sort=False)
    best_baseline = folds.reindex(columns=[NO_HARM, NEAREST]).min(axis=1)
    lost = list(folds.index[best_baseline < folds[law]])
    if not lost:
        return ""
    named = f": {'; '.join(lost)}" if len(lost) <= MOST_NAMED else ""
    return f" A baseline predicts more accurately than {title_of(law)} in {len(lost)} of {len(folds)} folds{named}."


def measured_peak(points: Points) -> float:
    """The worst R among the repeated runs of one size and fraction.

    It is the peak of a parabola in log R through the largest mean penalty and its two neighbors. NaN if the largest mean penalty is at
    the smallest or largest R, or if there are fewer than FEWEST_FOR_A_PEAK values of R.
    """
    repeats = np.unique(points.repeats)
    harm = points.loss if points.control is None else points.penalty
    means = np.array([harm[points.repeats == value].mean() for value in repeats])
    worst = int(means.argmax())
    if len(repeats) < FEWEST_FOR_A_PEAK or worst in (0, len(repeats) - 1):
        return float("nan")
    around = slice(worst - 1, worst + 2)
    curvature, slope, _ = np.polyfit(np.log(repeats[around]), means[around], 2)
    return float(np.exp(-slope / (2 * curvature)))


def _row(name: str, fold: Fold, points: Points, prediction: Prediction | str) -> dict[str, object]:
    test = points[fold.test]
    row: dict[str, object] = {"kind": fold.kind, "held_out": fold.name, "law": name, "runs": len(test)}
    missing = dict.fromkeys(("error", "median", "worst_repeats", "coverage"), np.nan)
    if isinstance(prediction, str):
        return row | missing | {"implausible": 0, "reason": prediction}
    return row | missing | score(prediction, test, peaks=fold.kind == SIZE and name != NO_HARM) | {"reason": ""}


def score(prediction: Prediction, test: Points, peaks: bool = True) -> dict[str, object]:
    """The errors of a prediction for held-out repeated runs with controls, as in `cross_validate`. peaks: whether to compare worst R."""
    assert test.control is not None
    predicted = prediction.penalty(test)
    most = IMPLAUSIBLE - test.control
    differences = np.minimum(predicted, most) - test.penalty
    result: dict[str, object] = {
        "error": float(np.sqrt(np.mean(differences**2))),
        "median": float(np.median(np.abs(differences))),
        "implausible": int((predicted > most).sum()),
    }
    if peaks:
        result["worst_repeats"] = _peak_error(prediction.penalty, test)
    if prediction.interval:
        low, high = prediction.interval(test, test.control)
        result["coverage"] = float(np.mean((low <= test.penalty) & (test.penalty <= high)))
    return result


def _peak_error(predict: Predict, test: Points) -> float:
    """Error in decades of the worst R predicted for held-out runs of one size."""
    errors = []
    for fraction in np.unique(test.fraction):
        measured_at = test[test.fraction == fraction]
        if np.isnan(measured := measured_peak(measured_at)):
            continue
        grid = np.geomspace(1.0, measured_at.repeats.max(), 1000)
        penalties = predict(prediction_points(measured_at.params[0], measured_at.tokens[0], fraction, grid))
        if (worst := int(penalties.argmax())) < len(grid) - 1:  # otherwise the law predicts no interior worst R
            errors.append(np.log10(grid[worst] / measured))
    return float(np.sqrt(np.mean(np.square(errors)))) if errors else float("nan")


def _predictions(name: str, laws: Sequence[Law], points: Points, left_out: list[Fold]) -> Iterator[Prediction | str]:
    """The predictions of one law or baseline for every fold, or the reason why it could not be fitted."""
    if name == NO_HARM:
        yield from [Prediction(lambda test: np.zeros(len(test.params)))] * len(left_out)
    elif name == NEAREST:
        yield from [Prediction(_nearest(points[~fold.dropped])) for fold in left_out]
    else:
        yield from _of_law(next(law for law in laws if law.name == name), points, left_out)


def _of_law(law: Law, points: Points, left_out: list[Fold]) -> list[Prediction | str]:
    fractions = np.unique(points.fraction[~points.clean])
    if not law.ignores_fraction or len(fractions) == 1:
        return _fits(law, points, [~fold.dropped for fold in left_out])
    if len(fractions) > MOST_FRACTIONS:
        reason = f"does not depend on the repeated fraction, but the runs have {len(fractions)} fractions"
        return [reason] * len(left_out)
    by_fraction = {}
    for fraction in fractions:
        of_fraction = points.clean | (points.fraction == fraction)
        fits = _fits(law, points[of_fraction], [~fold.dropped[of_fraction] for fold in left_out])
        by_fraction[fraction] = fits
    return [
        _by_fraction({fraction: fits[number] for fraction, fits in by_fraction.items()})
        for number in range(len(left_out))
    ]


def _fits(law: Law, points: Points, subsets: Sequence[Mask]) -> list[Prediction | str]:
    reasons: dict[int, str] = {}
    for number, subset in enumerate(subsets):
        try:
            check(law, points[subset])
        except CannotFit as error:
            reasons[number] = str(error)
    possible = [subset for number, subset in enumerate(subsets) if number not in reasons]
    fits: Iterator[SubsetFit] = iter(fit_subsets(law, points, possible) if possible else [])
    predictions: list[Prediction | str] = []
    for number in range(len(subsets)):
        if number in reasons:
            predictions.append(reasons[number])
        else:
            fitted = next(fits)
            predictions.append(Prediction(fitted.penalty, fitted.interval))
    return predictions


def _by_fraction(predictions: dict[float, Prediction | str]) -> Prediction | str:
    """Combine the fits of a law without f: each run is predicted by the fit to the nearest fraction."""
    fits: dict[float, Prediction] = {}
    for fraction, prediction in predictions.items():
        if isinstance(prediction, str):
            return f"f = {fraction:g}: {prediction}"
        fits[fraction] = prediction
    fractions = np.array(list(fits))

    def of_nearest(points: Points) -> Iterator[tuple[Mask, Prediction]]:
        nearest = fractions[np.abs(points.fraction[:, None] - fractions).argmin(axis=1)]
        for fraction, prediction in fits.items():
            if (chosen := nearest == fraction).any():
                yield chosen, prediction

    def penalty(points: Points) -> Floats:
        penalties = np.empty_like(points.params)
        for chosen, prediction in of_nearest(points):
            penalties[chosen] = prediction.penalty(points[chosen])
        return penalties

    def interval(points: Points, clean: Floats) -> tuple[Floats, Floats]:
        low, high = np.empty_like(points.params), np.empty_like(points.params)
        for chosen, prediction in of_nearest(points):
            assert prediction.interval
            low[chosen], high[chosen] = prediction.interval(points[chosen], clean[chosen])
        return low, high

    return Prediction(penalty, interval)


def _nearest(train: Points) -> Predict:
    """Predict the mean penalty of the training runs that are nearest in f, then in N, then in R."""
    repeated = train[~train.clean]

    def predict(points: Points) -> Floats:
        distance = 1e6 * np.abs(points.fraction[:, None] - repeated.fraction)
        distance += 1e3 * np.abs(np.log(points.params[:, None] / repeated.params))
        distance += np.abs(np.log(points.repeats[:, None] / repeated.repeats))
        nearest = distance <= distance.min(axis=1, keepdims=True) + 1e-9
        return (nearest * repeated.penalty).sum(axis=1) / nearest.sum(axis=1)

    return predict
