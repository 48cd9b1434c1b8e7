"""Render the report as one HTML file that needs no network access and works on phones and in print."""

import re
from collections.abc import Iterator

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from analysis.figures.plot import SavedPlot
from analysis.report.section import Page, Table

# Colors of token probabilities, evenly spaced in the square root of probability, because small models are rarely confident.
COLOR_STEPS = 10
MOST_NOTES = 8  # notes of one kind that are shown in full; a larger number is collapsed under a summary
UNBROKEN = re.compile(r"\w+ = [\w.,%]*[\w%]|\w+(?:-\w+)+")
NUMBER = re.compile(r"[≤≥]?[+−-]?[\d,]*\.?\d+(e[+-]?\d+)?%?( to .*)?")


def render(page: Page) -> str:
    """Render the page as one HTML document."""
    anchors = [
        f"{number}-{re.sub(r'[^a-z0-9]+', '-', section.title.lower()).strip('-')}"
        for number, section in enumerate(page.sections)
    ]
    return render_template(
        "report.html.j2",
        page=page,
        entries=list(zip(anchors, page.sections, strict=True)),
        most_notes=MOST_NOTES,
        scale=color_scale(),
    )


def color_scale() -> list[str]:
    """The colors of token probabilities, from low through middle to high, each as a mix of two CSS colors."""
    return [_color(step / (COLOR_STEPS - 1) * 2) for step in range(COLOR_STEPS)]


def _color(share: float) -> str:
    (low, high), mixed = (("low", "middle"), share) if share <= 1 else (("middle", "high"), share - 1)
    return f"var(--{low}) {1 - mixed:.0%}, var(--{high})"


def render_template(name: str, **values: object) -> str:
    """Render a template from templates/ with these values. Text is HTML-escaped."""
    environment = Environment(
        loader=PackageLoader("analysis.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "zip": zip,
        "data_url": _data_url,
        "width": _width,
        "cells": _cells,
        "column_classes": _column_classes,
        "unbroken": _unbroken,
    }
    return environment.get_template(name).render(**values)


def _unbroken(text: str) -> Markup:
    """Keep "R = 30" and hyphenated words such as "2x128-attn" on one line."""
    return Markup(UNBROKEN.sub(r'<span class="unbroken">\g<0></span>', str(escape(text))))


def _data_url(figure: SavedPlot) -> Markup:
    """The figure as a URL, to be placed between double quotes. It is a quarter shorter than in base64."""
    drawing = re.sub(
        r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>", "", figure.svg.decode(), flags=re.DOTALL
    )
    quoted = drawing.replace("%", "%25").replace("#", "%23").replace("'", "%27").replace('"', "'")
    return Markup("data:image/svg+xml," + re.sub(r"\s+", " ", quoted).replace("&", "%26"))


def _width(figure: SavedPlot) -> int:
    """The figure's width in CSS pixels at its full size."""
    match = re.search(rb'<svg[^>]* width="([\d.]+)pt"', figure.svg)
    assert match, figure.name
    return round(float(match[1]) * 4 / 3)


def _cells(table: Table) -> Iterator[list[tuple[str, str, str]]]:
    """The text, CSS class and link of every cell, row by row."""
    classes = _column_classes(table)
    for row, values in enumerate(table.rows.itertuples(index=False)):
        links = [table.links[row] if table.links else "", *[""] * (len(classes) - 1)]
        yield list(zip(map(str, values), classes, links, strict=True))


def _column_classes(table: Table) -> list[str]:
    """The CSS class of every column: "n" for numeric columns, which are right-aligned."""
    return ["n" if _is_numeric(table.rows[column]) else "" for column in table.rows]


def _is_numeric(column: pd.Series) -> bool:
    cells = [str(value) for value in column if str(value) not in ("–", "clean")]
    return bool(cells) and all(NUMBER.fullmatch(cell) for cell in cells)
