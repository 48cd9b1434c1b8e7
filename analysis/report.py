"""One self-contained HTML page: what happened, every figure with its caption, every run with its numbers."""

import base64
import html
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from analysis import per_token
from analysis.degradation import summary
from analysis.figures import (
    copying_and_prefix_sizes,
    degradation_by_repeats,
    degradation_by_size,
    heads,
    induction_over_training,
    learning_curves,
    loss_by_position,
    pool_loss,
    size_multiplier,
)
from analysis.figures.style import Drawing, Missing
from analysis.findings import findings, short_summary
from analysis.runs import Runs, load_runs
from analysis.tensorboard_images import write_images
from data_prep.files import write_atomically
from repeat_study.records import Status

FIGURES: tuple[Callable[[Runs], Drawing | Missing], ...] = (
    learning_curves.draw,
    degradation_by_repeats.draw,
    degradation_by_size.draw,
    size_multiplier.draw,
    pool_loss.draw,
    induction_over_training.draw,
    heads.draw,
    copying_and_prefix_sizes.draw,
    loss_by_position.draw,
)

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
STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
figure { margin: 1rem 0 2.5rem; }
figure img { background: white; max-width: max(100%, 44rem); border-radius: 4px; padding: .5rem; box-sizing: border-box; }
figcaption { max-width: 60rem; } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; } th, td { padding: .2rem .6rem; text-align: right; white-space: nowrap; }
th { border-bottom: 1px solid; } tbody tr:nth-child(even) { background: color-mix(in srgb, currentColor 6%, transparent); }
td:first-child, th:first-child { text-align: left; } .note { border-left: 4px solid orange; padding-left: .8rem; }
"""


@dataclass(frozen=True)
class Section:
    """What is said of one variant of a study; a study that varies nothing beside its grid of repetition has one."""

    variant: str
    runs: Runs
    numbers: pd.DataFrame
    pictures: list[tuple[Drawing, bytes]]
    missing: list[Missing]


def write_report(folder: Path, names: list[str] | None = None) -> tuple[pd.DataFrame, Path]:
    """Write figures/, tables/ and report.html, and tokens.html where runs hold their copied paragraph,
    into the study's folder; returns the short summary and the page's path.

    names: the run directories that belong to the study, None for all that are there.
    Raises InputError when there is nothing to report on, or a record of a run cannot be read.
    """
    runs = load_runs(folder, names)
    sections = [_section(variant, part) for variant, part in runs.variants()]
    numbers = pd.concat([section.numbers.assign(variant=section.variant) for section in sections])
    write_images(folder, [drawing for section in sections for drawing, _ in section.pictures])
    (folder / "tables").mkdir(exist_ok=True)
    write_atomically(folder / "tables" / "summary.csv", numbers.to_csv(index=False).encode())
    tokens, page = folder / "tokens.html", folder / "report.html"
    by_token = per_token.page(
        f"{_title(runs)}, token by token", [(section.variant, section.runs) for section in sections]
    )
    if by_token:
        write_atomically(tokens, by_token.encode())
    else:
        tokens.unlink(missing_ok=True)
    write_atomically(page, _page(runs, sections, tokens.name if by_token else None).encode())
    if numbers.empty:
        return runs.table.rename(columns={"label": "run"})[["run", "status"]], page
    short = short_summary(numbers)
    if runs.table.label.duplicated().any():
        short["run"] = numbers.run.to_list()  # labels do not tell variants apart
    return short[[column for column in IN_CONSOLE if column in short]], page


def _section(variant: str, runs: Runs) -> Section:
    drawn = [draw(runs) for draw in FIGURES]
    if variant:
        suffix = "." + re.sub(r"[^\w.=]+", "_", variant)
        drawn = [replace(figure, name=figure.name + suffix) for figure in drawn]
    pictures = [(figure, figure.save(runs.folder)) for figure in drawn if isinstance(figure, Drawing)]
    missing = [figure for figure in drawn if isinstance(figure, Missing)]
    return Section(variant, runs, summary(runs) if len(runs.done) else pd.DataFrame(), pictures, missing)


def _title(runs: Runs) -> str:
    return f"repeat-study: {runs.folder.resolve().name}"


def _page(runs: Runs, sections: list[Section], tokens: str | None) -> str:
    title = _title(runs)
    notes = [
        f"Not yet finished: {run.name} ({run.status})." for run in runs.table.itertuples() if run.status != Status.DONE
    ]
    notes += [f"Not yet started: {name}." for name in runs.absent]
    notes += [f"Not part of the study as it is declared now, left out: {name}." for name in runs.strangers]
    if len(precisions := sorted(runs.table.precision.dropna().unique())) > 1:
        notes.append(
            f"Trained in several precisions ({', '.join(precisions)}), whose losses differ beyond the last digits."
        )
    shared = ", ".join(
        f"{name} {runs.table[key].iloc[0]:,}" for key, name in SHARED.items() if runs.table[key].nunique() == 1
    )
    copies = sorted(runs.evaluations.copying_loss_per_copy.dropna().map(len).unique())
    shared += f"; {' or '.join(map(str, copies))} copies of a paragraph in the copying probe, which takes up to 11"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{len(runs.done)} finished runs; {shared}; corpus {', '.join(sorted(set(runs.table.corpus)))}."
        " Losses are in nats per token.</p>",
        *(f'<p class="note">{html.escape(note)}</p>' for note in notes),
    ]
    if tokens:
        parts.append(
            f'<p><a href="{tokens}">Token by token</a>: the copied paragraph, every token coloured by its probability,'
            " clean beside repeated.</p>"
        )
    for section in sections:
        parts += _section_html(section)
    body = "\n".join(parts)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>{body}</body></html>\n'
    )


def _section_html(section: Section) -> Iterator[str]:
    if section.variant:
        yield f"<h1>{html.escape(section.variant)}</h1>"
    if len(section.numbers):
        yield "<h2>What happened</h2><ul>"
        yield from (f"<li>{html.escape(sentence)}</li>" for sentence in findings(section.numbers))
        yield "</ul>"
    for figure in section.missing:
        yield f'<p class="note">No figure {html.escape(f"{figure.name}: {figure.reason}")}.</p>'
    for drawing, svg in section.pictures:
        yield (
            f'<h2>{html.escape(drawing.title)}</h2><figure><div class="wide"><img alt="{html.escape(drawing.title)}"'
            f' src="data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"></div><figcaption>{html.escape(drawing.caption)}'
            f' Numbers: <a href="tables/{drawing.name}.csv">tables/{drawing.name}.csv</a></figcaption></figure>'
        )
    if len(section.numbers):
        short = short_summary(section.numbers)
        links = [
            f'<a href="{html.escape(name)}/">{html.escape(label)}</a>'
            for name, label in zip(section.numbers.run, short.run, strict=True)
        ]
        table = short.assign(run=links).to_html(index=False, border=0, escape=False)
        yield f'<h2>Runs</h2>{EXPLANATION}<div class="wide">{table}</div>'
