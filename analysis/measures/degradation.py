"""Damage by repetition: double descent as numbers, and the study's summary table."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.intervals import NAN, UNKNOWN, Estimate, Floats, PairedDifference, paired_difference
from analysis.measures.effective_size import SIZE_METRICS, TEST_LOSS, size_multipliers
from analysis.measures.induction_heads import formation
from analysis.runs import Runs
from repeat_study.records.metrics import METRICS

FEWEST_SEQUENCES = 8  # with fewer, a t test of differences that are not normal is no guide
# In the order of the list of metrics; those that old runs did not record are NaN.
METRIC_COLUMNS = [
    key
    for metric in METRICS
    if metric.in_summary and metric is not TEST_LOSS
    for key in (metric.key, metric.null_key)
    if key
]


class Judge(StrEnum):
    """What tells a rise of test loss from chance."""

    SEQUENCES = "test sequences"  # the standard error of the paired difference, and the clean runs' own rises
    CLEAN = "clean runs"  # their noise alone, for runs that did not record the losses of test sequences
    NOTHING = ""


@dataclass(frozen=True)
class DoubleDescent:
    """The point of a test-loss curve that is highest above the curve's earlier minimum, by indices of evaluations."""

    rise: float  # nats, max over t of L(t) - min over s < t of L(s); 0 if the curve only falls
    at_tokens: float  # training tokens at that maximum
    won_back: float  # nats, loss there minus final loss
    lowest: int  # the evaluation at that minimum
    highest: int  # the evaluation at that maximum


def double_descent(tokens: npt.ArrayLike, loss: npt.ArrayLike) -> DoubleDescent:
    """Double descent of one curve: tokens and loss in nats, both of shape [evaluations], in time order [H22, fig. 3]."""
    x, y = np.asarray(tokens, float), np.asarray(loss, float)
    rise = y - np.minimum.accumulate(y)
    highest = int(rise.argmax())
    lowest = int(y[: highest + 1].argmin())
    won_back = float(y[highest] - y[-1]) if rise[highest] > 0 else 0.0
    return DoubleDescent(float(rise[highest]), float(x[highest]), won_back, lowest, highest)


@dataclass(frozen=True)
class JudgedDescent:
    """A double descent, and whether its rise and its recovery exceed chance; None if nothing can judge them."""

    descent: DoubleDescent
    judge: Judge
    rise_counts: bool | None
    recovery_counts: bool | None
    rise: PairedDifference | None = None  # over test sequences, if their losses were recorded
    won_back: PairedDifference | None = None

    @property
    def counts(self) -> bool | None:
        """Whether it is double descent: the rise counts, and so does the recovery."""
        return None if self.rise_counts is None else bool(self.rise_counts and self.recovery_counts)


def judge_descent(
    descent: DoubleDescent, sequences: Floats | None, clean_rise: float = NAN, noise: float = NAN
) -> JudgedDescent:
    """Judge a double descent by the losses of test sequences, shape [evaluations, sequences], or else by `noise`.

    A rise is the largest of all pairs of evaluations, and a recovery starts from the highest of all evaluations. So with test
    sequences, both are tested as a paired difference at 5% divided by the number of pairs, or of evaluations, they were chosen
    from. In addition, both must exceed `clean_rise` if there is a clean run: weights move, so that clean curves rise a little too.

    clean_rise, noise: nats, see `clean_rise` and `noise_of_rise`; NaN without clean runs.
    """
    size = min(descent.rise, descent.won_back)
    if sequences is None or sequences.shape[1] < FEWEST_SEQUENCES:
        if math.isnan(noise):
            return JudgedDescent(descent, Judge.NOTHING, None, None)
        return JudgedDescent(descent, Judge.CLEAN, descent.rise > noise, size > noise)
    rise = paired_difference(sequences[descent.highest], sequences[descent.lowest])
    won_back = paired_difference(sequences[descent.highest], sequences[-1])
    evaluations = len(sequences)
    floor = 0.0 if math.isnan(clean_rise) else clean_rise
    rise_counts = descent.rise > floor and rise.is_rise(evaluations * (evaluations - 1) // 2)
    recovery_counts = descent.won_back > floor and won_back.is_rise(evaluations - 1)
    return JudgedDescent(descent, Judge.SEQUENCES, rise_counts, recovery_counts, rise, won_back)


def clean_rise(runs: Runs) -> float:
    """Twice the largest rise in nats of any clean run's own curve; NaN without clean runs."""
    clean = runs.done[runs.done.repeats == 1]
    own = [double_descent(curve.tokens, curve.test_loss).rise for curve in map(runs.curve, clean.name)]
    return 2 * max(own, default=NAN)


def noise_of_rise(runs: Runs) -> float:
    """The largest rise in nats that counts as noise if test sequences were not recorded; NaN without clean runs.

    Twice the largest rise of any clean run's own curve, or twice the largest standard deviation of final test loss between the
    clean seeds of one size, whichever is larger.
    """
    clean = runs.done[runs.done.repeats == 1]
    if clean.empty:
        return NAN
    between = clean.groupby("model").final_test_loss.std(ddof=1).fillna(0.0)
    return max(clean_rise(runs), 2 * between.max())


@dataclass(frozen=True)
class _Clean:
    """The clean runs of one size."""

    final_loss: float = NAN  # nats, mean
    fall: float = NAN  # nats, mean over runs of first minus final test loss
    sequences: Floats | None = None  # mean final loss of every test sequence, if all of them recorded it


def _clean_by_size(runs: Runs, sequences: Mapping[str, Floats | None]) -> dict[str, _Clean]:
    sizes = {}
    for model, rows in runs.done[runs.done.repeats == 1].groupby("model"):
        falls = [float(curve.test_loss.iloc[0] - curve.test_loss.iloc[-1]) for curve in map(runs.curve, rows.name)]
        final = [losses[-1] for name in rows.name if (losses := sequences[name]) is not None]
        comparable = len(final) == len(rows) and len({len(losses) for losses in final}) == 1
        sizes[str(model)] = _Clean(
            float(rows.final_test_loss.mean()), float(np.mean(falls)), np.mean(final, axis=0) if comparable else None
        )
    return sizes


def _over_clean(final: Floats | None, clean: _Clean) -> Estimate:
    """Excess over the mean of the clean runs on the same test sequences, with its paired interval; none if not recorded."""
    if final is None or clean.sequences is None or len(final) != len(clean.sequences):
        return UNKNOWN
    return paired_difference(final, clean.sequences).estimate


def summary(runs: Runs) -> pd.DataFrame:
    """A row per finished run: what was trained, final metrics, effective sizes, double descent, induction heads.

    Losses are in nats. `rise_counts` tells whether the rise exceeds chance, `double_descent` whether both the rise and what is won
    back do, see `judge_descent`; None if nothing can judge them. `rise_judged_by` is a `Judge`. Over test sequences, if their losses
    were recorded: `rise_low`, `rise_high`, `won_back_low`, `won_back_high`, `excess_low` and `excess_high` are the ends of 95% paired
    intervals, and `rise_in_standard_errors` is an effect size. `rise_share` is another: the rise as a share of how far test loss
    falls in clean runs of this size. `heads_formed_at` and `heads_lost_at` are in tokens, see `induction_heads.formation`.
    """
    done = runs.done
    multipliers = {metric.multiplier: size_multipliers(runs, metric) for metric in SIZE_METRICS}
    sequences = {str(name): runs.test_sequences(str(name)) for name in done.name}
    clean_sizes = _clean_by_size(runs, sequences)
    largest_clean_rise, noise = clean_rise(runs), noise_of_rise(runs)
    rows = []
    for run in done.itertuples(index=False):
        curve = runs.curve(str(run.name))
        descent = double_descent(curve.tokens, curve.test_loss)
        judged = judge_descent(descent, sequences[str(run.name)], largest_clean_rise, noise)
        final = sequences[str(run.name)]
        clean = clean_sizes.get(str(run.model), _Clean())
        excess = _over_clean(final[-1] if final is not None else None, clean)
        rise, won_back = (paired.estimate if paired else UNKNOWN for paired in (judged.rise, judged.won_back))
        sizes = {column: by_name.get(str(run.name)) for column, by_name in multipliers.items()}
        heads = formation(curve) if pd.notna(getattr(run, "final_prefix_matching", None)) else None
        rows.append(
            {
                "run": run.name,
                "label": run.label,
                "model": run.model,
                "layers": run.layers,
                "parameters_non_embedding": run.parameters_non_embedding,
                "repeated_fraction": run.repeated_fraction,
                "repeats": run.repeats,
                "seed": run.seed,
                "test_loss": run.final_test_loss,
                "excess_over_clean": run.final_test_loss - clean.final_loss,
                "excess_low": excess.low,
                "excess_high": excess.high,
                **{column: size.value if size else float("nan") for column, size in sizes.items()},
                **{f"{column}_bound": str(size.bound) if size else "" for column, size in sizes.items()},
                "rise": descent.rise,
                "rise_at_tokens": descent.at_tokens if descent.rise > 0 else float("nan"),
                "won_back": descent.won_back,
                "rise_counts": judged.rise_counts,
                "double_descent": judged.counts,
                "rise_judged_by": str(judged.judge),
                "rise_low": rise.low,
                "rise_high": rise.high,
                "rise_in_standard_errors": judged.rise.in_standard_errors if judged.rise else NAN,
                "rise_share": descent.rise / clean.fall if clean.fall > 0 else NAN,
                "won_back_low": won_back.low,
                "won_back_high": won_back.high,
                **{name: getattr(run, f"final_{name}", float("nan")) for name in METRIC_COLUMNS},
                "heads_formed_at": heads.formed_at if heads else float("nan"),
                "heads_lost_at": heads.lost_at if heads else float("nan"),
            }
        )
    columns = ["parameters_non_embedding", "repeated_fraction", "repeats", "seed"]
    return pd.DataFrame(rows).sort_values(columns, ignore_index=True)
