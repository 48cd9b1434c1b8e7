"""The page as data: sections of sentences, figures and tables, which `html` renders."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.figures.plot import Missing, SavedPlot


@dataclass(frozen=True)
class Table:
    """A table that readers can sort: cells of text, "–" where there is no number."""

    explanation: str
    rows: pd.DataFrame
    csv: str  # tables/<csv>.csv has all digits
    title: str = ""
    links: Sequence[str] = ()  # for the cells of the first column


@dataclass(frozen=True)
class Section:
    """A heading with sentences, a figure and tables below it."""

    title: str
    sentences: Sequence[str] = ()
    details: Sequence[str] = ()  # more sentences, folded
    figure: SavedPlot | None = None
    tables: Sequence[Table] = ()
    level: int = 2  # of the heading; 1 for a variant of the study


@dataclass(frozen=True)
class Note:
    """Warnings of one kind; `summary` replaces them if there are many."""

    sentences: Sequence[str]
    summary: str = ""


@dataclass(frozen=True)
class Page:
    """The whole report."""

    title: str
    introduction: str
    notes: Sequence[Note]
    token_page: str  # file name, empty if there is none
    sections: Sequence[Section]


def missing_section(missing: Sequence[Missing]) -> Section:
    """Every figure or section that this study lacks the runs for."""
    sentences = [f"{figure.name.replace('_', ' ').capitalize()}: {figure.reason}." for figure in missing]
    return Section("Not shown, and why", sentences)
