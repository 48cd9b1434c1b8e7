"""Make the figures and sections of every variant of a study, in several processes."""

import gc
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

import pandas as pd

from analysis.figures.plot import Missing, SavedPlot
from analysis.measures.degradation import summary
from analysis.measures.headline import headline
from analysis.report import explorer, laws_section, token_page
from analysis.report.digests import ReportRecord, digest_of
from analysis.report.figure_list import FIGURES, NAMED_POOL_FIGURE, VARIANT_FIGURES, plot_figure
from analysis.report.progress import Progress, report_figure
from analysis.report.section import Section
from analysis.report.workers import process_count, run_tasks
from analysis.runs import Runs
from repeat_study.records.tensorboard.arm_means import write_arm_means

SECTIONS: tuple[Callable[[Runs], Section | Missing], ...] = (laws_section.section,)  # sections that have no figure
LAW_FIGURES = ("law_of_repetition",)  # share their fits with the laws section; fitting takes about ten seconds
FEWEST_RUNS_FOR_WORKERS = 12  # with fewer runs, starting worker processes takes longer than plotting


@dataclass(frozen=True)
class Variant:
    """A variant of a study, with its figures and sections.

    A study in which only models, repeats, fractions and seeds vary has a single variant, whose name is empty.
    """

    name: str
    runs: Runs
    numbers: pd.DataFrame  # from `degradation.summary`
    figures: list[SavedPlot]
    sections: list[Section]
    missing: list[Missing]


@dataclass(frozen=True)
class FigureCache:
    """The last report's figures, which are reused if their inputs have not changed."""

    old: ReportRecord
    new: ReportRecord
    code: str
    runs: Mapping[str, str]  # digest of each run's records, by run name

    def digest(self, name: str, runs: Runs) -> str:
        """Digest of a figure's inputs: the code, the figure's name and the records of all runs that it may read."""
        names = [str(run) for run in runs.combined.table.name]
        return digest_of([self.code, name, [(run, self.runs[run]) for run in names]])

    def reused(self, name: str, runs: Runs) -> SavedPlot | Missing | None:
        """The figure from the last report; None if its inputs have changed or its files were deleted or edited."""
        return self.old.figure(name, self.digest(name, runs))

    def keep(self, name: str, runs: Runs, figure: SavedPlot | Missing) -> None:
        """Record a figure so that the next report can reuse it."""
        self.new.add_figure(name, self.digest(name, runs), figure)


@dataclass(frozen=True)
class Collected:
    """Everything made from a study's runs: its variants, the figures that compare them, and the HTML of the token page."""

    variants: list[Variant]
    comparison: list[SavedPlot | Missing]  # empty if there is only one variant
    named_pool: SavedPlot | Missing | None  # None without a named pool
    token_html: str | None
    data: str | None  # for the movable figures, from `explorer.page_data`
    arm_files: list[str]  # TensorBoard files with the means over seeds, relative to the folder


def file_name(figure: str, variant: str) -> str:
    """A figure's file name without the extension. If the variant has a name, it is appended, as in "heads.tokens-1536000_passes"."""
    without_commas = re.sub(r"(?<=\d),(?=\d)", "", variant)
    return figure + ("." + re.sub(r"[^\w.-]+", "_", without_commas.replace(" = ", "-")) if variant else "")


def save_figure(figure: str, name: str, runs: Runs) -> SavedPlot | Missing:
    """Plot a figure and save it under this name."""
    plot = plot_figure(figure, runs)
    if isinstance(plot, Missing):
        return replace(plot, name=name)
    saved = replace(plot, name=name).save(runs.folder)
    del plot
    gc.collect()  # a matplotlib figure has many reference cycles and uses up to 100 MB
    return saved


def collect(runs: Runs, title: str, cache: FigureCache, progress: Progress) -> Collected:
    """Make the figures and sections of every variant, and the HTML of the token page.

    title: the title of the token page, whose HTML is None if there are no runs to compare token by token.
    Raises InputError if a file cannot be read or written.
    """
    variants = runs.variants()
    plotted = [(name, variant, figure) for name, variant in variants for figure in FIGURES]
    if len(variants) > 1:
        plotted += [("", runs, figure) for figure in VARIANT_FIGURES]
    if runs.has_named_pool:
        plotted.append(("", runs, NAMED_POOL_FIGURE))
    # Computed before the worker processes fork, so that they inherit the cached fits.
    numbers = [summary(variant) if len(variant.done) else pd.DataFrame() for _, variant in variants]
    names = {(name, figure): file_name(figure, name) for name, _, figure in plotted}
    assert len(set(names.values())) == len(names), "every figure has its own file"
    made: dict[object, object] = {}  # keys: (variant, figure or section), or the module or function for something else
    for name, figure_runs, figure in plotted:
        if reused := cache.reused(names[name, figure], figure_runs):
            made[name, figure] = reused
    tasks: dict[object, Callable[[], object]] = {
        (name, figure): partial(save_figure, figure, names[name, figure], figure_runs)
        for name, figure_runs, figure in plotted
        if (name, figure) not in made
    }
    tasks |= {(name, section): partial(section, variant) for name, variant in variants for section in SECTIONS}
    tasks[token_page] = partial(token_page.page, title, variants)
    tasks[explorer] = partial(_explorer_data, runs, variants)
    tasks[write_arm_means] = partial(write_arm_means, runs.folder, list(runs.combined.table.name))
    titles: dict[object, str] = {(name, figure): f"{figure}, {name}" if name else figure for name, figure in names}
    made |= _run(tasks, titles, len(runs.table), progress)
    results: dict[tuple[str, str], SavedPlot | Missing] = {}
    for name, figure_runs, figure in plotted:
        result = made[name, figure]
        assert isinstance(result, SavedPlot | Missing)
        results[name, figure] = result
        cache.keep(names[name, figure], figure_runs, result)
    token_html, data, arm_files = made[token_page], made[explorer], made[write_arm_means]
    assert isinstance(arm_files, list)
    finished = [
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
    ]
    comparison = [results["", figure] for figure in VARIANT_FIGURES] if len(variants) > 1 else []
    named_pool = results["", NAMED_POOL_FIGURE] if runs.has_named_pool else None
    return Collected(
        finished,
        comparison,
        named_pool,
        token_html if isinstance(token_html, str) else None,
        data if isinstance(data, str) else None,
        arm_files,
    )


def _explorer_data(runs: Runs, variants: list[tuple[str, Runs]]) -> str | None:
    return explorer.of_variants(variants, headline(runs))


def without_grid(runs: Runs) -> Collected:
    """The result of `collect` for a study without repeated runs from scratch, which serve only as baselines for fine-tuned runs."""
    names = list(runs.combined.table.name)
    return Collected([], [], None, None, _explorer_data(runs, [("", runs)]), write_arm_means(runs.folder, names))


def _run(
    tasks: Mapping[object, Callable[[], object]],
    titles: Mapping[object, str],
    run_count: int,
    progress: Progress,
) -> dict[object, object]:
    """Run all tasks and return their results by key. Studies with few runs do not start worker processes.

    titles: the names of figures in progress messages. run_count: the number of runs in the study.
    """
    keys = list(tasks)
    plotted = [key for key in keys if key in titles]
    number = count(1)

    def finished(index: int) -> None:
        if (key := keys[index]) in titles:
            report_figure(progress, next(number), len(plotted), titles[key])

    if plotted:
        progress("fitting laws and plotting", 0.0)
    tasks_with_fits = [
        index
        for index, key in enumerate(keys)
        if isinstance(key, tuple) and (key[1] in LAW_FIGURES or key[1] in SECTIONS)
    ]
    processes = process_count() if run_count >= FEWEST_RUNS_FOR_WORKERS else 1
    gc.freeze()  # otherwise, every collection after a figure traverses all objects of the process (0.4 s)
    try:
        return dict(zip(keys, run_tasks(list(tasks.values()), tasks_with_fits, processes, finished), strict=True))
    finally:
        gc.unfreeze()
