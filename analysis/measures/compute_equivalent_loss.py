"""Compute-equivalent loss: the share of a run's compute that clean training to the same loss would save [C26]."""

from dataclasses import dataclass
from functools import lru_cache

import pandas as pd

from analysis.intervals import Estimate
from analysis.measures.clean_law import PARAMETERS, PowerLaw, fit_power_law
from analysis.measures.effective_size import NoLaw, clean_sizes_needed, paired_multipliers
from analysis.runs import Runs, scaling_runs


@dataclass(frozen=True)
class LostCompute:
    """The clean law of compute, and the compute-equivalent loss of every finished run.

    law: L(C) = E + A·C^-alpha, in nats and FLOPs. lost: 1 - C*/C by run name, where the clean law reaches the run's loss at compute C*
    (paired by seed, see `effective_size.paired_multipliers`).
    """

    law: PowerLaw
    lost: dict[str, Estimate]


def compute(table: pd.DataFrame) -> pd.Series:
    """Training compute C = 6·N·T in FLOPs for every run in a table, where N counts all parameters [C26]."""
    return 6.0 * table.parameters_total * table.trained_tokens


@lru_cache  # a fit takes a second, and the figure and the table need the same fit
def _fitted(spent: tuple[float, ...], losses: tuple[float, ...]) -> PowerLaw:
    return fit_power_law(spent, losses)


def lost_compute(runs: Runs) -> LostCompute | NoLaw:
    """Compute-equivalent loss of every finished run; a bound if the law would have to be extrapolated.

    Returns NoLaw if fewer than three sizes have clean runs, or if the loss of clean runs does not clearly fall with compute, as in
    `effective_size.clean_law`.
    """
    table = scaling_runs(runs)
    clean = table[table.is_clean_control]
    if clean.model.nunique() < PARAMETERS:
        return NoLaw(f"the clean law of compute needs {clean_sizes_needed(runs)}")
    law = _fitted(tuple(compute(clean)), tuple(clean.final_test_loss))
    span = float(law.loss(law.smallest) - law.loss(law.largest))
    if span <= 2 * law.residual:
        return NoLaw(
            f"the test loss of clean runs does not clearly fall with compute: the law falls by {span:.3g} over all clean runs, and its"
            f" largest residual is {law.residual:.3g}"
        )
    gains = paired_multipliers(law, table, compute(table), table.final_test_loss, table.is_clean_control)
    return LostCompute(law, {name: 1 - gain for name, gain in gains.items()})
