"""One self-contained HTML page: what happened, every figure with its caption, every run with its numbers."""

import base64
import html
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from analysis.degradation import summary
from analysis.figures import degradation_by_repeats, degradation_by_size, learning_curves, pool_loss, size_multiplier
from analysis.figures.style import Drawing, Missing
from analysis.runs import Runs, load_runs
from data_prep.files import write_atomically
from repeat_study.records import Status

FIGURES: tuple[Callable[[Runs], Drawing | Missing], ...] = (
    learning_curves.draw,
    degradation_by_repeats.draw,
    degradation_by_size.draw,
    size_multiplier.draw,
    pool_loss.draw,
)

IN_CONSOLE = [
    "run",
    "status",
    "N",
    "test loss",
    "over clean",
    "size multiplier",
    "rise",
    "rise at tokens",
    "won back",
    "pool loss",
]

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
figure { margin: 1rem 0 2.5rem; }
figure img { background: white; max-width: 100%; border-radius: 4px; padding: .5rem; box-sizing: border-box; }
figcaption { max-width: 60rem; } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; } th, td { padding: .2rem .6rem; text-align: right; white-space: nowrap; }
th { border-bottom: 1px solid; } tbody tr:nth-child(even) { background: color-mix(in srgb, currentColor 6%, transparent); }
td:first-child, th:first-child { text-align: left; } .note { border-left: 4px solid orange; padding-left: .8rem; }
"""


def write_report(folder: Path, names: list[str] | None = None) -> tuple[pd.DataFrame, Path]:
    """Write figures/, tables/ and report.html into the study's folder; returns the short summary and the page's path.

    names: the run directories that belong to the study, None for all that are there.
    Raises InputError when there is nothing to report on.
    """
    runs = load_runs(folder, names)
    numbers = summary(runs) if len(runs.done) else pd.DataFrame()
    drawn = [draw(runs) for draw in FIGURES]
    pictures = [(figure, figure.save(folder)) for figure in drawn if isinstance(figure, Drawing)]
    (folder / "tables").mkdir(exist_ok=True)
    write_atomically(folder / "tables" / "summary.csv", numbers.to_csv(index=False).encode())
    short = short_summary(numbers) if len(numbers) else runs.table.rename(columns={"label": "run"})[["run", "status"]]
    missing = [figure for figure in drawn if isinstance(figure, Missing)]
    page = folder / "report.html"
    write_atomically(page, _page(runs, numbers, short, pictures, missing).encode())
    return short[[column for column in IN_CONSOLE if column in short]], page


def short_summary(numbers: pd.DataFrame) -> pd.DataFrame:
    """The table people read: numbers rounded, bounds written out, names for people."""

    def text(value: float, form: str) -> str:
        return format(value, form) if value == value else "–"

    rise = numbers.where(numbers.rise_counts != False)  # noqa: E712  (the column may hold None: no clean run to judge by)
    return pd.DataFrame(
        {
            "run": numbers.label,
            "N": [f"{value:,}" for value in numbers.parameters_non_embedding],
            "f": [f"{value:.0%}" if value else "clean" for value in numbers.repeated_fraction],
            "R": numbers.repeats,
            "test loss": [text(value, ".3f") for value in numbers.test_loss],
            "over clean": [text(value, "+.3f") for value in numbers.excess_over_clean],
            "size multiplier": [
                bound + text(value, ".2f" if value >= 0.1 else ".3f")
                for value, bound in zip(numbers.size_multiplier, numbers.size_multiplier_bound, strict=True)
            ],
            "rise": [text(value, ".3f") for value in rise.rise],
            "rise at tokens": [text(value, ",.0f") for value in rise.rise_at_tokens],
            "won back": [text(value, ".3f") for value in rise.won_back],
            "pool loss": [text(value, ".3f") for value in numbers.pool_loss],
            "copying loss": [text(value, ".3f") for value in numbers.copying_loss],
            "shuffled null": [text(value, ".3f") for value in numbers.copying_loss_shuffled],
        }
    )


def findings(numbers: pd.DataFrame) -> list[str]:
    """What happened, in sentences computed from the summary; nulls are said as plainly as effects."""
    sentences = []
    for fraction, here in numbers[numbers.repeats > 1].groupby("repeated_fraction"):
        descents = here[(here.rise_counts == True) & (here.won_back > 0)]  # noqa: E712  (the column may hold None)
        if len(descents):
            best = descents.loc[descents[["rise", "won_back"]].min(axis=1).idxmax()]
            sentences.append(
                f"Double descent at f = {fraction:.0%}: in {len(descents)} of {len(here)} runs test loss rises above its"
                f" earlier minimum, by more than the noise of the clean run, and falls again; most in {best.run}, by"
                f" {best.rise:.2f} nats at {best.rise_at_tokens:,.0f} tokens, from where it falls by {best.won_back:.2f} nats"
                " by the end."
            )
        else:
            sentences.append(f"No double descent at f = {fraction:.0%} in {len(here)} runs.")
        for model, line in here.groupby("model"):
            means = line.groupby("repeats").test_loss.mean()
            worst = means.idxmax()
            inside = means.index.min() < worst < means.index.max()
            size = line[line.repeats == worst].iloc[0]
            shrunk = f", the loss of a model {size.size_multiplier_bound}{size.size_multiplier:.3g} its size"
            sentences.append(
                f"{model}, f = {fraction:.0%}: the worst of the R tried is {worst:,} with test loss {means.max():.3f}"
                f" ({size.excess_over_clean:+.3f} over clean)"
                + (shrunk if size.size_multiplier == size.size_multiplier else "")
                + ("; fewer and more repeats both do less harm." if inside else "; it is the edge of the range tried.")
            )
    return sentences or ["No repeated run has finished yet."]


def _page(
    runs: Runs,
    numbers: pd.DataFrame,
    short: pd.DataFrame,
    pictures: list[tuple[Drawing, bytes]],
    missing: list[Missing],
) -> str:
    title = f"repeat-study: {runs.folder.resolve().name}"
    notes = [
        f"Not yet finished: {run.name} ({run.status})." for run in runs.table.itertuples() if run.status != Status.DONE
    ]
    notes += [f"Not yet started: {name}." for name in runs.absent]
    notes += [f"Not part of the study as it is declared now, left out: {name}." for name in runs.strangers]
    notes += [f"No figure {figure.name}: {figure.reason}." for figure in missing]
    first = runs.table.iloc[0]
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{len(runs.done)} finished runs of {first.trained_tokens:,} tokens, context {first.context},"
        f" {first.sequences_per_step} sequences per step, vocabulary {first.vocabulary}; corpus {first.corpus}."
        " Losses are in nats per token.</p>",
        "<h2>What happened</h2><ul>",
        *(f"<li>{html.escape(sentence)}</li>" for sentence in (findings(numbers) if len(numbers) else [])),
        "</ul>",
        *(f'<p class="note">{html.escape(note)}</p>' for note in notes),
    ]
    for drawing, svg in pictures:
        source = base64.b64encode(svg).decode()
        parts.append(
            f'<h2>{html.escape(drawing.title)}</h2><figure><img alt="{html.escape(drawing.title)}"'
            f' src="data:image/svg+xml;base64,{source}"><figcaption>{html.escape(drawing.caption)} Numbers:'
            f' <a href="tables/{drawing.name}.csv">tables/{drawing.name}.csv</a></figcaption></figure>'
        )
    parts += ["<h2>Runs</h2>", _explanation(), f'<div class="wide">{_table(short, runs, numbers)}</div>']
    body = "\n".join(parts)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>{body}</body></html>\n'
    )


def _explanation() -> str:
    return (
        "<p>Size multiplier: size of the clean model with the same loss over the run's own size (≤: worse than the"
        " smallest clean model). Rise: largest height of test loss above its earlier minimum, and where; left out when"
        " it does not exceed twice what clean runs show. Won back: how far test loss falls from there to the end."
        " Shuffled null: copying loss when the order of the copied tokens is destroyed. Each row is one run directory;"
        ' all digits are in <a href="tables/summary.csv">tables/summary.csv</a>.</p>'
    )


def _table(short: pd.DataFrame, runs: Runs, numbers: pd.DataFrame) -> str:
    names = numbers.run if len(numbers) else runs.table.name
    links = [
        f'<a href="{html.escape(name)}/">{html.escape(label)}</a>' for name, label in zip(names, short.run, strict=True)
    ]
    return short.assign(run=links).to_html(index=False, border=0, escape=False)
