"""Write the page that compares studies: what they differ in, the paired differences, and all curves on the same axes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from analysis.figures import study_comparison as figures
from analysis.figures.plot import Missing, Plot, SavedPlot
from analysis.formatting import listed, percent, plural, signed_span, size_name
from analysis.intervals import CHANCE, FEWEST_SEEDS
from analysis.measures.study_comparison import (
    COMPARED,
    LOSS,
    Factor,
    Studies,
    StudyComparison,
    compare_studies,
    largest_difference,
)
from analysis.report import explorer, html, provenance
from analysis.report.differences_table import difference_cells
from analysis.report.first_screen import FirstScreen, amount, factor_name, is_clear, nats
from analysis.report.section import Note, Page, Section, Table, figure_sections, missing_section
from analysis.runs import CORPORA
from data_prep.files import write_atomically

PAGE, DIFFERENCES, PAIRS = "compare.html", "study_differences", "study_pairs"
TABLE = (
    "Each difference is the study's value minus that of {reference} at the end of training, for arms that agree in everything except the"
    " factors above. Losses are in nats per token. Where runs have the same seed, they are paired, and the interval is a t interval over"
    " seeds; otherwise, it is Welch's interval for the difference of two means."
)


def write_comparison(studies: Studies, out: Path, command: str) -> Path:
    """Write compare.html, figures/ and tables/ to `out`, and return the path of the page.

    studies: two or more studies with their names; the first one is the reference. command: the shell command that writes this page.
    Raises InputError if no run has a counterpart.
    """
    comparison = compare_studies(studies)
    for folder in (out / "figures", out / "tables"):
        folder.mkdir(parents=True, exist_ok=True)
    headline = figures.plot_headline(studies, comparison)
    plots = [figures.plot_losses(studies, comparison), figures.plot_curves(studies, comparison)]
    saved = [plot.save(out) for plot in plots if isinstance(plot, Plot)]
    missing = [plot for plot in plots if isinstance(plot, Missing)]
    for name, table in ((DIFFERENCES, comparison.differences), (PAIRS, comparison.pairs)):
        write_atomically(out / "tables" / f"{name}.csv", table.to_csv(index=False).encode())
    sections = [
        Section("Differences", list(_sentences(comparison)), tables=[_table(comparison)]),
        *figure_sections(saved),
        *([missing_section(missing)] if missing else []),
    ]
    names = [name for name, _ in studies]
    page = Page(
        f"repeat-study: {listed(names)}",
        _first_screen(comparison, names, headline.save(out), command),
        _introduction(studies, comparison),
        [Note(list(_notes(studies, comparison)))],
        "",
        sections,
        provenance.written(provenance.today()),
        explorer.of_studies(studies, largest_difference(comparison)) or "",
    )
    write_atomically(out / PAGE, html.render(page).encode())
    return out / PAGE


def _first_screen(comparison: StudyComparison, names: Sequence[str], figure: SavedPlot, command: str) -> FirstScreen:
    losses = comparison.differences[comparison.differences.metric == LOSS]
    arm = largest_difference(comparison)
    factors = [factor_name(factor.name) for factor in comparison.factors]
    question = (
        f"What changes with {listed(list(dict.fromkeys(factors)))}?" if factors else f"Do {listed(list(names))} agree?"
    )
    where = f"{size_name(arm.model, arm.parameters_non_embedding)}, {_arm_name(arm)}"
    if is_clear(arm) is False:
        verdict = "Too few seeds to tell" if arm.seeds < FEWEST_SEEDS else "No clear difference"
        answer = f"{verdict}: the largest difference, between {arm.study} and {comparison.reference} for {where}, is {nats(arm)}."
    else:
        answer = (
            f"The largest of {plural(len(losses), 'difference')} in final test loss: {arm.study} is {amount(arm)}"
            f" {'above' if arm['mean'] > 0 else 'below'} {comparison.reference}, for {where}."
        )
    varied = [(factor_name(factor.name).removeprefix("the "), _values(factor)) for factor in comparison.factors]
    return FirstScreen(question, varied, answer, _certainty(arm, losses), command, figure)


def _certainty(arm: pd.Series, losses: pd.DataFrame) -> str:
    if is_clear(arm) is None:
        return "There is one pair of runs, so there is no interval: another seed could give a different number."
    several = losses[(losses.seeds > 1) & losses.low.notna()]
    clear = int(((several.low > 0) | (several.high < 0)).sum())
    pairing = "paired by seed" if arm.paired else "not paired, because the studies have no common seeds"
    return (
        f"Brackets: 95% interval over {plural(int(arm.seeds), 'seed')}, {pairing}. Intervals exclude 0 in {clear} of"
        f" {plural(len(several), 'arm')}; {CHANCE * len(several):.2g} would be expected by chance."
    )


def _values(factor: Factor) -> str:
    shown = {
        name: ", ".join(f"{value:g}" if isinstance(value, int | float) else str(value) for value in values)
        for name, values in factor.values.items()
    }
    return "; ".join(values if values == name else f"{values} ({name})" for name, values in shown.items())


def _arm_name(arm: pd.Series) -> str:
    return f"f = {percent(arm.repeated_fraction)}, R = {arm.repeats:,}" if arm.repeats > 1 else "clean"


def _introduction(studies: Studies, comparison: StudyComparison) -> str:
    counts = listed([f"{name} ({plural(len(runs.combined.done), 'finished run')})" for name, runs in studies])
    factors = [f"{factor_name(factor.name).removeprefix('the ')}: {_values(factor)}" for factor in comparison.factors]
    differ = f"The studies differ in {plural(len(factors), 'factor')}: {'. '.join(factors)}." if factors else (
        "The settings of the studies overlap, so no factor separates them."
    )  # fmt: skip
    return f"Studies: {counts}. The reference is {comparison.reference}. {differ} Losses are in nats per token."


def _notes(studies: Studies, comparison: StudyComparison) -> Iterator[str]:
    names = {factor.name for factor in comparison.factors}
    if names & set(CORPORA):
        yield "The training data differ, and with them the test set, so differences in loss include the difference between the texts."
    if len(names) > 1:
        yield f"The studies differ in {len(names)} factors, so a difference cannot be attributed to one of them."
    settings = pd.DataFrame([row for _, runs in studies for row in runs.combined.table.evaluation.to_list()]).astype(
        str
    )
    if varied := [name for name in settings if settings[name].nunique() > 1]:
        yield f"Runs were evaluated with different settings ({', '.join(varied)})."
    if comparison.in_both:
        yield f"{plural(comparison.in_both, 'run')} belong to both studies and are left out of the differences."
    for name, count in comparison.alone.items():
        if count:
            yield f"{name}: {plural(count, 'finished run')} without a counterpart."


def _sentences(comparison: StudyComparison) -> Iterator[str]:
    for (study, metric), rows in comparison.differences.groupby(["study", "metric"], sort=False):
        several = rows[(rows.seeds > 1) & rows.low.notna()]
        clear = several[(several.low > 0) | (several.high < 0)]
        verdict = (
            f"the interval excludes 0 in {len(clear)} of {plural(len(several), 'arm')}"
            if len(several)
            else "one pair of runs per arm, so there are no intervals"
        )
        yield f"{study}, {COMPARED[str(metric)]}: {signed_span(rows['mean'])} in {plural(len(rows), 'arm')}; {verdict}."


def _table(comparison: StudyComparison) -> Table:
    rows = comparison.differences
    table = difference_cells(rows, COMPARED)
    table.insert(0, "study", rows.study)
    table["paired"] = ["yes" if paired else "no" for paired in rows.paired]
    return Table(TABLE.format(reference=comparison.reference), table, DIFFERENCES)
