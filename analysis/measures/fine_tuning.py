"""What fine-tuned runs brought along and lost: beside runs from scratch, and beside what their parents knew [H22, figs. 12, 15]."""

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.measures.clean_law import PowerLaw
from analysis.measures.effective_size import NoLaw, clean_law, multiplier, test_sets
from analysis.runs import FACTORS, Runs
from repeat_study.config.parents import short_label
from repeat_study.records.run_directory import Status

SCRATCH, CLEAN = "from scratch", "clean parent"
REPEATED = r"f[\d.e-]+-R\d+-?(.*)"  # what a label says of a parent with repeats, and then of whatever else it has
OF_PARENT = [f"parent_{text}_loss" for text in ("test", "pool", "seen_unique")]  # losses on texts of the parent
AT_BOTH_ENDS = (
    *OF_PARENT,
    "copying_loss",
    "copying_gain",
    "prefix_matching",
    "prefix_matching_null",
)


def starts(runs: Runs) -> pd.DataFrame:
    """Every fine-tuned run and every clean one from scratch, with its `start`; ordered by size and start.

    A start says what of the parent tells it from a clean one: its fraction, its R where one size has parents of several, and
    whatever else its label says; and what of the run itself varies beside, as its learning rate.
    """
    table = runs.together.table
    table = table[(table.parent != "") | (table.repeats == 1)]
    of_parent = [
        short_label(run.parent_label, run.model, int(run.parent_seed)) if run.parent else ""
        for run in table.itertuples()
    ]
    table = table.assign(start="", parent_says=of_parent)
    repeated = table[table.parent_says.str.match(REPEATED)]
    several = repeated.groupby(["model", "parent_fraction"]).parent_repeats.nunique().max() > 1
    table["start"] = [_start(run, several) for run in table.itertuples()]
    for alike in (table.parent == "", table.parent != ""):
        kinds = table[alike].groupby(["model", "start"])
        for name in ("repeated_fraction", "repeats", *FACTORS):
            if kinds[name].nunique().max() > 1:
                table.loc[alike, "start"] += table.loc[alike, name].map(
                    lambda value, name=name: f", {name} = {_said(value)}"
                )
    by = ["parameters_non_embedding", "parent_fraction", "parent_repeats", "start", "seed"]
    return table.sort_values(by, ignore_index=True)


def _start(run: Any, several: bool) -> str:
    if not run.parent:
        return SCRATCH
    if run.parent_says == "clean":
        return CLEAN
    if not (found := re.match(REPEATED, run.parent_says)):
        return f"parent {run.parent_says}"
    repeats = f", R = {run.parent_repeats:,}" if several else ""
    return f"parent with f = {run.parent_fraction:.0%}{repeats}{f' ({found[1]})' if found[1] else ''}"


def _said(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def from_scratch(table: pd.DataFrame) -> pd.DataFrame:
    """The controls of a table of `starts`: runs from scratch, if they are of one kind."""
    kinds = {start for start in table.start if start.startswith(SCRATCH)}
    return table[table.start.isin(kinds)] if len(kinds) == 1 else table[:0]


def law_from_scratch(runs: Runs) -> PowerLaw | NoLaw:
    """The law of test loss that sizes are read by."""
    table = starts(runs)
    known = len(from_scratch(table[table.status == Status.DONE])) > 0
    return clean_law(runs) if known else NoLaw("there are no runs from scratch of one kind")


def over_training(table: pd.DataFrame, runs: Runs, columns: Sequence[str]) -> pd.DataFrame:
    """The evaluations of the runs of a table of `starts`, with what tells these apart: the numbers behind a figure."""
    told = ["name", "model", "parameters_non_embedding", "seed", "start", "parent_fraction", "parent_repeats"]
    return table[told].merge(runs.together.evaluations[["name", "step", "tokens", *columns]], on="name")


def in_order(names: Sequence[str]) -> list[str]:
    """The starts there are, from scratch and from clean parents first."""
    return sorted(set(names), key=lambda start: (not start.startswith(SCRATCH), not start.startswith(CLEAN), start))


def table(runs: Runs) -> pd.DataFrame:
    """A row per finished run: its start, final test loss, `excess` over from scratch (nats), `multiplier` of size and its
    `bound`, and the numbers of AT_BOTH_ENDS and of further test sets at the first and the last evaluation as `<name>_before` and
    `<name>_after`. Without runs from scratch, or with several kinds of them, there is no excess and no multiplier."""
    everything = starts(runs)
    done = everything[everything.status == Status.DONE]
    scratch = from_scratch(done)
    law = law_from_scratch(runs)
    control = scratch.groupby("model").final_test_loss.mean() if len(scratch) else pd.Series(dtype=float)
    together, rows = runs.together, []
    further = [metric.key for metric in test_sets(together)]
    for run in done.itertuples(index=False):
        curve = together.curve(str(run.name))
        ends = {
            f"{name}_{when}": curve[name].iloc[place] if name in curve else float("nan")
            for name in (*AT_BOTH_ENDS, *further)
            for when, place in (("before", 0), ("after", -1))
        }
        if isinstance(law, NoLaw) or not run.parent:  # which the law goes through
            size, bound = float("nan"), ""
        else:
            found = multiplier(law, run.parameters_non_embedding, run.final_test_loss)
            size, bound = found.value, str(found.bound)
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
                "excess": run.final_test_loss - control.get(run.model, float("nan")),
                "multiplier": size,
                "bound": bound,
                **ends,
            }
        )
    return pd.DataFrame(rows)


def paired(numbers: pd.DataFrame) -> pd.DataFrame:
    """A row per run with a repeated parent, beside the run of the same size and seed with a clean one."""

    def without_parent(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(
            own=table.start.str.replace(f"^(parent with [^,]*(, R = [0-9,]+)?|{CLEAN})", "", regex=True)
        )

    clean = without_parent(numbers[numbers.start.str.startswith(CLEAN)])
    repeated = without_parent(numbers[numbers.parent_repeats > 1])
    on = ["model", "parameters_non_embedding", "seed", "own"]
    return clean.merge(repeated, on=on, suffixes=("_clean", "_repeated"))
