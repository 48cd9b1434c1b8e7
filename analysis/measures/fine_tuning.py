"""What fine-tuned runs brought along and lost: beside runs from scratch, and beside what their parents knew [H22 figs. 12, 15]."""

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis import published
from analysis.formatting import short_count
from analysis.intervals import Bound
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
EXPLANATION = (
    "<p>Excess: final test loss over the mean of runs from scratch of the same size, negative where the parent helped. Size ×: size"
    " of the model from scratch with the same final test loss, over the run's own size, by a power law through the runs from"
    " scratch; ≤ and ≥ where that is outside of their sizes. The parent's texts: its loss on its own test set, its pool and unique"
    " text it saw once, before fine-tuning and after it, in nats per token. All digits are in"
    ' <a href="tables/fine_tuning.csv">tables/fine_tuning.csv</a>.</p>'
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


def sentences(numbers: pd.DataFrame) -> list[str]:
    """What happened, each sentence from the numbers alone; nulls are said as plainly as effects."""
    if numbers.empty or (numbers.parent == "").all():
        return ["No fine-tuned run has finished yet: nothing can be said of what they brought along."]
    said = []
    for start in in_order(numbers.start[numbers.parent != ""]):
        here = numbers[numbers.start == start]
        excess = here.dropna(subset="excess").groupby(["parameters_non_embedding", "model"]).excess.mean()
        if excess.empty:
            said.append(
                f"{start[0].upper()}{start[1:]}: there is no run from scratch, or several kinds of them, to set it beside."
            )
            continue
        each = ", ".join(f"{value:+.3f} ({model})" for (_, model), value in excess.items())
        worse = (excess > 0).sum()
        verdict = "worse than" if worse == len(excess) else "better than" if not worse else "not always better than"
        parents = ""
        if (here.parent_repeats > 1).all():
            repeats = here.groupby("model", sort=False).parent_repeats.first()
            parents = f" ({', '.join(f'R = {value:,} at {model}' for model, value in repeats.items())})"
        said.append(f"{start[0].upper()}{start[1:]}{parents}: {verdict} training from scratch, by {each} nats.")
        if len(known := here[here.multiplier.notna()]):
            said.append(f"As effective size over size: {_sizes(known)}.")
    said += _ossification(numbers) + _forgetting(numbers) + _heads(numbers)
    return said


def _sizes(here: pd.DataFrame) -> str:
    found = here.groupby(["parameters_non_embedding", "model"]).agg(
        value=("multiplier", "mean"), bound=("bound", "max")
    )
    return ", ".join(f"{row.bound}{row.value:.2f} ({model})" for (_, model), row in found.iterrows())


def _ossification(numbers: pd.DataFrame) -> list[str]:
    """Repeated parents beside clean ones of the same size and seed."""
    pairs = paired(numbers)
    if pairs.empty:
        return []
    loss = pairs.test_loss_repeated - pairs.test_loss_clean
    known = pairs[pairs.multiplier_clean.notna() & pairs.multiplier_repeated.notna()]
    exact = known[(known.bound_repeated == Bound.EXACT) & (known.bound_clean == Bound.EXACT)]
    said = (
        f"A repeated parent in place of a clean one costs {loss.min():+.3f} to {loss.max():+.3f} nats after fine-tuning"
        f" (in {(loss > 0).sum()} of {len(loss)} pairs it is the worse start)"
    )
    if len(exact):
        ratio = exact.multiplier_clean / exact.multiplier_repeated
        said += f", or {ratio.min():.2f} to {ratio.max():.2f} times fewer effective parameters"
    return [
        f"{said}. Hernandez et al. (figs. 12, 15): fine-tuned from a repeated model {published.H22_OSSIFICATION}x fewer than from"
        " scratch."
    ]


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


def _forgetting(numbers: pd.DataFrame) -> list[str]:
    """What is left of the pool's lead over the parent's test text, a sentence per start and size."""
    known = numbers[(numbers.parent_repeats > 1) & numbers.parent_pool_loss_after.notna()]
    known = known.assign(
        before=known.parent_test_loss_before - known.parent_pool_loss_before,
        after=known.parent_test_loss_after - known.parent_pool_loss_after,
    )
    said = []
    for (start, _, model), here in known.groupby(["start", "parameters_non_embedding", "model"]):
        if (here.before < 0.01).any():
            said.append(f"{model}, {start}: the pool was not learnt by heart, so there is nothing to forget.")
            continue
        share = here.after / here.before
        seeds = f", {share.min():.0%} to {share.max():.0%} in {len(here)} seeds" if len(here) > 1 else ""
        said.append(
            f"{model}, {start}: loss on the parent's pool {here.parent_pool_loss_before.mean():.2f} before and"
            f" {here.parent_pool_loss_after.mean():.2f} after; its lead over the parent's test text goes from"
            f" {here.before.mean():.2f} to {here.after.mean():.2f} nats, which leaves {share.mean():.0%} of it{seeds}."
        )
    return said


def _heads(numbers: pd.DataFrame) -> list[str]:
    ends = numbers[numbers.prefix_matching_after.notna()]
    if ends.empty:
        return []
    scores = [
        (ends[f"prefix_matching_{when}"] / ends[f"prefix_matching_null_{when}"]).max() for when in ("before", "after")
    ]
    if max(scores) <= 2:
        return [
            "No best head's prefix matching exceeds twice its null, in parents or after fine-tuning: of induction heads that repeats"
            " break and fine-tuning mends these runs say nothing."
        ]
    pairs = paired(ends)
    said = []
    for (_, model), here in pairs.groupby(["parameters_non_embedding", "model"]):
        mean = here.mean(numeric_only=True)
        said.append(
            f"{model}: prefix matching of the best head {mean.prefix_matching_before_repeated:.3f} in the repeated parent and"
            f" {mean.prefix_matching_after_repeated:.3f} after fine-tuning ({mean.prefix_matching_before_clean:.3f} and"
            f" {mean.prefix_matching_after_clean:.3f} from the clean one); copying gain {mean.copying_gain_before_repeated:.3f} and"
            f" {mean.copying_gain_after_repeated:.3f} nats ({mean.copying_gain_before_clean:.3f} and"
            f" {mean.copying_gain_after_clean:.3f}); means of {len(here)} pairs."
        )
    return said


def short(numbers: pd.DataFrame) -> pd.DataFrame:
    """The table for people: rounded, bounds written out, one row per run."""

    def text(column: str, form: str) -> list[str]:
        return [format(value, form) if pd.notna(value) else "–" for value in numbers[column]]

    def ends(name: str) -> list[str]:
        pairs = zip(text(f"{name}_before", ".3f"), text(f"{name}_after", ".3f"), strict=True)
        return ["–" if "–" in pair else " to ".join(pair) for pair in pairs]

    prefix, suffix = "test_loss_", "_after"
    named = [str(name) for name in numbers if str(name).startswith(prefix) and str(name).endswith(suffix)]
    further = [name.removeprefix(prefix).removesuffix(suffix) for name in named]
    return pd.DataFrame(
        {
            "run": numbers.label,
            "N": [short_count(size) for size in numbers.parameters_non_embedding],
            "start": numbers.start,
            "parent's R": [f"{value:,}" if value else "–" for value in numbers.parent_repeats],
            "test loss": text("test_loss", ".3f"),
            "excess": text("excess", "+.3f"),
            "size ×": [b + v for b, v in zip(numbers.bound, text("multiplier", ".3f"), strict=True)],
            "parent's test text": ends("parent_test_loss"),
            "its pool": ends("parent_pool_loss"),
            "its unique text": ends("parent_seen_unique_loss"),
            **{f"loss on {name}": ends(f"test_loss_{name}") for name in further},
            "copying gain": ends("copying_gain"),
            "prefix matching": ends("prefix_matching"),
        }
    )
