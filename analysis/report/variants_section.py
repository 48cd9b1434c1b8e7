"""Compare a study's variants in sentences, figures and tables, with differences paired by seed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.figures.plot import Missing, SavedPlot
from analysis.formatting import NOTHING, cell, order_name, percent, plural, short_count, signed_span, size_name
from analysis.intervals import CHANCE
from analysis.measures.retention import by_tokens_since, half_lives, retention
from analysis.measures.variant_comparison import COMPARED, LOSS, Comparison, compare_variants
from analysis.report.differences_table import difference_cells
from analysis.report.section import Section, Table, figure_sections, missing_section
from analysis.runs import Runs
from data_prep.files import write_atomically

DIFFERENCES, HALF_LIVES = "variant_differences", "retention_half_lives"


@dataclass(frozen=True)
class VariantComparison:
    """The sections of the page that compare variants, with their figures and tables."""

    sections: list[Section]
    figures: list[SavedPlot]
    tables: dict[str, pd.DataFrame]  # by file name

    def write_tables(self, folder: Path) -> list[str]:
        """Write tables/*.csv and return their paths relative to the folder."""
        paths = {f"tables/{name}.csv": table for name, table in self.tables.items()}
        for path, table in paths.items():
            write_atomically(folder / path, table.to_csv(index=False).encode())
        return list(paths)


def collect(runs: Runs, figures: Sequence[SavedPlot | Missing]) -> VariantComparison:
    """Compare the variants of a study. figures: the results of `figure_list.VARIANT_FIGURES`."""
    saved = [figure for figure in figures if isinstance(figure, SavedPlot)]
    missing = [figure for figure in figures if isinstance(figure, Missing)]
    by_name, tables, sentences = {}, [], []
    if comparison := compare_variants(runs):
        by_name[DIFFERENCES] = comparison.differences
        sentences = list(_sentences(comparison))
        tables.append(_differences_table(comparison))
    measured = retention(runs)
    if len(measured) and len(lives := half_lives(by_tokens_since(measured))):
        by_name[HALF_LIVES] = lives
        tables.append(_half_lives_table(lives))
    sections = [Section("Comparison of the variants", level=1)]
    sections += [Section("Differences at equal size, f, R and seed", sentences, tables=tables)] if tables else []
    sections += [*figure_sections(saved), *([missing_section(missing)] if missing else [])]
    return VariantComparison(sections, saved, by_name)


def _sentences(comparison: Comparison) -> Iterator[str]:
    """Sentences that explain the comparison and report each variant's test loss relative to the reference."""
    losses = comparison.differences[comparison.differences.metric == LOSS]
    yield (
        f"The reference is {comparison.reference}. Every difference is paired by seed. For repeated runs, it is the difference between"
        " two excesses. An excess is a run's loss minus the loss of the same variant's clean run with the same seed."
    )
    repeated = losses.repeats > 1
    for kind, measure, rows in (
        ("repeated", "excess", losses[repeated]),
        ("clean", "final test loss", losses[~repeated]),
    ):
        for variant, arms in rows.groupby("variant", sort=False):
            span = f"{signed_span(arms['mean'])} nats" + (f" in {len(arms)} arms" if len(arms) > 1 else "")
            yield f"{variant}, {kind} runs: {measure} differs by {span}. {_significance(arms)}"


def _significance(arms: pd.DataFrame) -> str:
    several = arms[arms.seeds > 1]
    if several.empty:
        return "There is only one seed, so there are no intervals."
    clear = several[(several.low > 0) | (several.high < 0)]
    worse = int((clear["mean"] > 0).sum())
    verdict = f" ({worse} worse, {len(clear) - worse} better)" if len(clear) else ""
    return (
        f"The 95% interval excludes 0 in {len(clear)} of {plural(len(several), 'arm')}{verdict}; {CHANCE * len(several):.2g} would be"
        " expected by chance."
    )


def _differences_table(comparison: Comparison) -> Table:
    rows = comparison.differences
    table = difference_cells(rows, COMPARED)
    table.insert(0, "variant", rows.variant)
    explanation = (
        f"Each difference is the variant's value minus that of {comparison.reference} at the end of training, in nats per token, paired by"
        " seed; for repeated runs, the values are excesses. Where it is positive, the variant is worse."
    )
    return Table(explanation, table, DIFFERENCES, "Differences paired by seed")


def _half_lives_table(lives: pd.DataFrame) -> Table:
    known = lives.low.notna()
    interval = lives.low.fillna(0).map(short_count) + " to " + lives.high.fillna(0).map(short_count)
    table = pd.DataFrame(
        {
            "order": map(order_name, lives.spacing, lives.burst_distance),
            "model": map(size_name, lives.model, lives.parameters_non_embedding),
            "f": lives.repeated_fraction.map(percent),
            "R": lives.repeats,
            "retention (nats)": lives.retention.map(cell),
            "half-life (tokens)": lives.bound + lives.half_life.map(short_count),
            "95% interval": interval.where(known, NOTHING),
            "seeds": lives.seeds,
        }
    )
    explanation = (
        "Retention: the clean run's loss on a pool sequence minus the repeated run's loss, shortly after a copy. Half-life: the number of"
        " training tokens after a copy at which half of this retention is left (≥: more than half is left at the end of the measured"
        " range)."
    )
    return Table(explanation, table, HALF_LIVES, "How long a repeated sequence is retained")
