"""Compare a study's variants at the same size, fraction, repeats and seed, to see what a factor such as the order of copies changes."""

from dataclasses import dataclass

import pandas as pd

from analysis.intervals import over_seeds
from analysis.measures.degradation import double_descent
from analysis.runs import ARM, CORPORA, FACTORS, Runs
from repeat_study.config.run import Run

LOSS, RISE = "test_loss", "rise"
# The metrics to compare, in nats per token. For all of them, higher values are worse.
COMPARED = {LOSS: "test loss", "copying_loss": "copying loss", RISE: "rise in test loss"}
SAME_ARM = ["model", "parameters_non_embedding", "repeated_fraction", "repeats"]
SAME_RUN = [*SAME_ARM, "seed", "pool_seed"]


@dataclass(frozen=True)
class Comparison:
    """Differences between a study's variants.

    Rows are in the order of `Runs.variants`.

    reference: the variant that the others are compared with.
    excess: one row per arm, variant and metric: the repeated run's value minus the value of the variant's own clean run with the
        same seed, averaged over seeds, with `low`, `high` and `seeds` as in `intervals.over_seeds`.
    differences: one row per arm, metric and variant other than the reference: the variant's value minus the reference's, paired by
        seed, with the same columns. In arms with repeats, both values are excesses over clean runs.
    """

    reference: str
    excess: pd.DataFrame
    differences: pd.DataFrame


def compare_variants(runs: Runs) -> Comparison | None:
    """Compare a study's variants; None if there is only one, or if no finished run has a counterpart in the reference."""
    variants = runs.variants()
    if len(variants) < 2:
        return None
    values = pd.concat([_values(variant).assign(variant=name) for name, variant in variants], ignore_index=True)
    if values.empty:
        return None
    on = ["variant", "metric", "model", "seed"]
    clean = values[values.repeats == 1][[*on, "value"]].rename(columns={"value": "clean"})
    joined = values.merge(clean, on=on, how="left")
    repeated = joined.repeats > 1
    joined["value"] = joined.value.where(~repeated, joined.value - joined.clean)
    joined = joined.dropna(subset="value")
    reference = _reference(variants)
    base = joined[joined.variant == reference][[*SAME_RUN, "metric", "value"]]
    pairs = joined[joined.variant != reference].merge(base, on=[*SAME_RUN, "metric"], suffixes=("", "_reference"))
    pairs["value"] -= pairs.value_reference
    # Variants that differ only in the order of copies share their clean runs, so the differences between these are 0.
    same = pairs[pairs.repeats == 1].groupby("variant").value.transform(lambda difference: (difference == 0).all())
    pairs = pairs.drop(index=same[same].index)
    if pairs.empty:
        return None
    order = [name for name, _ in variants]
    return Comparison(reference, _averaged(joined[joined.repeats > 1], order), _averaged(pairs, order))


def _averaged(values: pd.DataFrame, order: list[str]) -> pd.DataFrame:
    """Means over seeds, with the variants in this order. Sorted by name, "bursts 20 apart" would precede "bursts 4 apart"."""
    means = over_seeds(values, ["variant", *SAME_ARM, "metric"], "value")
    rank = {name: number for number, name in enumerate(order)}
    return means.sort_values("variant", key=lambda names: names.map(rank), kind="stable", ignore_index=True)


def _values(runs: Runs) -> pd.DataFrame:
    """One row per finished run and metric in COMPARED, with its `value`."""
    done = runs.done
    rises = [double_descent(curve.tokens, curve.test_loss).rise for curve in map(runs.curve, done.name)]
    wide = done[ARM].assign(rise=rises, **{key: done[f"final_{key}"] for key in COMPARED if f"final_{key}" in done})
    return wide.melt(ARM, var_name="metric", value_name="value")


def _reference(variants: list[tuple[str, Runs]]) -> str:
    """The variant with the most runs. In case of a tie, it is the one with the most factors at their defaults, then the first one."""
    defaults = {name: Run.model_fields[name].default for name in FACTORS if name not in CORPORA}

    def at_default(runs: Runs) -> int:
        repeated = runs.table[runs.table.repeats > 1]
        rows = repeated if len(repeated) else runs.table
        return sum(bool((rows[name] == default).all()) for name, default in defaults.items())

    return max(variants, key=lambda variant: (len(variant[1].table), at_default(variant[1])))[0]
