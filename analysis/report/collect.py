"""Everything that a report shows of each variant of a study, made by several processes."""

import gc
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

import pandas as pd

from analysis.figures.plot import Missing, SavedPlot
from analysis.measures.degradation import summary
from analysis.report import laws_section, token_page
from analysis.report.digests import ReportRecord, digest_of
from analysis.report.figure_list import FIGURES, plot_figure
from analysis.report.progress import Progress, report_figure
from analysis.report.section import Section
from analysis.report.workers import process_count, run_tasks
from analysis.runs import Runs

SECTIONS: tuple[Callable[[Runs], Section | Missing], ...] = (laws_section.section,)  # results without a figure
FIGURES_OF_LAWS = ("law_of_repetition",)  # they share the laws' fits, a dozen seconds, with the laws section
FEWEST_RUNS_TO_SHARE = 12  # with fewer, starting processes takes longer than plotting


@dataclass(frozen=True)
class Variant:
    """One variant of a study with everything shown of it. A study that varies only its grid of repetition has one."""

    name: str
    runs: Runs
    numbers: pd.DataFrame  # `degradation.summary`
    figures: list[SavedPlot]
    sections: list[Section]
    missing: list[Missing]


@dataclass(frozen=True)
class Figures:
    """Makes the figures that changed since the last report and takes the others from it."""

    old: ReportRecord
    new: ReportRecord
    code: str
    runs: Mapping[str, str]  # a digest of the records of each run

    def digest(self, name: str, runs: Runs) -> str:
        """Digest of what a figure is made from: code, its name, and all runs that it could read."""
        names = [str(run) for run in runs.combined.table.name]
        return digest_of([self.code, name, [(run, self.runs[run]) for run in names]])

    def reused(self, name: str, runs: Runs) -> SavedPlot | Missing | None:
        """A figure that has not changed."""
        return self.old.figure(name, self.digest(name, runs))

    def keep(self, name: str, runs: Runs, figure: SavedPlot | Missing) -> None:
        """Remember a figure for the next report."""
        self.new.add_figure(name, self.digest(name, runs), figure)


def file_name(figure: str, variant: str) -> str:
    """A figure's file name without its ending; figures of different variants have different names."""
    return figure + ("." + re.sub(r"[^\w.=]+", "_", variant) if variant else "")


def save_figure(figure: str, name: str, runs: Runs) -> SavedPlot | Missing:
    """Plot a figure and save it under this name."""
    plot = plot_figure(figure, runs)
    if isinstance(plot, Missing):
        return replace(plot, name=name)
    saved = replace(plot, name=name).save(runs.folder)
    del plot
    gc.collect()  # a matplotlib figure is full of reference cycles and takes up to 100 MB
    return saved


def collect(runs: Runs, title: str, figures: Figures, progress: Progress) -> tuple[list[Variant], str | None]:
    """Every variant with its figures and sections, and the token page if the runs have one.

    Raises InputError if a file cannot be read or written.
    """
    variants = runs.variants()
    # Computed before the processes part, because figures read the same fits.
    numbers = [summary(variant) if len(variant.done) else pd.DataFrame() for _, variant in variants]
    names = {(name, figure): file_name(figure, name) for name, _ in variants for figure in FIGURES}
    made: dict[object, object] = {}  # by variant and figure or section; None: the token page
    for name, variant in variants:
        for figure in FIGURES:
            if reused := figures.reused(names[name, figure], variant):
                made[name, figure] = reused
    tasks: dict[object, Callable[[], object]] = {
        (name, figure): partial(save_figure, figure, names[name, figure], variant)
        for name, variant in variants
        for figure in FIGURES
        if (name, figure) not in made
    }
    tasks |= {(name, section): partial(section, variant) for name, variant in variants for section in SECTIONS}
    tasks[None] = partial(token_page.page, title, variants)
    titles: dict[object, str] = {(name, figure): f"{figure}, {name}" if name else figure for name, figure in names}
    made |= _run(tasks, titles, len(runs.table), progress)
    for name, variant in variants:
        for figure in FIGURES:
            result = made[name, figure]
            assert isinstance(result, SavedPlot | Missing)
            figures.keep(names[name, figure], variant, result)
    token_html = made[None]
    return [
        Variant(
            name,
            variant,
            table,
            [piece for piece in pieces if isinstance(piece, SavedPlot)],
            [piece for piece in pieces if isinstance(piece, Section)],
            [piece for piece in pieces if isinstance(piece, Missing)],
        )
        for (name, variant), table in zip(variants, numbers, strict=True)
        for pieces in [[made[name, maker] for maker in (*FIGURES, *SECTIONS)]]
    ], token_html if isinstance(token_html, str) else None


def _run(
    tasks: Mapping[object, Callable[[], object]],
    titles: Mapping[object, str],
    runs: int,
    progress: Progress,
) -> dict[object, object]:
    """The results of all tasks by key, in as many processes as pay off. titles: what progress calls the figures."""
    keys = list(tasks)
    plotted = [key for key in keys if key in titles]
    number = count(1)

    def finished(place: int) -> None:
        if (key := keys[place]) in titles:
            report_figure(progress, next(number), len(plotted), titles[key])

    if plotted:
        progress("fitting laws and plotting", 0.0)
    share_fits = [
        place
        for place, key in enumerate(keys)
        if isinstance(key, tuple) and (key[1] in FIGURES_OF_LAWS or key[1] in SECTIONS)
    ]
    processes = process_count() if runs >= FEWEST_RUNS_TO_SHARE else 1
    return dict(zip(keys, run_tasks(list(tasks.values()), share_fits, processes, finished), strict=True))
