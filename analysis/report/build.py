"""One self-contained HTML page: what happened, every figure with its caption, every run with its numbers."""

import gc
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.figures import (
    compute_equivalent_loss,
    copying_and_prefix_sizes,
    degradation_by_repeats,
    degradation_by_size,
    divergence,
    heads,
    induction_over_training,
    law_of_repetition,
    learning_curves,
    loss_by_position,
    out_of_distribution,
    peak_location,
    pool_loss,
    poor_performance_band,
    repeats_map,
    size_multiplier,
)
from analysis.figures.plot import Missing, Plot, SavedPlot
from analysis.formatting import three_digits
from analysis.laws.study_fits import fit_study
from analysis.measures import fine_tuning
from analysis.measures.degradation import summary
from analysis.report import fine_tuning_section
from analysis.report import html as page
from analysis.report import laws_section as laws_part
from analysis.report import published_comparison as beside_the_papers
from analysis.report import token_page as per_token
from analysis.report.findings import findings, short_summary
from analysis.report.fork_pool import processes, side_by_side
from analysis.report.html import Block, Part, Table
from analysis.report.summary import in_short
from analysis.report.tensorboard_images import write_images
from analysis.runs import Runs, load_runs
from data_prep.files import write_atomically
from repeat_study.records.run_directory import Status

FIGURES: tuple[Callable[[Runs], Plot | Missing], ...] = (
    learning_curves.plot,
    degradation_by_repeats.plot,
    degradation_by_size.plot,
    divergence.plot,
    size_multiplier.plot,
    poor_performance_band.plot,
    peak_location.plot,
    compute_equivalent_loss.plot,
    pool_loss.plot,
    repeats_map.plot,
    law_of_repetition.plot,
    induction_over_training.plot,
    heads.plot,
    copying_and_prefix_sizes.plot,
    loss_by_position.plot,
    out_of_distribution.plot,
)

# Results without a figure: sentences and tables under a heading of their own, or why there are none.
PARTS: tuple[Callable[[Runs], Part | Missing], ...] = (laws_part.tell,)

# Figures of the fits that parts tell of too: these take a dozen seconds, and are made by one process.
OF_LAWS = (law_of_repetition.plot,)
FEWEST_TO_SHARE = 12  # runs; with fewer, starting processes takes longer than drawing

IN_CONSOLE = ["run", "status", "test loss", "over clean", "size ×", "rise", "at tokens", "won back"]

SHARED = {
    "trained_tokens": "tokens per run",
    "context": "context",
    "sequences_per_step": "sequences per step",
    "vocabulary": "vocabulary",
}
EXPLANATION = (
    "<p>Size ×: size of the clean model with the same loss over the run's own size (≤: worse than the smallest clean"
    " model). Rise: largest height of test loss above its earlier minimum, and where; left out when it does not exceed"
    " twice what clean runs show. Won back: how far test loss falls from there to the end. Copying loss: on copies 2"
    " onwards of a paragraph, a mean over several; its gain is how much lower that is than on the first copy, and the null is the same gain"
    " when every copy is shuffled. Copying × and prefix ×: the same as size ×, by copying loss and by what prefix matching"
    " lacks of 1; none where clean runs do not order these by size. Prefix matching: of the best head at the end; its null"
    " score is the best where nothing repeats. Heads from: the tokens from which on it exceeds twice its null and its"
    " untrained score. Each row is one run directory; all digits are in"
    ' <a href="tables/summary.csv">tables/summary.csv</a>.</p>'
)
BESIDE = (
    "<p>Where a paper has a number for what was measured here. Models, data and tokens are others, and far fewer: what"
    " should agree is the direction. 95% intervals over seeds, none for one seed; all digits are in"
    ' <a href="tables/beside_the_papers.csv">tables/beside_the_papers.csv</a>.</p>'
)


@dataclass(frozen=True)
class Section:
    """What is said of one variant of a study; a study that varies nothing beside its grid of repetition has one."""

    variant: str
    runs: Runs
    numbers: pd.DataFrame
    pictures: list[SavedPlot]
    missing: list[Missing]
    parts: list[Part]


def write_report(folder: Path, names: list[str] | None = None) -> tuple[pd.DataFrame, Path]:
    """Write figures/, tables/ and report.html, and tokens.html where runs hold their copied paragraph,
    into the study's folder; returns the short summary and the page's path.

    names: the run directories that belong to the study, None for all that are there.
    Raises InputError when there is nothing to report on, or a record of a run cannot be read.
    """
    runs = load_runs(folder, names)
    tuned = fine_tuning_section.section(runs) if runs.fine_tuned else None
    # Where nothing is repeated beside them, runs from scratch are there for the fine-tuned ones alone.
    repeats = not tuned or (runs.table.repeats > 1).any()
    sections, by_token = _sections(runs) if repeats else ([], None)
    numbers = _joined([section.numbers.assign(variant=section.variant) for section in sections])
    published = beside_the_papers.table(runs) if len(runs.together.done) else pd.DataFrame()
    pictures = [picture for section in sections for picture in section.pictures]
    write_images(folder, [*(tuned.pictures if tuned else []), *pictures])
    (folder / "tables").mkdir(exist_ok=True)
    laws = [(section.variant, fit_study(section.runs)) for section in sections]
    tables = {"beside_the_papers": published}
    if sections:
        tables["summary"] = numbers
        tables["laws"] = _joined([found.constants().assign(variant=variant) for variant, found in laws])
        tables["cross_validation"] = _joined(
            [found.cross_validation.assign(variant=variant) for variant, found in laws]
        )
    if tuned:
        tables["fine_tuning"] = tuned.numbers
    for name, table in tables.items():
        write_atomically(folder / "tables" / f"{name}.csv", table.to_csv(index=False).encode())
    tokens, path = folder / "tokens.html", folder / "report.html"
    if by_token:
        write_atomically(tokens, by_token.encode())
    else:
        tokens.unlink(missing_ok=True)
    blocks = list(tuned.blocks()) if tuned else []
    blocks += [block for section in sections for block in _blocks(section)]
    if len(published):
        blocks.append(page.table(Table("Beside the papers", BESIDE, _beside_the_papers(published))))
    write_atomically(
        path, page.document(_title(runs), _before(runs.together, tokens.name if by_token else None), blocks).encode()
    )
    if tuned and len(tuned.numbers) and numbers.empty:
        return fine_tuning.short(tuned.numbers), path
    if numbers.empty:
        return runs.together.table.rename(columns={"label": "run"})[["run", "status"]], path
    short = short_summary(numbers)
    if runs.table.label.duplicated().any():
        short["run"] = numbers.run.to_list()  # labels do not tell variants apart
    return short[[column for column in IN_CONSOLE if column in short]], path


def _sections(runs: Runs) -> tuple[list[Section], str | None]:
    """Every variant with all that is shown of it, and the page of tokens, made by as many processes as pay."""
    variants = runs.variants()
    # Before processes part ways: figures read the same fits.
    numbers = [summary(part) if len(part.done) else pd.DataFrame() for _, part in variants]
    makers = [(variant, part, make) for variant, part in variants for make in (*FIGURES, *PARTS)]
    tasks: list[Callable[[], SavedPlot | Part | Missing | str | None]] = [partial(_made, *maker) for maker in makers]
    tasks.append(partial(per_token.page, f"{_title(runs)}, token by token", variants))
    of_laws = [place for place, (_, _, make) in enumerate(makers) if make in (*OF_LAWS, *PARTS)]
    *made, by_token = side_by_side(tasks, of_laws, processes() if len(runs.table) >= FEWEST_TO_SHARE else 1)
    each = len(FIGURES) + len(PARTS)
    sections = [
        Section(
            variant,
            part,
            numbers[place],
            [piece for piece in pieces if isinstance(piece, SavedPlot)],
            [piece for piece in pieces if isinstance(piece, Missing)],
            [piece for piece in pieces if isinstance(piece, Part)],
        )
        for place, (variant, part) in enumerate(variants)
        for pieces in [made[place * each : (place + 1) * each]]
    ]
    return sections, by_token if isinstance(by_token, str) else None


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables) if tables else pd.DataFrame()


def _made(variant: str, runs: Runs, make: Callable[[Runs], Plot | Part | Missing]) -> SavedPlot | Part | Missing:
    """A figure, saved under a name of its variant, or another piece of the page."""
    piece = make(runs)
    suffix = "." + re.sub(r"[^\w.=]+", "_", variant) if variant else ""
    if isinstance(piece, Plot):
        picture = replace(piece, name=piece.name + suffix).save(runs.folder)
        del piece
        gc.collect()  # a figure is full of cycles, and of up to 100 MB
        return picture
    return replace(piece, name=piece.name + suffix) if isinstance(piece, Missing) and make not in PARTS else piece


def _title(runs: Runs) -> str:
    return f"repeat-study: {runs.folder.resolve().name}"


def _before(runs: Runs, tokens: str | None) -> str:
    """What comes before all else: what the runs share, and what a reader has to know of them."""
    shared = ", ".join(
        f"{name} {runs.table[key].iloc[0]:,}" for key, name in SHARED.items() if runs.table[key].nunique() == 1
    )
    copies = sorted(runs.evaluations.copying_loss_per_copy.dropna().map(len).unique())
    shared += f"; {' or '.join(map(str, copies))} copies of a paragraph in the copying probe, which takes up to 11"
    parts = [
        f"<p>{len(runs.done)} finished runs; {shared}; corpus {', '.join(sorted(set(runs.table.corpus)))}."
        " Losses are in nats per token.</p>",
        *_notes(runs),
    ]
    if tokens:
        parts.append(
            f'<p><a href="{tokens}">Token by token</a>: the copied paragraph, every token coloured by its probability,'
            " clean beside repeated.</p>"
        )
    return "\n".join(parts)


def _notes(runs: Runs) -> Iterator[str]:
    unfinished = [
        f"Not yet finished: {run.name} ({run.status})." for run in runs.table.itertuples() if run.status != Status.DONE
    ]
    absent = [f"Not yet started: {name}." for name in runs.absent]
    yield from page.notes(
        unfinished + absent,
        f"{len(unfinished)} runs are not yet finished and {len(absent)} not yet started. Unfinished ones are in the figures over"
        " training, and in no final number.",
    )
    strangers = [f"Not part of the study as it is declared now, left out: {name}." for name in runs.strangers]
    yield from page.notes(strangers, f"{len(strangers)} directories are not part of the study as it is declared now.")
    duplicates = [
        f"Trained the same way twice, which makes no second seed: {name} is left out, {kept} stands."
        for name, kept in runs.duplicates.items()
    ]
    yield from page.notes(duplicates, f"{len(duplicates)} runs were trained the same way as others and are left out.")
    mixed = []
    if len(precisions := sorted(runs.table.precision.dropna().unique())) > 1:
        mixed.append(
            f"Trained in several precisions ({', '.join(precisions)}), whose losses differ beyond the last digits."
        )
    evaluations = pd.DataFrame(runs.table.evaluation.to_list()).astype(str)
    if several := [key for key in evaluations if evaluations[key].nunique() > 1]:
        mixed.append(f"Evaluated in several ways, so that numbers differ in more than training: {', '.join(several)}.")
    if runs.table[runs.table.repeats > 1].pool_seed.nunique() > 1:
        mixed.append("Runs of one seed on several pools count as runs of their own in means and intervals.")
    yield from page.notes(mixed, "")


def _blocks(section: Section) -> Iterator[Block]:
    """One variant, from what happened to its runs."""
    if section.variant:
        yield Block(section.variant, "", level=1)
    details = page.sentences(findings(section.numbers)) if len(section.numbers) else ""
    happened = page.sentences(in_short(section.runs, section.numbers), "short")
    yield Block("What happened", happened + (page.folded("In detail", details) if details else ""))
    yield from map(page.figure, section.pictures)
    yield from map(page.part, section.parts)
    if section.missing:
        yield page.cannot_show(section.missing)
    yield page.table(_runs_table(section))


def _runs_table(section: Section) -> Table:
    """Every run that has a directory; unfinished ones with where they stand and no final number."""
    short = short_summary(section.numbers) if len(section.numbers) else pd.DataFrame()
    names = section.numbers.run.to_list() if len(section.numbers) else []
    unfinished = section.runs.table[section.runs.table.status != Status.DONE]
    if len(unfinished):
        rows = [
            {
                "run": run.label,
                "status": _so_far(section.runs.curve(str(run.name)), run),
                "N": f"{run.parameters_non_embedding:,}",
                "f": f"{run.repeated_fraction:.0%}" if run.repeats > 1 else "clean",
                "R": run.repeats,
            }
            for run in unfinished.itertuples()
        ]
        finished = short.assign(status="done") if len(short) else short
        short = pd.concat([finished, pd.DataFrame(rows)], ignore_index=True).fillna("–")
        short.insert(1, "status", short.pop("status"))
        names += unfinished.name.to_list()
    return Table("Runs", EXPLANATION, short, [f"{name}/" for name in names])


def _so_far(curve: pd.DataFrame, run: Any) -> str:
    if curve.empty:
        return f"{run.status}, not yet evaluated"
    share = curve.tokens.iloc[-1] / run.trained_tokens
    return f"{run.status}, {share:.0%} trained, test loss so far {curve.test_loss.iloc[-1]:.3f}"


def _beside_the_papers(table: pd.DataFrame) -> pd.DataFrame:
    known = table.low.notna() & (table.low < table.high)
    return pd.DataFrame(
        {
            "quantity": table.quantity,
            "where": table["where"],
            "here": table.bound + table.here.map(three_digits),
            "95% interval": (table.low.map(three_digits) + " to " + table.high.map(three_digits)).where(known, "–"),
            "published": table.published.map(three_digits),
            "source": table.source.replace("", "–"),
        }
    )
