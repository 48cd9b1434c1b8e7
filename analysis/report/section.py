"""Represent the page as data: sections with sentences, figures and tables. `html` renders them."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.figures.plot import Missing, SavedPlot


@dataclass(frozen=True)
class Table:
    """A table of text that readers can sort; a missing number is "–"."""

    explanation: str
    rows: pd.DataFrame
    csv: str  # tables/<csv>.csv contains the unrounded numbers
    title: str = ""
    links: Sequence[str] = ()  # of the cells in the first column; empty if they have none


@dataclass(frozen=True)
class Section:
    """A heading with sentences, a figure and tables below it."""

    title: str
    sentences: Sequence[str] = ()
    details: Sequence[str] = ()  # more sentences, folded by default
    figure: SavedPlot | None = None
    tables: Sequence[Table] = ()
    level: int = 2  # heading level; 1 for a variant of the study


@dataclass(frozen=True)
class Note:
    """Warnings of one kind. If there are many, they are folded below `summary`."""

    sentences: Sequence[str]
    summary: str = ""


@dataclass(frozen=True)
class Page:
    """The content of report.html."""

    title: str
    introduction: str
    notes: Sequence[Note]
    token_page: str  # file name, empty if there is none
    sections: Sequence[Section]


def missing_section(missing: Sequence[Missing]) -> Section:
    """A section that lists the figures and sections for which this study lacks runs, with reasons."""
    sentences = [f"{figure.name.replace('_', ' ').capitalize()}: {figure.reason}." for figure in missing]
    return Section("Omitted figures and sections", sentences)
