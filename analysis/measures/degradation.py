"""Damage by repetition: double descent as numbers, and the study's summary table."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.measures.effective_size import SIZE_METRICS, TEST_LOSS, size_multipliers
from analysis.measures.induction_heads import formation
from analysis.runs import Runs
from repeat_study.records.metrics import METRICS

# In the order of the list of metrics; those that old runs did not record are NaN.
METRIC_COLUMNS = [
    key
    for metric in METRICS
    if metric.in_summary and metric is not TEST_LOSS
    for key in (metric.key, metric.null_key)
    if key
]


@dataclass(frozen=True)
class DoubleDescent:
    """The point of a test-loss curve that is highest above the curve's earlier minimum."""

    rise: float  # nats, max over t of L(t) - min over s < t of L(s); 0 if the curve only falls
    at_tokens: float  # training tokens at that maximum
    won_back: float  # nats, loss there minus final loss


def double_descent(tokens: npt.ArrayLike, loss: npt.ArrayLike) -> DoubleDescent:
    """Double descent of one curve: tokens and loss in nats, both of shape [evaluations], in time order [H22, fig. 3]."""
    x, y = np.asarray(tokens, float), np.asarray(loss, float)
    rise = y - np.minimum.accumulate(y)
    peak = int(rise.argmax())
    return DoubleDescent(float(rise[peak]), float(x[peak]), float(y[peak] - y[-1]) if rise[peak] > 0 else 0.0)


def noise_of_rise(runs: Runs) -> float:
    """The largest rise in nats that counts as noise; NaN without clean runs.

    Twice the largest rise of any clean run's own curve, or twice the largest standard deviation of final test loss between the
    clean seeds of one size, whichever is larger.
    """
    clean = runs.done[runs.done.repeats == 1]
    if clean.empty:
        return float("nan")
    own = [double_descent(curve.tokens, curve.test_loss).rise for curve in map(runs.curve, clean.name)]
    between = clean.groupby("model").final_test_loss.std(ddof=1).fillna(0.0)
    return 2 * max(*own, *between)


def summary(runs: Runs) -> pd.DataFrame:
    """A row per finished run: what was trained, final metrics, effective sizes, double descent, induction heads.

    Losses are in nats. `rise_counts` tells whether the rise exceeds the noise of the clean runs, `double_descent` whether both
    the rise and what is won back do; None without a clean run. `heads_formed_at` and `heads_lost_at` are in tokens, see
    `induction_heads.formation`.
    """
    done = runs.done
    multipliers = {metric.multiplier: size_multipliers(runs, metric) for metric in SIZE_METRICS}
    clean_loss = done[done.repeats == 1].groupby("model").final_test_loss.mean()
    noise = noise_of_rise(runs)
    rows = []
    for run in done.itertuples(index=False):
        curve = runs.curve(str(run.name))
        descent = double_descent(curve.tokens, curve.test_loss)
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
                "excess_over_clean": run.final_test_loss - clean_loss.get(run.model, float("nan")),
                **{column: size.value if size else float("nan") for column, size in sizes.items()},
                **{f"{column}_bound": str(size.bound) if size else "" for column, size in sizes.items()},
                "rise": descent.rise,
                "rise_at_tokens": descent.at_tokens if descent.rise > 0 else float("nan"),
                "won_back": descent.won_back,
                "rise_counts": bool(descent.rise > noise) if noise == noise else None,
                "double_descent": bool(min(descent.rise, descent.won_back) > noise) if noise == noise else None,
                **{name: getattr(run, f"final_{name}", float("nan")) for name in METRIC_COLUMNS},
                "heads_formed_at": heads.formed_at if heads else float("nan"),
                "heads_lost_at": heads.lost_at if heads else float("nan"),
            }
        )
    columns = ["parameters_non_embedding", "repeated_fraction", "repeats", "seed"]
    return pd.DataFrame(rows).sort_values(columns, ignore_index=True)
