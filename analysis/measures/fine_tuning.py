"""Compare fine-tuned runs with training from scratch and with their parents [H22, figs. 12, 15]."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from analysis.formatting import any_of
from analysis.intervals import UNKNOWN
from analysis.measures.clean_law import PowerLaw
from analysis.measures.effective_size import NoLaw, clean_law, over_controls, paired_multipliers, test_sets
from analysis.runs import FACTORS, Runs
from repeat_study.config.parents import short_label
from repeat_study.records.run_directory import Status

MEMORIZED = 0.01  # nats; a pool counts as memorized if its loss is this far below the loss on the parent's test text
SCRATCH, CLEAN = "from scratch", "clean parent"
REPEATED = r"f[\d.e-]+-R\d+-?(.*)"  # the label of a repeated parent; the group captures the rest of the label
OF_PARENT = [f"parent_{text}_loss" for text in ("test", "pool", "seen_unique")]  # losses on the parent's texts
BEFORE_AND_AFTER = (
    *OF_PARENT,
    "copying_loss",
    "copying_gain",
    "prefix_matching",
    "prefix_matching_null",
)


def starts(runs: Runs) -> pd.DataFrame:
    """Every fine-tuned run and every clean run from scratch, with its `start`, ordered by size and start.

    A start is "from scratch", "clean parent" or "parent with f = 90%, R = 100". The R is left out if each size has one parent
    and their R differ; `with_repeats` adds it for a single size. If the study's runs differ
    in other ways, the start also includes the rest of the parent's label, and settings of the run itself, such as its learning rate.
    """
    table = runs.combined.table
    table = table[(table.parent != "") | table.is_clean_control]
    labels = [
        short_label(run.parent_label, run.model, int(run.parent_seed)) if run.parent else ""
        for run in table.itertuples()
    ]
    table = table.assign(start="", short_parent_label=labels)
    repeated = table[table.short_parent_label.str.match(REPEATED)]
    one_per_size = repeated.groupby(["model", "parent_fraction"]).parent_repeats.nunique().max() == 1
    show_repeats = not (one_per_size and repeated.groupby("parent_fraction").parent_repeats.nunique().max() > 1)
    table["start"] = [_start(run, show_repeats) for run in table.itertuples()]
    for kind in (table.parent == "", table.parent != ""):
        arms = table[kind].groupby(["model", "start"])
        for name in ("repeated_fraction", "repeats", *FACTORS):
            if arms[name].nunique().max() > 1:
                values = table.loc[kind, name]
                table.loc[kind, "start"] += [f", {name} = {_factor_value(value)}" for value in values]
    by = ["parameters_non_embedding", "parent_fraction", "parent_repeats", "start", "seed"]
    return table.sort_values(by, ignore_index=True)


def _start(run: Any, show_repeats: bool) -> str:
    if not run.parent:
        return SCRATCH
    if run.short_parent_label == "clean":
        return CLEAN
    if not (match := re.match(REPEATED, run.short_parent_label)):
        return f"parent {run.short_parent_label}"
    repeats = f", R = {run.parent_repeats:,}" if show_repeats else ""
    return f"parent with f = {run.parent_fraction:.0%}{repeats}{f' ({match[1]})' if match[1] else ''}"


def with_repeats(start: str, repeats: Iterable[int]) -> str:
    """Add the parent's R to the name of a start, unless the name includes it or the parents have none or several.

    repeats: the R of the parents of the runs with this start, 0 if a run has no parent.
    """
    values = set(repeats)
    if len(values) != 1 or min(values) < 2 or ", R = " in start:
        return start
    return re.sub(r"^(parent with f = [^, ]*)", rf"\1, R = {min(values):,}", start)


def repeats_of_parents(table: pd.DataFrame) -> str:
    """The R of the repeated parents, as text to append to a panel's title. Empty if the names of the starts include it.

    table: the rows of one panel from `starts`.
    """
    unnamed = table[(table.parent_repeats > 1) & ~table.start.str.contains(", R = ")]
    if unnamed.start.nunique() > 1:
        starts = unnamed.groupby("start").parent_repeats
        return ", " + "; ".join(with_repeats(start, group).removeprefix("parent with ") for start, group in starts)
    values = sorted(unnamed.parent_repeats.unique())
    return f", parent's R = {' or '.join(f'{value:,}' for value in values)}" if values else ""


def _factor_value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def from_scratch(table: pd.DataFrame) -> pd.DataFrame:
    """The controls in a table from `starts`: the runs from scratch, or no rows if their settings differ."""
    scratch_starts = {start for start in table.start if start.startswith(SCRATCH)}
    return table[table.start.isin(scratch_starts)] if len(scratch_starts) == 1 else table[:0]


def law_from_scratch(runs: Runs) -> PowerLaw | NoLaw:
    """The test-loss law for runs from scratch, which determines the effective size of fine-tuned runs."""
    table = starts(runs)
    has_control = len(from_scratch(table[table.status == Status.DONE])) > 0
    return clean_law(runs) if has_control else NoLaw("there are no runs from scratch, or their settings differ")


def over_training(table: pd.DataFrame, runs: Runs, columns: Sequence[str]) -> pd.DataFrame:
    """The evaluations of the runs in a table from `starts`, with the columns that identify a run. Figures save this table."""
    identity = ["name", "model", "parameters_non_embedding", "seed", "start", "parent_fraction", "parent_repeats"]
    return table[identity].merge(runs.combined.evaluations[["name", "step", "tokens", *columns]], on="name")


def ordered_starts(names: Sequence[str]) -> list[str]:
    """The distinct starting points, in order: from scratch, from clean parents, then all others."""
    return sorted(set(names), key=lambda start: (not start.startswith(SCRATCH), not start.startswith(CLEAN), start))


def table(runs: Runs) -> pd.DataFrame:
    """Summarize every finished run in one row: its start, test loss, effective size, and metrics before and after fine-tuning.

    Some of the columns:
        excess              final test loss in nats, minus that of the run from scratch with the same seed (see `over_controls`)
        multiplier, bound   effective size divided by actual size, from `law_from_scratch` and `excess`
        <metric>_before, <metric>_after
                            first and last values of the metrics in BEFORE_AND_AFTER and of the losses on additional test sets

    `excess` and `multiplier` are NaN if there are no runs from scratch or if their settings differ.
    """
    all_starts = starts(runs)
    done = all_starts[all_starts.status == Status.DONE]
    if done.empty:
        return pd.DataFrame()
    scratch = from_scratch(done)
    law = law_from_scratch(runs)
    is_control = done.name.isin(scratch.name)
    excess = over_controls(done, done.final_test_loss, is_control)
    multipliers = {}
    if not isinstance(law, NoLaw):
        multipliers = paired_multipliers(law, done, done.parameters_non_embedding, done.final_test_loss, is_control)
    combined, rows = runs.combined, []
    test_set_losses = [metric.key for metric in test_sets(combined)]
    for run, over_scratch in zip(done.itertuples(index=False), excess, strict=True):
        curve = combined.curve(str(run.name))
        ends = {
            f"{name}_{when}": curve[name].iloc[place] if name in curve else float("nan")
            for name in (*BEFORE_AND_AFTER, *test_set_losses)
            for when, place in (("before", 0), ("after", -1))
        }
        size = multipliers.get(str(run.name), UNKNOWN) if run.parent else UNKNOWN
        rows.append(
            {
                "run": run.name,
                "label": run.label,
                "model": run.model,
                "parameters_non_embedding": run.parameters_non_embedding,
                "seed": run.seed,
                "repeated_fraction": run.repeated_fraction,
                "repeats": run.repeats,
                "start": run.start,
                "parent": run.parent,
                "parent_study": run.parent_study,
                "parent_fraction": run.parent_fraction,
                "parent_repeats": run.parent_repeats,
                "test_loss": run.final_test_loss,
                "excess": over_scratch,
                "multiplier": size.value,
                "bound": str(size.bound),
                **ends,
            }
        )
    return pd.DataFrame(rows)


def nothing_to_forget(runs: Runs) -> str:
    """Say that no repeated parent had memorized its pool, and give the largest gap. Empty if one had, or if there is no such parent."""
    numbers = table(runs)
    if numbers.empty:
        return ""
    repeated = numbers[(numbers.parent_repeats > 1) & numbers.parent_pool_loss_before.notna()]
    gaps = repeated.parent_test_loss_before - repeated.parent_pool_loss_before
    if gaps.empty or gaps.max() >= MEMORIZED:
        return ""
    return (
        f"No parent had memorized its pool in {any_of(len(gaps), 'fine-tuned run')} with a repeated parent: before fine-tuning, the"
        f" loss on the pool was never {MEMORIZED} nats or more below the loss on the parent's test text, which the parent never trained on."
        f" The largest difference is {gaps.max():.3f} nats, in {repeated.label[gaps.idxmax()]}."
    )


def paired(numbers: pd.DataFrame) -> pd.DataFrame:
    """Pair every run that has a repeated parent with the run of the same size, seed and settings that has a clean parent.

    Returns one row per pair. The columns taken from the two runs end in `_repeated` and `_clean`.
    """

    def with_factors(table: pd.DataFrame) -> pd.DataFrame:
        parent = rf"^(parent with f = [^, ]*(, R = \d+(,\d{{3}})*)?( \([^)]*\))?|{CLEAN})"
        return table.assign(factors=table.start.str.replace(parent, "", regex=True))

    clean = with_factors(numbers[numbers.start.str.startswith(CLEAN)])
    repeated = with_factors(numbers[numbers.parent_repeats > 1])
    on = ["model", "parameters_non_embedding", "seed", "factors"]
    return clean.merge(repeated, on=on, suffixes=("_clean", "_repeated"))
