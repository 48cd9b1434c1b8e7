"""What repetition did to a run: double descent as numbers, and the study's summary table."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.effective_size import Multiplier, multiplier
from analysis.runs import Runs
from analysis.scaling_law import PowerLaw, fit_power_law


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


def clean_law(runs: Runs) -> PowerLaw | None:
    """The law of the finished clean runs' test loss; None where they have fewer than three sizes."""
    clean = runs.done[runs.done.repeats == 1]
    if clean.parameters_non_embedding.nunique() < 3:
        return None
    return fit_power_law(clean.parameters_non_embedding, clean.final_test_loss)


def noise_of_rise(runs: Runs) -> float:
    """The rise that means nothing, in nats: twice the largest rise of any clean run's own curve, or twice the largest
    standard deviation of final test loss between clean seeds of one size where that is more; NaN without clean runs."""
    clean = runs.done[runs.done.repeats == 1]
    if clean.empty:
        return float("nan")
    own = [double_descent(curve.tokens, curve.test_loss).rise for curve in map(runs.curve, clean.name)]
    between = clean.groupby("model").final_test_loss.std(ddof=1).fillna(0.0)
    return 2 * max(*own, *between)


def size_multipliers(runs: Runs) -> dict[str, Multiplier]:
    """Effective-size multiplier of every finished run by name; empty where the clean law cannot be fitted."""
    law = clean_law(runs)
    if law is None:
        return {}
    done = runs.done
    return {
        name: multiplier(law, size, loss)
        for name, size, loss in zip(done.name, done.parameters_non_embedding, done.final_test_loss, strict=True)
    }


def summary(runs: Runs) -> pd.DataFrame:
    """One row per finished run: final losses in nats, size multiplier, double-descent rise, place and recovery.

    `rise_counts` says whether the rise stands above the noise of the clean runs, `double_descent` whether what is won
    back does too; None without a clean run.
    """
    done = runs.done
    multipliers = size_multipliers(runs)
    clean_loss = done[done.repeats == 1].groupby("model").final_test_loss.mean()
    noise = noise_of_rise(runs)
    rows = []
    for run in done.itertuples(index=False):
        curve = runs.curve(str(run.name))
        descent = double_descent(curve.tokens, curve.test_loss)
        size = multipliers.get(str(run.name))
        rows.append(
            {
                "run": run.name,
                "label": run.label,
                "model": run.model,
                "parameters_non_embedding": run.parameters_non_embedding,
                "repeated_fraction": run.repeated_fraction,
                "repeats": run.repeats,
                "seed": run.seed,
                "test_loss": run.final_test_loss,
                "excess_over_clean": run.final_test_loss - clean_loss.get(run.model, float("nan")),
                "size_multiplier": size.value if size else float("nan"),
                "size_multiplier_bound": str(size.bound) if size else "",
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
            }
        )
    columns = ["parameters_non_embedding", "repeated_fraction", "repeats", "seed"]
    return pd.DataFrame(rows).sort_values(columns, ignore_index=True)
