"""Compare studies: find the factors in which they differ, and pair the runs that agree in everything else."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.formatting import order_name, plural
from analysis.intervals import NAN, over_seeds, t_quantile
from analysis.measures.headline import excess_by_seed
from analysis.runs import FACTORS, ORDER, POOL_FIELDS, Runs
from data_prep.errors import InputError

LOSS, EXCESS = "test_loss", "excess"
# The metrics to compare, at the end of training.
COMPARED = {
    LOSS: "test loss",
    EXCESS: "test loss above the clean run's",
    "pool_loss": "pool loss",
    "copying_loss": "copying loss",
    "copying_gain": "copying gain",
    "prefix_matching": "prefix matching",
}
START = ["parent_repeats", "parent_fraction", "is_fine_tuned"]  # where a fine-tuned run starts
ORDER_NAME = "order"  # spacing and burst distance together
FIELDS = [
    "model",
    "repeated_fraction",
    "repeats",
    *(field for field in FACTORS if field not in ORDER),
    ORDER_NAME,
    *START,
]
OF_REPEATED = (*POOL_FIELDS, ORDER_NAME, "repeated_fraction", "repeats")  # fields that do not apply to clean runs
ARM = ["model", "parameters_non_embedding", "repeated_fraction", "repeats"]
Studies = Sequence[tuple[str, Runs]]


@dataclass(frozen=True)
class Factor:
    """A field in which studies differ, with the values in each study."""

    name: str
    values: dict[str, list[object]]  # by study


@dataclass(frozen=True)
class StudyComparison:
    """The differences between studies at the end of training.

    reference: the first study. The others are compared with it.
    factors: the fields in which they differ; empty if the studies differ only in which runs they contain.
    pairs: one row per pair of runs and metric: `study`, the arm, `seed`, `metric`, `name`, `name_reference`, `value`,
        `value_reference` and `difference`.
    differences: one row per arm, study and metric: the mean difference from the reference, its 95% interval, the number of `seeds`, and
        `paired`, whether the runs are paired by seed. Without common seeds, it is the difference of two means with Welch's interval.
    in_both: the number of runs that the reference shares with another study. They are left out of the differences.
    alone: by study, the number of finished runs without a counterpart.
    """

    reference: str
    factors: list[Factor]
    pairs: pd.DataFrame
    differences: pd.DataFrame
    in_both: int
    alone: dict[str, int]


def compare_studies(studies: Studies) -> StudyComparison:
    """Compare two or more studies. Raises InputError if no finished run has a counterpart in the first study."""
    tables = {name: _finished(runs) for name, runs in studies}
    reference, base = next(iter(tables.items()))
    factors = _factors(tables)
    differing = {factor.name for factor in factors}
    on = [field for field in FIELDS if field not in differing]
    shared, pairs, alone = 0, [], {}
    matched: set[str] = set()
    for name, table in list(tables.items())[1:]:
        both = table.merge(base, on=[*on, "metric"], suffixes=("", "_reference"))
        same_run = set(both[both.name == both.name_reference].name)
        shared += len(same_run)
        alone[name] = len(set(table.name) - set(both.name))
        matched |= set(both.name_reference)
        different = ~(both.name.isin(same_run) | both.name_reference.isin(same_run))
        pairs.append(both[different].assign(study=name))
    alone = {reference: len(set(base.name) - matched), **alone}
    joined = pd.concat(pairs, ignore_index=True)
    if joined.empty and shared:
        raise InputError(
            f"{' and '.join(tables)}: contain the same {plural(shared, 'run')}, and no other runs that can be compared; expected"
            " different runs"
        )
    if joined.empty:
        named = ", ".join(factor.name for factor in factors) or "none"
        raise InputError(
            f"{' and '.join(tables)}: no finished run has a counterpart that agrees in everything but the factors in which the studies"
            f" differ ({named}); expected studies with common models, fractions and repeats"
        )
    joined = joined.assign(difference=joined.value - joined.value_reference)
    keys = ["study", "metric", *ARM]
    for field in ("model", "parameters_non_embedding", "repeated_fraction", "repeats"):
        if field not in joined:
            joined[field] = joined[f"{field}_reference"]
    same_seed = joined[(joined.seed == joined.seed_reference) & (joined.pool_seed == joined.pool_seed_reference)]
    paired = over_seeds(same_seed, keys, "difference").assign(paired=True)
    arms_paired = set(map(tuple, paired[keys].to_numpy())) if len(paired) else set()
    rest = [arm for key, arm in joined.groupby(keys) if tuple(key) not in arms_paired]
    unpaired = pd.DataFrame([_welch(arm, keys) for arm in rest])
    differences = pd.concat([table for table in (paired, unpaired) if len(table)], ignore_index=True)
    # In the order of COMPARED, with the test loss first
    ordered = differences.assign(metric=pd.Categorical(differences.metric, list(COMPARED))).sort_values(keys)
    ordered = ordered.assign(metric=ordered.metric.astype(str)).reset_index(drop=True)
    return StudyComparison(reference, factors, same_seed, ordered, shared, alone)


def largest_difference(comparison: StudyComparison) -> pd.Series:
    """The row of `differences` with the largest difference in final test loss."""
    losses = comparison.differences[comparison.differences.metric == LOSS]
    return losses.loc[losses["mean"].abs().idxmax()]


def _finished(runs: Runs) -> pd.DataFrame:
    """One row per finished run and metric, with its `value`."""
    combined = runs.combined
    done = combined.done.assign(is_fine_tuned=combined.done.parent != "")
    done[ORDER_NAME] = [order_name(*order) for order in zip(done.spacing, done.burst_distance, strict=True)]
    excess = excess_by_seed(runs).set_index("name").excess
    metrics = {key: done[f"final_{key}"] for key in COMPARED if f"final_{key}" in done}
    wide = done[["name", "seed", "pool_seed", "parameters_non_embedding", "is_clean_control", *FIELDS]]
    wide = wide.assign(**metrics, **{EXCESS: done.name.map(excess)})
    kept = [*wide.columns.difference(list(COMPARED), sort=False)]
    return wide.melt(kept, [key for key in COMPARED if key in wide], "metric", "value").dropna(subset="value")


def _factors(tables: dict[str, pd.DataFrame]) -> list[Factor]:
    """The fields whose values in some study are all different from those in the reference, for every model in both."""
    (_, base), *others = tables.items()
    factors = []
    for field in FIELDS:
        if any(_is_disjoint(base, table, field) for _, table in others):
            rows = {name: _applicable(table, field) for name, table in tables.items()}
            factors.append(Factor(field, {name: sorted(set(table[field]), key=str) for name, table in rows.items()}))
    return factors


def _is_disjoint(one: pd.DataFrame, other: pd.DataFrame, field: str) -> bool:
    one, other = _applicable(one, field), _applicable(other, field)
    if one.empty or other.empty:
        return False
    models = set(one.model) & set(other.model)
    if field == "model" or not models:
        return not set(one[field]) & set(other[field])
    return all(not set(one[one.model == model][field]) & set(other[other.model == model][field]) for model in models)


def _applicable(table: pd.DataFrame, field: str) -> pd.DataFrame:
    return table[~table.is_clean_control] if field in OF_REPEATED else table


def _welch(arm: pd.DataFrame, keys: list[str]) -> dict[str, object]:
    """The difference between two means of runs with different seeds, with Welch's 95% interval."""
    own = arm.drop_duplicates("name").value.to_numpy(float)
    other = arm.drop_duplicates("name_reference").value_reference.to_numpy(float)
    mean, low, high = float(own.mean() - other.mean()), NAN, NAN
    if min(len(own), len(other)) > 1:
        errors = np.array([own.var(ddof=1) / len(own), other.var(ddof=1) / len(other)])
        if errors.sum() > 0:
            freedom = errors.sum() ** 2 / (errors**2 / (np.array([len(own), len(other)]) - 1)).sum()
            half = float(t_quantile(freedom)) * float(errors.sum()) ** 0.5
            low, high = mean - half, mean + half
    row = arm.iloc[0]
    seeds = min(len(own), len(other))
    return {**{key: row[key] for key in keys}, "mean": mean, "low": low, "high": high, "seeds": seeds, "paired": False}
