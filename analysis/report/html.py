"""The report as HTML: one file without network, that a pointer, a keyboard, a phone and a printer can read."""

import base64
import html
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.figures.plot import Missing, SavedPlot

MOST_NOTES = 8  # of one kind, beyond which they are folded
NUMBER = re.compile(r"[≤≥]?[+−-]?[\d,]*\.?\d+(e[+-]?\d+)?%?( to .*)?")

STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 25%, transparent); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 1.5rem auto; padding: 0 1rem; overflow-wrap: break-word; }
h1 { line-height: 1.2; } h2, h3 { margin: 2rem 0 .5rem; } p, ul, figcaption { max-width: 60rem; }
nav ul { columns: 20rem; padding-left: 1.2rem; } .short li { margin: .35rem 0; } summary { cursor: pointer; }
.wide { overflow-x: auto; } figure { margin: 1rem 0 2.5rem; }
.card { background: white; color-scheme: light; border-radius: 4px; padding: .5rem; border: 1px solid var(--line);
  width: fit-content; max-width: 100%; box-sizing: border-box; }
.card img { display: block; max-width: max(100%, 44rem); height: auto; }
figcaption { margin-top: .4rem; font-size: .95rem; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; text-align: left; white-space: nowrap; } .n { text-align: right; }
th { border-bottom: 1px solid; vertical-align: bottom; }
tbody tr:nth-child(even) { background: color-mix(in srgb, currentColor 6%, transparent); }
th button { all: unset; cursor: pointer; font-weight: bold; } th button:focus-visible { outline: 2px solid; outline-offset: 2px; }
th button::after { content: " ↕"; opacity: .35; font-weight: normal; }
th[aria-sort=ascending] button::after { content: " ↑"; opacity: 1; }
th[aria-sort=descending] button::after { content: " ↓"; opacity: 1; }
.note { border-left: 4px solid orange; padding-left: .8rem; margin: 1rem 0; }
@media print {
  @page { margin: 1.5cm; size: A4 landscape; } :root { color-scheme: light; }
  body { max-width: none; margin: 0; font-size: 11px; } a { color: inherit; text-decoration: none; } nav { display: none; }
  figure, tr, li { break-inside: avoid; } h2, h3 { break-after: avoid; } .wide { overflow: visible; } .card { border: 0; padding: 0; }
  .card img { max-width: 100%; max-height: 15cm; width: auto; } th button::after { content: none !important; }
  table { font-size: 8px; } th, td { padding: .1rem .25rem; white-space: normal; } details::details-content { content-visibility: visible; }
}
"""
# Numbers by value, bounds beside their number, other text before numbers, "–" last in both directions.
SCRIPT = """
const form = /^([≤≥]?)([+−-]?[\\d,]*\\.?\\d+(?:e[+-]?\\d+)?)(?=$|%|\\s)/i;
function key(text) {
  const found = text.match(form);
  if (!found) return [text === "–" || text === "" ? 2 : 0, 0, 0, text];
  return [1, Number(found[2].replaceAll(",", "").replace("−", "-")), {"≤": -1, "≥": 1}[found[1]] || 0, text];
}
function compare(a, b, sign) {
  if (a[0] === 2 || b[0] === 2) return a[0] - b[0] || 0;
  return sign * (a[0] - b[0] || a[1] - b[1] || a[2] - b[2] || a[3].localeCompare(b[3], "en", {numeric: true}));
}
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button"; button.title = "sort"; button.append(...head.childNodes); head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...body.rows].map(row => [key(row.cells[column].textContent.trim()), row]);
      body.append(...rows.sort((a, b) => compare(a[0], b[0], up ? 1 : -1)).map(pair => pair[1]));
    });
  });
}
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  opened.forEach(one => one.open = true);
});
addEventListener("afterprint", () => opened.forEach(one => one.open = false));
"""


@dataclass(frozen=True)
class Table:
    """A table that the page lets one sort: cells of text, "–" where there is nothing."""

    title: str
    explanation: str  # HTML
    rows: pd.DataFrame
    links: Sequence[str] = ()  # of the first column


@dataclass(frozen=True)
class Part:
    """A heading with sentences and tables below it: how a law or another result without a figure enters the page."""

    title: str
    sentences: Sequence[str] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Block:
    """A piece of the page that the table of contents names."""

    title: str
    html: str
    level: int = 2


def document(title: str, before: str, blocks: Sequence[Block]) -> str:
    """The whole page: what comes before the contents, the contents, the blocks."""
    entries, body = [], []
    for number, block in enumerate(blocks):
        anchor = f"{number}-{re.sub(r'[^a-z0-9]+', '-', block.title.lower()).strip('-')}"
        name = html.escape(block.title)
        entries.append(f'<li><a href="#{anchor}">{f"<strong>{name}</strong>" if block.level == 1 else name}</a></li>')
        body.append(f'<section><h{block.level} id="{anchor}">{name}</h{block.level}>{block.html}</section>')
    # What happened comes first, the contents after it.
    first = body[:1] if blocks and blocks[0].level == 2 else []
    contents = f"<nav><h2>Contents</h2><ul>{''.join(entries)}</ul></nav>"
    whole = "\n".join([f"<h1>{html.escape(title)}</h1>", before, *first, contents, *body[len(first) :]])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
        f"<body>{whole}<script>{SCRIPT}</script></body></html>\n"
    )


def sentences(said: Iterable[str], name: str = "") -> str:
    """Sentences as a list."""
    return f'<ul class="{name}">{"".join(f"<li>{html.escape(one)}</li>" for one in said)}</ul>'


def folded(title: str, inside: str, name: str = "") -> str:
    """What is read when asked for."""
    return f'<details class="{name}"><summary>{html.escape(title)}</summary>{inside}</details>'


def notes(said: Sequence[str], many: str) -> Iterator[str]:
    """What a reader has to know; more than a few are folded under `many`."""
    if len(said) > MOST_NOTES:
        yield folded(many, sentences(said), "note")
    else:
        yield from (f'<p class="note">{html.escape(one)}</p>' for one in said)


def figure(picture: SavedPlot) -> Block:
    """A figure on white, as its colours were chosen for, its caption and its files."""
    title, base = html.escape(picture.title), html.escape(picture.name)
    files = ", ".join(f'<a href="figures/{base}.{form}">{form.upper()}</a>' for form in ("pdf", "svg"))
    return Block(
        picture.title,
        f'<figure><div class="wide card"><img alt="{title}" src="data:image/svg+xml;base64,'
        f'{base64.b64encode(picture.svg).decode()}"></div><figcaption>{html.escape(picture.caption)}'
        f' {files}, <a href="tables/{base}.csv">numbers</a></figcaption></figure>',
    )


def cannot_show(missing: Sequence[Missing]) -> Block:
    """Every figure that could not be drawn."""
    return Block("What this study cannot show, and why", sentences(f"{one.name}: {one.reason}." for one in missing))


def part(piece: Part) -> Block:
    """Sentences and tables under one heading."""
    inside = [f"<h3>{html.escape(one.title)}</h3>{sortable(one)}" for one in piece.tables]
    return Block(piece.title, (sentences(piece.sentences) if piece.sentences else "") + "".join(inside))


def table(piece: Table) -> Block:
    """A table under a heading of its own."""
    return Block(piece.title, sortable(piece))


def sortable(piece: Table) -> str:
    """The table with its explanation; a plain one where scripts do not run."""
    classes = [' class="n"' if _numeric(piece.rows[column]) else "" for column in piece.rows]
    heads = "".join(
        f'<th scope="col"{kind}>{html.escape(str(column))}</th>'
        for column, kind in zip(piece.rows, classes, strict=True)
    )
    lines = []
    for place, values in enumerate(piece.rows.itertuples(index=False)):
        cells = [html.escape(str(value)) for value in values]
        if piece.links:
            cells[0] = f'<a href="{html.escape(piece.links[place])}">{cells[0]}</a>'
        lines.append("".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(cells, classes, strict=True)))
    rows = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f'{piece.explanation}<div class="wide"><table class="sortable"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _numeric(column: pd.Series) -> bool:
    """Whether a column holds numbers, and little else: it is set to the right."""
    said = [str(value) for value in column if str(value) not in ("–", "clean")]
    return bool(said) and all(NUMBER.fullmatch(one) for one in said)
