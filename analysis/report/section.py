"""Represent the page as data: sections with sentences, figures and tables. `html` renders them."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.figures.plot import Missing, Noise, SavedPlot
from analysis.report.figure_list import WHAT_TO_SEE
from analysis.report.first_screen import FirstScreen


@dataclass(frozen=True)
class Table:
    """A table of text cells that readers can sort; missing numbers appear as "–"."""

    explanation: str
    rows: pd.DataFrame
    csv: str  # tables/<csv>.csv contains the unrounded numbers
    title: str = ""
    links: Sequence[str] = ()  # for the cells in the first column; empty if there are none


@dataclass(frozen=True)
class Section:
    """A heading with sentences, a figure and tables below it."""

    title: str
    sentences: Sequence[str] = ()
    details: Sequence[str] = ()  # more sentences, collapsed by default
    figure: SavedPlot | None = None
    folded: Sequence[SavedPlot] = ()  # figures that show only noise; the sentences say why
    tables: Sequence[Table] = ()
    level: int = 2  # heading level; 1 for a variant of the study
    see: str = ""  # what to look for, in one sentence


@dataclass(frozen=True)
class Note:
    """Warnings of one kind. If there are many, they are collapsed under `summary`."""

    sentences: Sequence[str]
    summary: str = ""


@dataclass(frozen=True)
class Page:
    """The content of report.html."""

    title: str
    first: FirstScreen
    introduction: str
    notes: Sequence[Note]
    token_page: str  # file name, empty if there is none
    sections: Sequence[Section]
    provenance: str  # the last line: when the page was written, and by which version
    data: str = ""  # the JSON object of `explorer.page_data`, empty if there is nothing to move


def figure_sections(figures: Sequence[SavedPlot]) -> list[Section]:
    """One section per figure. Figures that show only noise for the same reason share the first one's section."""
    sections = []
    folded: set[Noise] = set()
    for figure in figures:
        if figure.noise is None:
            sections.append(
                Section(figure.title, figure=figure, see=WHAT_TO_SEE.get(figure.name.partition(".")[0], ""))
            )
        elif figure.noise not in folded:
            folded.add(figure.noise)
            same = [other for other in figures if other.noise == figure.noise]
            sections.append(Section(figure.noise.title, [figure.noise.sentence], folded=same))
    return sections


def missing_section(missing: Sequence[Missing]) -> Section:
    """A section on what was omitted for lack of runs. Figures that are missing for the same reason share a sentence."""
    names: dict[str, list[str]] = {}
    for figure in missing:
        names.setdefault(figure.reason, []).append(figure.name.partition(".")[0].replace("_", " "))
    sentences = [f"{', '.join(same).capitalize()}: {reason}." for reason, same in names.items()]
    return Section("Omitted figures and sections", sentences)
