"""Measure the harm of repetition: double descent in loss curves, and the summary table of a study."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.intervals import NAN, UNKNOWN, Estimate, Floats, PairedDifference, paired_difference
from analysis.measures.effective_size import SIZE_METRICS, TEST_LOSS, over_controls, size_multipliers
from analysis.measures.induction_heads import formation
from analysis.runs import Runs
from repeat_study.records.metrics import METRICS

FEWEST_SEQUENCES = 8  # with fewer, a t test is unreliable, because the differences are not normal
# Metrics that an old run did not record are NaN.
METRIC_COLUMNS = [
    key
    for metric in METRICS
    if metric.in_summary and metric is not TEST_LOSS
    for key in (metric.key, metric.null_key)
    if key
]


class Judge(StrEnum):
    """The kind of noise that a rise in test loss is compared with."""

    SEQUENCES = "test sequences"  # the standard error of the paired difference, and the rises in clean runs
    CLEAN = "clean runs"  # only the noise of clean runs, if losses per test sequence were not recorded
    NOTHING = ""


@dataclass(frozen=True)
class DoubleDescent:
    """The largest rise of a test-loss curve above its earlier minimum, and the fall after it."""

    rise: float  # nats, max over t of L(t) - min over s < t of L(s); 0 if the curve only falls
    at_tokens: float  # training tokens at the end of the rise
    won_back: float  # nats, loss at the end of the rise minus final loss
    lowest: int  # index of the evaluation at which the rise starts
    highest: int  # index of the evaluation at which the rise ends


def double_descent(tokens: npt.ArrayLike, loss: npt.ArrayLike) -> DoubleDescent:
    """Measure double descent in one curve [H22, fig. 3].

    tokens, loss: training tokens and test loss in nats at each evaluation, in time order.
    """
    x, y = np.asarray(tokens, float), np.asarray(loss, float)
    rise = y - np.minimum.accumulate(y)
    highest = int(rise.argmax())
    lowest = int(y[: highest + 1].argmin())
    won_back = float(y[highest] - y[-1]) if rise[highest] > 0 else 0.0
    return DoubleDescent(float(rise[highest]), float(x[highest]), won_back, lowest, highest)


@dataclass(frozen=True)
class JudgedDescent:
    """A double descent, and whether its rise and its recovery exceed the noise (None if the noise is unknown)."""

    descent: DoubleDescent
    judge: Judge
    rise_counts: bool | None
    recovery_counts: bool | None
    rise: PairedDifference | None = None  # paired by test sequence; None if losses per sequence were not recorded
    won_back: PairedDifference | None = None

    @property
    def counts(self) -> bool | None:
        """Whether both the rise and the recovery exceed the noise."""
        return None if self.rise_counts is None else bool(self.rise_counts and self.recovery_counts)


def judge_descent(
    descent: DoubleDescent, sequences: Floats | None, clean_rise: float = NAN, noise: float = NAN
) -> JudgedDescent:
    """Decide whether the rise and the recovery of a double descent exceed the noise.

    sequences: losses of test sequences, [evaluations, sequences]. With FEWEST_SEQUENCES or more sequences, the rise and the recovery
    must each pass a paired t test at the 5% level. The rise was selected from all pairs of evaluations, and the recovery from all later
    evaluations, so the level is divided by the number of candidates. Both must also exceed `clean_rise`, because the test loss of
    clean runs rises slightly too.

    With fewer sequences or none, the rise and the recovery must exceed `noise`.

    clean_rise, noise: the results of `clean_rise` and `noise_of_rise`, in nats; NaN without clean runs.
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
    """Twice the largest rise in test loss in any clean run, in nats; NaN without clean runs."""
    clean = runs.done[runs.done.is_clean_control]
    rises = [double_descent(curve.tokens, curve.test_loss).rise for curve in map(runs.curve, clean.name)]
    return 2 * max(rises, default=NAN)


def noise_of_rise(runs: Runs) -> float:
    """The largest rise in nats that counts as noise if losses per test sequence were not recorded; NaN without clean runs.

    It is the larger of `clean_rise` and 2·s, where s is the standard deviation of final test loss among clean runs of one size, for the
    size with the largest s.
    """
    clean = runs.done[runs.done.is_clean_control]
    if clean.empty:
        return NAN
    between = clean.groupby("model").final_test_loss.std(ddof=1).fillna(0.0)
    return max(clean_rise(runs), 2 * between.max())


@dataclass(frozen=True)
class _Clean:
    """The clean runs of one size."""

    fall: float = NAN  # nats, first minus final test loss, mean over runs
    sequences: Floats | None = (
        None  # final loss of each test sequence, averaged over the runs; None unless all recorded it
    )


def _clean_by_size(runs: Runs, sequences: Mapping[str, Floats | None]) -> dict[str, _Clean]:
    sizes = {}
    for model, rows in runs.done[runs.done.is_clean_control].groupby("model"):
        falls = [float(curve.test_loss.iloc[0] - curve.test_loss.iloc[-1]) for curve in map(runs.curve, rows.name)]
        final = [losses[-1] for name in rows.name if (losses := sequences[name]) is not None]
        comparable = len(final) == len(rows) and len({len(losses) for losses in final}) == 1
        sizes[str(model)] = _Clean(float(np.mean(falls)), np.mean(final, axis=0) if comparable else None)
    return sizes


def _over_clean(losses: Floats | None, clean: Floats | None) -> Estimate:
    """Excess of a run's final losses over the clean losses of the same test sequences; UNKNOWN if losses were not recorded."""
    if losses is None or clean is None or len(losses[-1]) != len(clean):
        return UNKNOWN
    return paired_difference(losses[-1], clean).estimate


def summary(runs: Runs) -> pd.DataFrame:
    """Summarize every finished run in one row: settings, final metrics, effective sizes, double descent and induction heads.

    Losses are in nats. Some of the columns:
        excess_over_clean       final test loss minus that of the clean run with the same seed; see `over_controls` for other runs
        rise_counts             whether the rise exceeds the noise, see `judge_descent`; None if the noise is unknown
        double_descent          whether both the rise and the recovery `won_back` exceed the noise
        rise_judged_by          a `Judge`
        <name>_low, <name>_high ends of 95% intervals, paired by test sequence; NaN if losses per sequence were not recorded
        rise_in_standard_errors, rise_share
                                effect sizes; the share is the rise divided by the fall in test loss of clean runs of this size
        heads_formed_at, heads_lost_at
                                in tokens, see `induction_heads.formation`
    """
    done = runs.done
    multipliers = {metric.multiplier: size_multipliers(runs, metric) for metric in SIZE_METRICS}
    sequences = {str(name): runs.test_sequences(str(name)) for name in done.name}
    clean_sizes = _clean_by_size(runs, sequences)
    excesses = over_controls(done, done.final_test_loss, done.is_clean_control)
    controls = {
        (run.model, run.seed): losses[-1]
        for run in done[done.is_clean_control].itertuples()
        if (losses := sequences[str(run.name)]) is not None
    }
    largest_clean_rise, noise = clean_rise(runs), noise_of_rise(runs)
    rows = []
    for run, excess in zip(done.itertuples(index=False), excesses, strict=True):
        curve = runs.curve(str(run.name))
        descent = double_descent(curve.tokens, curve.test_loss)
        judged = judge_descent(descent, sequences[str(run.name)], largest_clean_rise, noise)
        clean = clean_sizes.get(str(run.model), _Clean())
        control = None if run.is_clean_control else controls.get((run.model, run.seed))
        over = _over_clean(sequences[str(run.name)], clean.sequences if control is None else control)
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
                "excess_over_clean": excess,
                "excess_low": over.low,
                "excess_high": over.high,
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
