"""Write the report of a study: figures, tables and a self-contained HTML page."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from analysis.figures.headline import card
from analysis.figures.plot import SavedPlot
from analysis.formatting import plural
from analysis.laws.study_fits import fit_study
from analysis.measures.run_health import run_health
from analysis.report import (
    digests,
    fine_tuning_section,
    health_section,
    html,
    introduction,
    named_pool_section,
    provenance,
    published_comparison,
    tables,
    variants_section,
)
from analysis.report.collect import FigureCache, Variant, collect, save_figure, without_grid
from analysis.report.figure_list import HEADLINE_FIGURE
from analysis.report.findings import findings
from analysis.report.fine_tuning_section import FineTuning
from analysis.report.first_screen import first_screen
from analysis.report.progress import Progress, no_progress
from analysis.report.section import Page, Section, figure_sections, missing_section
from analysis.report.summary import summarize
from analysis.report.tensorboard_images import write_images
from analysis.runs import Runs, load_runs
from data_prep.files import write_atomically

PAGE, TOKEN_PAGE, CARD = "report.html", "tokens.html", "card.png"


def write_report(
    folder: Path,
    names: list[str] | None = None,
    progress: Progress = no_progress,
    command: str = "",
    training_text: str = "",
) -> tuple[pd.DataFrame, Path]:
    """Write report.html, card.png, figures/ and tables/ to the study's folder, and tokens.html if there are runs to compare token by token.

    names: the names of the study's runs; None includes every run directory in the folder.
    command: the shell commands that train the runs and write the report, for the page's first screen; one per line.
    training_text: what the models are trained on, in words, for the page's first screen.
    Returns the summary table for the console and the path of report.html. Figures are plotted again only if their inputs have
    changed since the last report.
    Raises InputError if the folder has no evaluated runs or if a record cannot be read.
    """
    runs_digest = digests.run_digests(folder)
    code = digests.code_digest()
    inputs = digests.digest_of([code, folder.resolve().name, names, command, training_text, runs_digest])
    old, new = digests.ReportRecord.load(folder), digests.ReportRecord(folder)
    if old.is_current(inputs):
        progress("nothing changed since the last report", 1.0)
        return old.console_table(), folder / PAGE
    progress(f"reading {plural(len(runs_digest), 'run')}", 0.0)
    runs = load_runs(folder, names)
    # A page that is rewritten from unchanged inputs, for example because a file was deleted, keeps its date.
    new.date = old.date if old.inputs == inputs and old.date else provenance.today()
    cache = FigureCache(old, new, code, runs_digest)
    command = command or _command(folder.resolve().name)
    console, written = _write(runs, cache, new.date, command, training_text, progress)
    old.delete_files_not_in(written)
    new.save(inputs, written, console)
    return console, folder / PAGE


def _command(study: str) -> str:
    return f"repeat-study run {shlex.quote(study)}\nrepeat-study report {shlex.quote(study)}"


def _write(
    runs: Runs, cache: FigureCache, date: str, command: str, training_text: str, progress: Progress
) -> tuple[pd.DataFrame, list[str]]:
    """Write the report. Returns the table for the console and the paths of all written files, relative to the folder."""
    folder, title = runs.folder, f"repeat-study: {runs.folder.resolve().name}"
    combined = runs.combined
    tuned = fine_tuning_section.collect(runs, cache, progress) if runs.fine_tuned else None
    # If none of the runs from scratch repeats data, they serve only as baselines for the fine-tuned runs.
    has_grid = not tuned or (runs.table.repeats > 1).any()
    collected = collect(runs, f"{title}, token by token", cache, progress) if has_grid else without_grid(runs)
    variants, token_html = collected.variants, collected.token_html
    compared = variants_section.collect(runs, collected.comparison) if collected.comparison else None
    pool = named_pool_section.collect(runs, collected.named_pool) if collected.named_pool else None
    progress("writing tables and the page", 1.0)
    headline = cache.reused(HEADLINE_FIGURE, runs) or save_figure(HEADLINE_FIGURE, HEADLINE_FIGURE, runs)
    cache.keep(HEADLINE_FIGURE, runs, headline)
    first = first_screen(runs, headline if isinstance(headline, SavedPlot) else None, command, training_text)
    saved = [
        *([first.figure] if first.figure else []),
        *(pool.figures if pool else []),
        *(tuned.figures if tuned else []),
        *(compared.figures if compared else []),
        *(figure for variant in variants for figure in variant.figures),
    ]
    written = [path for figure in saved for path in SavedPlot.files(figure.name)]
    (folder / "figures").mkdir(exist_ok=True)
    written += write_images(folder, saved)
    written += collected.arm_files
    comparison = published_comparison.table(runs) if len(runs.combined.done) else pd.DataFrame()
    controls = pool.controls if pool else []
    problems = run_health(runs)
    written += _write_tables(
        folder, variants, controls, tuned, {"published_comparison": comparison, health_section.CSV: problems}
    )
    if compared:
        written += compared.write_tables(folder)
    if pool:
        written += pool.write_table(folder)
    if token_html:
        write_atomically(folder / TOKEN_PAGE, token_html.encode())
        written.append(TOKEN_PAGE)
    else:
        (folder / TOKEN_PAGE).unlink(missing_ok=True)
    sections = [
        *(pool.sections if pool else []),
        *(compared.sections if compared else []),
        *_sections(variants, tuned, comparison),
        *(pool.sections_of_runs() if pool else []),
        health_section.section(problems, len(combined.table)),
    ]
    page = Page(
        title,
        first,
        introduction.introduction(combined),
        list(introduction.notes(combined)),
        TOKEN_PAGE if token_html else "",
        sections,
        provenance.sentence(folder, combined, date),
        collected.data or "",
    )
    write_atomically(folder / PAGE, html.render(page).encode())
    footer = f"{plural(len(combined.done), 'run')}, {plural(combined.table.seed.nunique(), 'seed')}"
    write_atomically(folder / CARD, card(runs, title, first.question, first.answer, first.certainty, footer))
    written += [PAGE, CARD]
    numbers = tables.joined({variant.name: variant.numbers for variant in [*variants, *controls]})
    if tuned and len(tuned.numbers) and numbers.empty:
        return fine_tuning_section.short(tuned.numbers), written
    return tables.console_table(runs, numbers), written


def _write_tables(
    folder: Path,
    variants: list[Variant],
    controls: list[Variant],
    tuned: FineTuning | None,
    by_name: dict[str, pd.DataFrame],
) -> list[str]:
    """Write the CSV tables that do not belong to a figure. Returns their paths relative to the folder.

    controls: the clean controls of a named pool's domain, which appear only in the summary. by_name: more tables by file name.
    """
    if variants:
        laws = {variant.name: fit_study(variant.runs) for variant in variants}
        by_name["summary"] = tables.joined(
            {
                variant.name: tables.with_declared_repeats(variant.runs, variant.numbers)
                for variant in [*variants, *controls]
            }
        )
        by_name["laws"] = tables.joined({name: fits.constants() for name, fits in laws.items()})
        by_name["cross_validation"] = tables.joined({name: fits.cross_validation for name, fits in laws.items()})
    if tuned:
        by_name["fine_tuning"] = tuned.numbers
    (folder / "tables").mkdir(exist_ok=True)
    paths = {f"tables/{name}.csv": table for name, table in by_name.items()}
    for path, table in paths.items():
        write_atomically(folder / path, table.to_csv(index=False).encode())
    return list(paths)


def _sections(variants: list[Variant], tuned: FineTuning | None, comparison: pd.DataFrame) -> Iterator[Section]:
    """The sections of the page, from top to bottom."""
    if tuned:
        yield from tuned.sections()
    for variant in variants:
        if variant.name:
            yield Section(variant.name, level=1)
        details = findings(variant.numbers, variant.runs.has_fixed_pool) if len(variant.numbers) else []
        yield Section("Summary", summarize(variant.runs, variant.numbers), details)
        yield from figure_sections(variant.figures)
        yield from variant.sections
        if variant.missing:
            yield missing_section(variant.missing)
        yield Section("Runs", tables=[tables.runs_table(variant)])
    if len(comparison):
        published = tables.published_table(comparison)
        if len(published.rows):
            yield Section("Comparison with the papers", tables=[published])
        else:
            yield Section(
                "Comparison with the papers", ["The papers report no numbers for this study's fractions and metrics."]
            )
