"""Select the one result that a report shows first: the largest effect of the factor that the study varies, with its interval."""

from dataclasses import dataclass
from enum import StrEnum

import pandas as pd

from analysis.formatting import percent, size_name
from analysis.intervals import over_seeds
from analysis.measures import fine_tuning
from analysis.measures.named_pool import ARM as ARM_OF_POOL
from analysis.measures.named_pool import DOMAIN, GENERAL, MEASURES, PANEL, named_pool
from analysis.measures.variant_comparison import LOSS, Comparison, compare_variants
from analysis.runs import ARM, Runs

SIZE = ["model", "parameters_non_embedding"]
MOST_LINES = 6


class Kind(StrEnum):
    """What a study varies."""

    REPEATS = "repeats"
    VARIANTS = "variants"
    NAMED_POOL = "named pool"
    FINE_TUNING = "fine-tuning"


@dataclass(frozen=True)
class Headline:
    """The result that a report shows first.

    arm: the arm with the largest effect: its `mean` in nats per token, the ends of its 95% interval, `low` and `high`, its number of
        `seeds`, and the columns that identify it. All differences are paired by seed.
    arms: the number of arms that it was selected from.
    lines: the figure's points: `line` (a name), `x` (R, or the size in fine-tuning), `mean`, `low`, `high` and `seeds`. In fine-tuning,
        `label` gives the parent's f and R where R differs between the points of a line, and such points are not connected.
    names: the arm's runs, in studies with a named pool.
    clean: for an arm of repeated runs of a variant, how much the variant changes the clean runs that it is compared with, with the
        same columns. None if it does not change them, and for results of other kinds.
    """

    kind: Kind
    arm: pd.Series
    arms: int
    lines: pd.DataFrame
    names: frozenset[str] = frozenset()
    clean: pd.Series | None = None


def headline(runs: Runs) -> Headline | None:
    """The result that a report shows first. None if no finished run can be compared with a control of the same seed."""
    if runs.fine_tuned is not None:
        return _of_fine_tuning(runs)
    if runs.has_named_pool:
        return _of_named_pool(runs)
    if comparison := compare_variants(runs):
        return _of_variants(comparison)
    return _of_repeats(excess_by_seed(runs))


def excess_by_seed(runs: Runs) -> pd.DataFrame:
    """Every finished repeated run that has a clean run of the same size and seed, with its `excess` over that run's final test loss.

    `name_clean` is the name of the clean run.
    """
    done = runs.done[[*ARM, "pool_tokens", "final_test_loss"]]
    clean = done[done.repeats == 1].drop_duplicates([*SIZE, "seed"])[["name", *SIZE, "seed", "final_test_loss"]]
    pairs = done[done.repeats > 1].merge(clean, on=[*SIZE, "seed"], suffixes=("", "_clean"))
    return pairs.assign(excess=pairs.final_test_loss - pairs.final_test_loss_clean)


def _of_repeats(pairs: pd.DataFrame) -> Headline | None:
    if pairs.empty:
        return None
    arms = over_seeds(pairs, [*SIZE, "repeated_fraction", "repeats"], "excess")
    arms = arms.sort_values(["parameters_non_embedding", "model", "repeated_fraction", "repeats"], ignore_index=True)
    names = {
        (row.model, row.repeated_fraction): f"{size_name(row.model, row.parameters_non_embedding)},"
        f" f = {percent(row.repeated_fraction)}"
        for row in arms.itertuples()
    }
    lines = arms.assign(line=[names[row.model, row.repeated_fraction] for row in arms.itertuples()], x=arms.repeats)
    return Headline(Kind.REPEATS, arms.loc[arms["mean"].idxmax()], len(arms), _fewer_lines(lines))


def _of_variants(comparison: Comparison) -> Headline | None:
    differences = comparison.differences[comparison.differences.metric == LOSS]
    in_clean = differences[differences.repeats == 1]
    if (differences.repeats > 1).any():
        differences = differences[differences.repeats > 1]
    if differences.empty:
        return None
    arm = differences.loc[differences["mean"].abs().idxmax()]
    excess = comparison.excess
    panel = excess[(excess.metric == LOSS) & (excess.model == arm.model)]
    panel = panel[panel.repeated_fraction == arm.repeated_fraction]
    arm = pd.concat([arm, pd.Series({"reference": comparison.reference})])
    lines = panel.assign(line=panel.variant, x=panel.repeats)
    same = in_clean[(in_clean.variant == arm.variant) & (in_clean.model == arm.model)]
    clean = same.iloc[0] if len(same) and arm.repeats > 1 else None
    return Headline(Kind.VARIANTS, arm, len(differences), lines, clean=clean)


def _of_named_pool(runs: Runs) -> Headline | None:
    effect = named_pool(runs)
    if effect is None or not (effect.arms.repeats > 1).any():
        return None
    repeated = effect.arms.groupby([*PANEL, "setting"]).filter(lambda arms: (arms.repeats > 1).any())
    domain = repeated[repeated.measure == DOMAIN]
    arm = domain.loc[domain["mean"].idxmin()]
    same = (repeated[[*PANEL, "setting"]] == arm[[*PANEL, "setting"]]).all(axis=1)
    shown = repeated[same & repeated.measure.isin([GENERAL, DOMAIN])]
    lines = shown.assign(line=shown.measure.map(MEASURES), x=shown.repeats)
    names = effect.runs[(effect.runs[ARM_OF_POOL] == arm[ARM_OF_POOL]).all(axis=1)].name
    return Headline(Kind.NAMED_POOL, arm, len(domain), lines, frozenset(names))


def _of_fine_tuning(runs: Runs) -> Headline | None:
    table = fine_tuning.table(runs)
    if table.empty or (table.parent == "").all():
        return None
    pairs = fine_tuning.paired(table)
    if pairs.empty:
        return None
    pairs = pairs.assign(change=pairs.test_loss_repeated - pairs.test_loss_clean)
    arms = over_seeds(pairs, [*SIZE, "start_repeated", "parent_fraction_repeated", "parent_repeats_repeated"], "change")
    arm = arms.loc[arms["mean"].abs().idxmax()]
    lines = with_repeats(arms).assign(x=arms.parameters_non_embedding)
    return Headline(Kind.FINE_TUNING, arm, len(arms), _fewer_lines(lines))


def with_repeats(arms: pd.DataFrame) -> pd.DataFrame:
    """Name the parent's R in the name of a line, or in the labels of its points if they differ. Unknown and clean parents have none."""
    lines, labels = arms.start_repeated.copy(), pd.Series("", arms.index)
    for start, points in arms.groupby("start_repeated"):
        repeats = points.parent_repeats_repeated
        if repeats.nunique() > 1:
            labels[points.index] = [
                fine_tuning.with_repeats(start, [value]).removeprefix("parent with ") for value in repeats
            ]
        else:
            lines[points.index] = fine_tuning.with_repeats(start, repeats)
    return arms.assign(line=lines, label=labels)


def _fewer_lines(lines: pd.DataFrame) -> pd.DataFrame:
    """The points of at most MOST_LINES lines, with the largest effects."""
    order = lines.groupby("line")["mean"].max().sort_values(ascending=False).index[:MOST_LINES]
    return lines[lines.line.isin(order)]
