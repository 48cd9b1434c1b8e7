"""Describe the effect of a named pool: a verdict computed from the numbers, the figure, and a short table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.figures.plot import Missing, SavedPlot
from analysis.formatting import NOTHING, bracketed, listed, nats_digits, percent, plural, short_count, size_name
from analysis.intervals import NAN
from analysis.measures.degradation import summary
from analysis.measures.named_pool import DOMAIN, GENERAL, MEMORIZED, OVER_FRESH, PANEL, NamedPool, named_pool
from analysis.report.collect import Variant
from analysis.report.section import Section, Table, missing_section
from analysis.report.tables import runs_table
from analysis.runs import Runs
from data_prep.files import write_atomically

CONTROLS = "Clean controls of the pool's domain (R = 1)"
FIGURE, BY_RUN = "named_pool", "named_pool_by_run"
TABLE = (
    "Changes relative to the R = 0 control at the end of training, in nats per token: means over seeds with 95% intervals. General: loss on"
    " held-out text from the training data. Domain: loss on held-out text from the pool's source. Memorization: loss on the domain's"
    " held-out text minus loss on the pool, relative to R = 0. Over fresh: the domain loss minus that of a run that trains on as many"
    " tokens from the domain, but sees each only once."
)


@dataclass(frozen=True)
class NamedPoolSection:
    """The report section on a named pool."""

    sections: list[Section]
    figures: list[SavedPlot]
    by_run: pd.DataFrame
    controls: list[Variant]  # the clean controls of the domain, if there are any, for the tables of runs

    def sections_of_runs(self) -> list[Section]:
        """The tables of the domain's clean controls, for the end of the page."""
        return [Section(CONTROLS, tables=[runs_table(variant)]) for variant in self.controls]

    def write_table(self, folder: Path) -> list[str]:
        """Write the losses of every run to tables/named_pool_by_run.csv. Returns its path relative to the folder, in a list."""
        path = f"tables/{BY_RUN}.csv"
        write_atomically(folder / path, self.by_run.to_csv(index=False).encode())
        return [path]


def collect(runs: Runs, figure: SavedPlot | Missing) -> NamedPoolSection:
    """Describe the named pool of a study. figure: the result of `figure_list.NAMED_POOL_FIGURE`."""
    effect, controls = named_pool(runs), _controls(runs)
    if effect is None or isinstance(figure, Missing):
        missing = figure if isinstance(figure, Missing) else Missing(FIGURE, "no finished run has a control with R = 0")
        return NamedPoolSection([missing_section([missing])], [], pd.DataFrame(), controls)
    section = Section(figure.title, verdict(effect), figure=figure, tables=[_table(effect)])
    return NamedPoolSection([section], [figure], effect.runs, controls)


def _controls(runs: Runs) -> list[Variant]:
    """The clean controls of the domain as a variant without figures. Their excess is relative to R = 0, as for all runs.

    If the study has several variants, R = 0 is ambiguous, so no excess is given.
    """
    if not runs.domain_controls:
        return []
    numbers = summary(runs.with_domain_controls) if len(runs.domain_controls.done) else pd.DataFrame()
    if len(numbers):
        numbers = numbers[numbers.run.isin(runs.domain_controls.table.name)]
    if len(numbers) and len(runs.variants()) > 1:
        numbers = numbers.assign(excess_over_clean=NAN, excess_low=NAN, excess_high=NAN)
    return [Variant(CONTROLS, runs.domain_controls, numbers, [], [], [])]


def verdict(effect: NamedPool) -> list[str]:
    """Sentences about every model size and design of the pool: the best R, its general cost, memorization, and the cost of repetition."""
    return [
        " ".join(_verdict_of(effect, arms))
        for _, arms in effect.arms.groupby([*PANEL, "setting"], sort=False)
        if (arms.repeats > 1).any()
    ]


def _verdict_of(effect: NamedPool, arms: pd.DataFrame) -> Iterator[str]:
    first, domain = arms.iloc[0], arms[arms.measure == DOMAIN].sort_values("repeats")
    setting = f", {first.setting}" if first.setting else ""
    where = f"{size_name(first.model, first.parameters_non_embedding)}, {first.design}{setting}"
    best = domain.loc[domain["mean"].idxmin()]
    general, memorized = (effect.of(measure, best) for measure in (GENERAL, MEMORIZED))
    tried = f"R = {listed([f'{repeats:g}' for repeats in domain.repeats])}"
    if best["mean"] >= 0:
        yield f"{where}: the pool does not lower the loss on unseen text of its domain at any R tried ({tried})."
    else:
        yield (
            f"{where}: the loss on unseen text of the pool's domain is lowest at R = {best.repeats:g} ({tried} were tried), where it"
            f" changes by {_nats(best)} relative to R = 0.{_doubt(best)}"
        )
        if general is not None:
            yield f"At this R, the general test loss changes by {_nats(general)}.{_doubt(general)}"
    for measure, name in ((GENERAL, "general test loss"), (DOMAIN, "loss on unseen text of the domain")):
        yield _clear_arms(arms[arms.measure == measure].sort_values("repeats"), name)
    largest = domain.iloc[-1]
    at_largest = effect.of(MEMORIZED, largest)
    if memorized is not None and at_largest is not None:
        at_end = f", and {_nats(at_largest)} at R = {largest.repeats:g}" if largest.repeats != best.repeats else ""
        yield f"Memorization is {_nats(memorized)} at R = {best.repeats:g}{at_end}."
    yield from _over_fresh(effect, best if effect.of(DOMAIN + OVER_FRESH, best) is not None else largest)


def _over_fresh(effect: NamedPool, arm: pd.Series) -> Iterator[str]:
    domain, general = (effect.of(measure + OVER_FRESH, arm) for measure in (DOMAIN, GENERAL))
    fresh = effect.of(DOMAIN, arm, fresh=True)
    if domain is None or general is None or fresh is None:
        return
    yield (
        f"Training on fresh text from the domain, with as many tokens as at R = {arm.repeats:g}, changes the domain loss by"
        f" {_nats(fresh)}. Compared with this, repetition costs {_nats(domain)} in the domain and {_nats(general)} in general."
    )


def _clear_arms(line: pd.DataFrame, name: str) -> str:
    several = line[line.seeds > 1]
    if several.empty:
        return f"With a single seed, clear changes in the {name} cannot be identified."
    higher, lower = several[several.low > 0].repeats, several[several.high < 0].repeats
    places = [
        f"clearly {word} at R = {listed([f'{value:g}' for value in repeats])}"
        for word, repeats in (("higher", higher), ("lower", lower))
        if len(repeats)
    ]
    if not places:
        return f"The {name} is not clearly different from R = 0 at any R."
    return f"The {name} is {' and '.join(places)} than at R = 0."


def _nats(row: pd.Series) -> str:
    form = f"{{:+z.{nats_digits(row['mean'], row.low, row.high)}f}}".format
    interval = bracketed(row.low, row.high, form) if row.seeds > 1 else ""
    return f"{form(row['mean'])} nats{interval}"


def _doubt(row: pd.Series) -> str:
    if row.seeds < 2:
        return " There is only one seed, so there is no interval."
    return f" The 95% interval over {plural(int(row.seeds), 'seed')} contains 0." if row.low <= 0 <= row.high else ""


def _table(effect: NamedPool) -> Table:
    def cells(measure: str, rows: pd.DataFrame) -> Sequence[str]:
        values = [effect.of(measure, row) for _, row in rows.iterrows()]
        return [
            NOTHING
            if value is None
            else f"{value['mean']:+z.3f}"
            + (bracketed(value.low, value.high, "{:+z.3f}".format) if value.seeds > 1 else "")
            for value in values
        ]

    rows = effect.arms[effect.arms.measure == GENERAL]
    by_design = rows.groupby([*PANEL, "setting"])
    # The designs with repeats come first, then the controls by the size of their pools.
    rows = rows.assign(most=-by_design.repeats.transform("max"), largest=by_design.pool_tokens.transform("max"))
    rows = rows.sort_values(["parameters_non_embedding", "model", "setting", "most", "largest", "design", "repeats"])
    table = pd.DataFrame(
        {
            "model": list(map(size_name, rows.model, rows.parameters_non_embedding)),
            "setting": rows.setting,
            "design": rows.design,
            "R": rows.repeats,
            "f": rows.repeated_fraction.map(percent),
            "pool (tokens)": rows.pool_tokens.map(short_count),
            "general": cells(GENERAL, rows),
            "domain": cells(DOMAIN, rows),
            "memorization": cells(MEMORIZED, rows),
            "over fresh": cells(DOMAIN + OVER_FRESH, rows),
            "seeds": rows.seeds,
        }
    )
    unused = [name for name in ("setting",) if (table[name] == "").all()]
    return Table(TABLE, table.drop(columns=unused), FIGURE, "Gain in the domain and cost in general")
