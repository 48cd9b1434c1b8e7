"""What repetition did to a run: double descent as numbers, and the study's summary table."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.measures.effective_size import METRICS, size_multipliers
from analysis.measures.induction_heads import formation
from analysis.runs import Runs

# Numbers of the last evaluation that runs made before they were measured lack.
PROBED = (
    "prefix_matching",
    "prefix_matching_null",
    "copying_score",
    "random_copying_loss",
    "random_copying_gain",
    "random_copying_gain_null",
    "in_context_score",
)


@dataclass(frozen=True)
class DoubleDescent:
    """Where a test-loss curve stands highest above its earlier minimum."""

    rise: float  # nats, max over t of L(t) - min over s < t of L(s); 0 for a curve that only falls
    at_tokens: float  # where that maximum is
    won_back: float  # nats, L there minus L at the end


def double_descent(tokens: npt.ArrayLike, loss: npt.ArrayLike) -> DoubleDescent:
    """The numbers of one curve: tokens and loss in nats, both shape [evaluations], by time [SCIENCE: H22 fig. 3]."""
    x, y = np.asarray(tokens, float), np.asarray(loss, float)
    rise = y - np.minimum.accumulate(y)
    peak = int(rise.argmax())
    return DoubleDescent(float(rise[peak]), float(x[peak]), float(y[peak] - y[-1]) if rise[peak] > 0 else 0.0)


def noise_of_rise(runs: Runs) -> float:
    """The rise that means nothing, in nats: twice the largest rise of any clean run's own curve, or twice the largest
    standard deviation of final test loss between clean seeds of one size where that is more; NaN without clean runs."""
    clean = runs.done[runs.done.repeats == 1]
    if clean.empty:
        return float("nan")
    own = [double_descent(curve.tokens, curve.test_loss).rise for curve in map(runs.curve, clean.name)]
    between = clean.groupby("model").final_test_loss.std(ddof=1).fillna(0.0)
    return 2 * max(*own, *between)


def summary(runs: Runs) -> pd.DataFrame:
    """One row per finished run: final losses in nats, size multipliers, double-descent rise, place and recovery, and
    what is known of its induction heads.

    `rise_counts` says whether the rise stands above the noise of the clean runs, `double_descent` whether what is won
    back does too; None without a clean run. `heads_formed_at` and `heads_lost_at` are in tokens, `induction.formation`.
    """
    done = runs.done
    multipliers = {metric.column: size_multipliers(runs, metric) for metric in METRICS}
    clean_loss = done[done.repeats == 1].groupby("model").final_test_loss.mean()
    noise = noise_of_rise(runs)
    rows = []
    for run in done.itertuples(index=False):
        curve = runs.curve(str(run.name))
        descent = double_descent(curve.tokens, curve.test_loss)
        sizes = {column: found.get(str(run.name)) for column, found in multipliers.items()}
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
                "pool_loss": run.final_pool_loss,
                "seen_unique_loss": run.final_seen_unique_loss,
                "copying_loss": run.final_copying_loss,
                "copying_gain": run.final_copying_gain,
                "copying_gain_null": run.final_copying_gain_null,
                **{name: getattr(run, f"final_{name}", float("nan")) for name in PROBED},
                "heads_formed_at": heads.formed_at if heads else float("nan"),
                "heads_lost_at": heads.lost_at if heads else float("nan"),
            }
        )
    columns = ["parameters_non_embedding", "repeated_fraction", "repeats", "seed"]
    return pd.DataFrame(rows).sort_values(columns, ignore_index=True)
