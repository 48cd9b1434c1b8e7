"""Compute-equivalent loss: the share of a run's compute that clean training to the same loss would have saved [C26]."""

from dataclasses import dataclass
from functools import lru_cache

import pandas as pd

from analysis.intervals import Estimate
from analysis.measures.clean_law import PARAMETERS, PowerLaw, fit_power_law
from analysis.measures.effective_size import NoLaw, clean_sizes_needed, multiplier
from analysis.runs import Runs, scaling_runs


@dataclass(frozen=True)
class LostCompute:
    """The clean law in compute, L(C) = E + A·C^-alpha in nats and FLOPs, and 1 - C*(L)/C of finished runs by run name."""

    law: PowerLaw
    lost: dict[str, Estimate]


def compute(table: pd.DataFrame) -> pd.Series:
    """C = 6·N·T in FLOPs of every run of a table, where N counts all parameters [C26]."""
    return 6.0 * table.parameters_total * table.trained_tokens


@lru_cache  # a fit takes a second, and the figure and the table use the same one
def _fitted(spent: tuple[float, ...], losses: tuple[float, ...]) -> PowerLaw:
    return fit_power_law(spent, losses)


def lost_compute(runs: Runs) -> LostCompute | NoLaw:
    """Compute-equivalent loss of every finished run; a bound if the law would have to be extrapolated.

    NoLaw if there are clean runs of fewer than three sizes, or if their loss is not ordered by compute, as in
    `effective_size.clean_law`.
    """
    table = scaling_runs(runs)
    clean = table[table.repeats == 1]
    if clean.model.nunique() < PARAMETERS:
        return NoLaw(f"the clean law in compute needs {clean_sizes_needed(runs)}")
    law = _fitted(tuple(compute(clean)), tuple(clean.final_test_loss))
    span = float(law.loss(law.smallest) - law.loss(law.largest))
    if span <= 2 * law.residual:
        return NoLaw(
            f"clean runs do not order test loss by compute: the law falls by {span:.3g} over all of them, and its largest"
            f" residual is {law.residual:.3g}"
        )
    gains = [multiplier(law, spent, loss) for spent, loss in zip(compute(table), table.final_test_loss, strict=True)]
    return LostCompute(law, {name: 1 - gain for name, gain in zip(table.name, gains, strict=True)})
