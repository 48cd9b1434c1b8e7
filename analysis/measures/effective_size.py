"""Effective model size: the size at which the clean law reaches a run's loss or score, paired by seed [H22, figs. 4-6]."""

from dataclasses import dataclass
from functools import lru_cache

import pandas as pd

from analysis.intervals import Bound, Estimate
from analysis.measures.clean_law import PARAMETERS, PowerLaw, fit_power_law
from analysis.runs import Runs, left_out_of_laws, scaling_runs
from repeat_study.records.metric import Metric
from repeat_study.records.metrics import BY_KEY, METRICS, further_test_loss

TEST_LOSS = BY_KEY["test_loss"]
ROUNDING = 1e-9  # relative; a clean run that equals its law's loss at the largest size is not beyond that size
SIZE_METRICS = tuple(metric for metric in METRICS if metric.multiplier)


@dataclass(frozen=True)
class NoLaw:
    """The reason why a law cannot be fitted or used."""

    reason: str


def falling(metric: Metric, table: pd.DataFrame) -> pd.Series:
    """A metric's final value for each run in a table, transformed to fall with model size.

    A score between 0 and 1 becomes 1 - score [H22, fig. 6]. Runs without the metric get NaN.
    """
    final = table.get(f"final_{metric.key}", pd.Series(float("nan"), table.index)).astype(float)
    return final if metric.is_loss else 1 - final


def test_sets(runs: Runs) -> list[Metric]:
    """The losses on additional test sets, which finished runs recorded as `test_loss_<set>` in metrics.jsonl."""
    done = runs.done
    prefix = f"final_{TEST_LOSS.key}_"
    columns = [str(name) for name in done if str(name).startswith(prefix) and done[name].notna().any()]
    return [further_test_loss(name.removeprefix(prefix)) for name in sorted(columns) if not name.endswith("_ci")]


def clean_sizes_needed(runs: Runs) -> str:
    """A clause to follow "the clean law needs", for studies with too few clean sizes. It mentions any runs left out."""
    table = scaling_runs(runs)
    sizes = table[table.is_clean_control].model.nunique()
    left_out = left_out_of_laws(runs).rstrip(".")
    return (
        f"finished clean runs of at least {PARAMETERS} sizes, because it has {PARAMETERS} parameters; found {sizes}"
        f"{f' ({left_out})' if left_out else ''}"
    )


def clean_law(runs: Runs, metric: Metric = TEST_LOSS) -> PowerLaw | NoLaw:
    """Fit the clean law of a metric to the finished clean runs [H22, figs. 4-6].

    Returns NoLaw if fewer than three sizes have clean runs, or if the metric does not clearly improve with size. That is the case if,
    over all clean sizes, the law falls by no more than twice its largest residual, or if no clean run's score exceeds twice its null.
    """
    table = scaling_runs(runs)
    clean = table[table.is_clean_control & falling(metric, table).notna()]
    if table[table.is_clean_control].parameters_non_embedding.nunique() < PARAMETERS:
        return NoLaw(f"the clean law needs {clean_sizes_needed(runs)}")
    if clean.parameters_non_embedding.nunique() < PARAMETERS:
        return NoLaw("the clean runs did not record this metric at enough sizes")
    is_score = not metric.is_loss
    if is_score and (clean[f"final_{metric.key}"] <= 2 * clean[f"final_{metric.null_key}"]).all():
        return NoLaw("no clean run's score exceeds twice its null")
    law = _fitted(tuple(clean.parameters_non_embedding), tuple(falling(metric, clean)))
    span = float(law.loss(law.smallest) - law.loss(law.largest))
    if span <= 2 * law.residual:
        return NoLaw(
            f"the metric does not clearly improve with the size of clean models: the law falls by {span:.3g} over all sizes, and its"
            f" largest residual is {law.residual:.3g}"
        )
    return law


@lru_cache  # a fit takes a second, and several figures and the summary need the same fit
def _fitted(sizes: tuple[float, ...], losses: tuple[float, ...]) -> PowerLaw:
    return fit_power_law(sizes, losses)


def multiplier(law: PowerLaw, size: float, loss: float) -> Estimate:
    """Effective size divided by actual size, for a run with `size` parameters and a final `loss` in the law's unit.

    A multiplier below 1 means harm. The law is not extrapolated: outside the range of clean sizes, the multiplier is a bound.
    """
    effective = law.size(loss)
    if effective < law.smallest * (1 - ROUNDING):
        return Estimate(law.smallest / size, bound=Bound.AT_MOST)
    if effective > law.largest * (1 + ROUNDING):
        return Estimate(law.largest / size, bound=Bound.AT_LEAST)
    return Estimate(effective / size)


def over_controls(table: pd.DataFrame, values: pd.Series, controls: pd.Series) -> pd.Series:
    """Each run's value minus that of its control, the clean run of the same model and seed.

    Clean runs, and runs without such a control, are compared with the mean of the model's clean runs instead. NaN if there are none.

    table: one row per run, with the columns `model` and `seed`. values: the metric of each row. controls: whether each row is a control.
    """
    clean = table[["model", "seed"]].assign(value=values)[controls]
    of_seed = clean.groupby(["model", "seed"]).value.mean().rename("own")
    own = table[["model", "seed"]].join(of_seed, on=["model", "seed"]).own
    of_model = table.model.map(clean.groupby("model").value.mean())
    return values - own.where(~controls).fillna(of_model)


def paired_multipliers(
    law: PowerLaw, table: pd.DataFrame, sizes: pd.Series, values: pd.Series, controls: pd.Series
) -> dict[str, Estimate]:
    """The multiplier of every run in a table, by run name, computed from its difference from its control (see `over_controls`).

    The difference is added to the law's loss at the run's size. Noise that the runs of a seed share cancels, and so does the distance
    between the law and the clean runs of this size. For a run without clean runs of its size, its own value is used.

    sizes: size or compute of each row, in the law's unit. values: loss of each row, in the law's unit.
    """
    on_law = pd.Series(law.loss(sizes), table.index) + over_controls(table, values, controls)
    return {
        str(name): multiplier(law, size, value)
        for name, size, value in zip(table.name, sizes, on_law.fillna(values), strict=True)
    }


def size_multipliers(runs: Runs, metric: Metric = TEST_LOSS) -> dict[str, Estimate]:
    """The multiplier of every finished run that has the metric, by run name, paired by seed; empty without a clean law."""
    law = clean_law(runs, metric)
    if isinstance(law, NoLaw):
        return {}
    table = scaling_runs(runs)
    table = table[falling(metric, table).notna()]
    values = falling(metric, table)
    return paired_multipliers(law, table, table.parameters_non_embedding, values, table.is_clean_control)
