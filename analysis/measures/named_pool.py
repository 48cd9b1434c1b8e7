"""Measure the effects of a named pool in its own domain and in general. Runs are paired with the R = 0 control of the same seed."""

from dataclasses import dataclass

import pandas as pd

from analysis.formatting import percent
from analysis.intervals import over_seeds
from analysis.runs import FACTORS, POOL_FIELDS, Runs
from repeat_study.config.corpora import POOL_DOMAIN
from repeat_study.config.fixed_pool import HoldFixed
from repeat_study.records.metrics import further_test_loss

GENERAL, DOMAIN, MEMORIZED = "general", "domain", "memorized"
# Suffix of the differences from runs that train on as many tokens from the domain, but see each sequence only once
OVER_FRESH = "_over_fresh"
MEASURES = {
    GENERAL: "general test loss",
    DOMAIN: "test loss in the pool's domain",
    MEMORIZED: "memorization",
}
SAME_FRACTION = 0.02  # relative tolerance; f is rounded to whole sequences
# A control has no pool. Its other fields are the same as in the runs that it is compared with.
SHARED = ["model", *(factor for factor in FACTORS if factor not in POOL_FIELDS)]
PANEL = ["model", "parameters_non_embedding", "design"]
ARM = [*PANEL, "setting", "repeats", "repeated_fraction", "pool_tokens"]


@dataclass(frozen=True)
class NamedPool:
    """The effect of a named pool.

    runs: one row per finished run that trains on a named pool, with its losses and its differences from the control with R = 0 and the
        same seed, in nats per token. `general` and `domain` are changes in test loss. `memorized` is the loss on unseen text from the
        pool's domain minus the loss on the pool, with the same difference in the control subtracted. The `_over_fresh` columns are
        differences from the domain's clean control instead: the run with R = 1, the same f and the same seed (NaN without one).
    arms: `runs` averaged over seeds, with one row per arm and `measure`, and the columns of `intervals.over_seeds`. The column `design`
        describes the pool: its size if this is the same for every R, or f.
    fresh: like `arms`, for the domain's clean controls. Their `design` and `repeats` are taken from the arm that the control belongs to.
    """

    runs: pd.DataFrame
    arms: pd.DataFrame
    fresh: pd.DataFrame

    def of(self, measure: str, arm: pd.Series, fresh: bool = False) -> pd.Series | None:
        """The row of `measure` for an arm, given as a row of `arms`; None if it does not exist."""
        table = self.fresh if fresh else self.arms
        keys = [*PANEL, "setting", "repeats"]
        same = table[(table[keys] == arm[keys]).all(axis=1) & (table.measure == measure)] if len(table) else table
        return same.iloc[0] if len(same) else None


def named_pool(runs: Runs) -> NamedPool | None:
    """The effect of a named pool on the finished runs from scratch. None if no run with a pool has a finished control."""
    table = runs.with_domain_controls.done
    table = table[(table.pool_corpus != "") & (table.parent == "")]
    domain_loss = f"final_{further_test_loss(POOL_DOMAIN).key}"
    if table.empty or domain_loss not in table:
        return None
    table = table.assign(
        shared=_shared(table),
        # The unit of a separate pool does not affect the control.
        with_control=_shared(table.assign(unit=table.unit.where(~table.has_separate_pool, ""))),
        repeated_fraction=table.exact_repeated_fraction,
        design=_designs(table),
        setting=_settings(table),
        general_loss=table.final_test_loss,
        domain_loss=table[domain_loss],
        pool_loss=table.final_pool_loss,
        gap=table[domain_loss] - table.final_pool_loss,
    )
    control = (
        table[table.is_clean_control].drop_duplicates(["with_control", "seed"]).set_index(["with_control", "seed"])
    )
    with_pool = table[~table.is_clean_control]
    base = control.reindex(pd.MultiIndex.from_frame(with_pool[["with_control", "seed"]]))
    losses = {GENERAL: "general_loss", DOMAIN: "domain_loss", MEMORIZED: "gap"}
    for measure, loss in losses.items():
        with_pool = with_pool.assign(**{measure: with_pool[loss].to_numpy() - base[loss].to_numpy()})
    with_pool = with_pool[with_pool[GENERAL].notna()]
    if with_pool.empty:
        return None
    controls = [_domain_control(run, with_pool) for _, run in with_pool.iterrows()]
    for measure in (GENERAL, DOMAIN):
        fresh = [control[measure] if control is not None else float("nan") for control in controls]
        with_pool = with_pool.assign(**{f"{measure}{OVER_FRESH}": with_pool[measure] - fresh})
    of_arms = pd.DataFrame(
        [
            control[[GENERAL, DOMAIN]].to_dict() | run[ARM].to_dict() | {"seed": run.seed}
            for (_, run), control in zip(with_pool.iterrows(), controls, strict=True)
            if control is not None
        ]
    )
    measures = [*losses, *(f"{measure}{OVER_FRESH}" for measure in (GENERAL, DOMAIN))]
    columns = ["name", *ARM, "seed", "pool_seed", "general_loss", "domain_loss", "pool_loss", *measures]
    return NamedPool(
        with_pool[columns].sort_values([*ARM, "seed"], ignore_index=True),
        _averages(with_pool, measures),
        _averages(of_arms, [GENERAL, DOMAIN]) if len(of_arms) else pd.DataFrame(),
    )


def _averages(table: pd.DataFrame, measures: list[str]) -> pd.DataFrame:
    long = table.melt(ARM, measures, var_name="measure").dropna(subset="value")
    return over_seeds(long, [*ARM, "measure"], "value")


def _shared(table: pd.DataFrame) -> pd.Series:
    return table[SHARED].astype(str).agg("|".join, axis=1)


def _domain_control(run: pd.Series, table: pd.DataFrame) -> pd.Series | None:
    """The run that trains on as much text from the pool's domain as `run`, but sees each sequence only once; None if there is none."""
    if run.repeats == 1:
        return None
    same = (table.repeats == 1) & (table.shared == run.shared) & (table.seed == run.seed)
    same &= table.hold_fixed == run.hold_fixed
    same &= (table.repeated_fraction / run.repeated_fraction - 1).abs() < SAME_FRACTION
    return table[same].iloc[0] if same.any() else None


def _designs(table: pd.DataFrame) -> list[str]:
    """For every run, the quantity that is held fixed for all R: the size of the pool, or f."""
    return [
        f"a pool of {run.pool_tokens:,} tokens{', fresh tokens fixed' if run.hold_fixed == HoldFixed.FRESH else ''}"
        if run.fixed_pool
        else f"f = {percent(run.repeated_fraction)}"
        for run in table.itertuples()
    ]


def _settings(table: pd.DataFrame) -> pd.Series:
    """For every run, the other settings that vary within its model size; an empty string if none do."""
    varied = [
        factor
        for factor in FACTORS
        if factor not in ("fixed_pool", "hold_fixed") and table.groupby("model")[factor].nunique().max() > 1
    ]
    return (
        table[varied].apply(lambda run: ", ".join(f"{name} = {value}" for name, value in run.items()), axis=1)
        if varied
        else pd.Series("", table.index)
    )
