"""The part of a report that is about runs which start from others: sentences, figures, a row per run."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd

from analysis.figures import fine_tuning_curves, forgetting, heads_over_fine_tuning, ossification
from analysis.figures.plot import Missing, Plot, SavedPlot
from analysis.measures import fine_tuning
from analysis.report import html as page
from analysis.report.html import Block, Table
from analysis.runs import Runs

FIGURES: tuple[Callable[[Runs], Plot | Missing], ...] = (
    ossification.plot,
    fine_tuning_curves.plot,
    forgetting.plot,
    heads_over_fine_tuning.plot,
)


@dataclass(frozen=True)
class FineTuning:
    """What is said of a study's fine-tuned runs; `numbers` is `fine_tuning.table`."""

    numbers: pd.DataFrame
    pictures: list[SavedPlot]
    missing: list[Missing]

    def blocks(self) -> Iterator[Block]:
        """The pieces of the page, what happened first."""
        yield Block("What fine-tuning showed", page.sentences(fine_tuning.sentences(self.numbers), "short"))
        yield from map(page.figure, self.pictures)
        if self.missing:
            yield page.cannot_show(self.missing)
        if len(self.numbers):
            links = [f"{name}/" for name in self.numbers.run]
            yield page.table(Table("Fine-tuned runs", fine_tuning.EXPLANATION, fine_tuning.short(self.numbers), links))


def section(runs: Runs) -> FineTuning:
    """Draw and save the figures; nothing else is written."""
    pieces = [make(runs) for make in FIGURES]
    pictures = [piece.save(runs.folder) for piece in pieces if isinstance(piece, Plot)]
    return FineTuning(fine_tuning.table(runs), pictures, [piece for piece in pieces if isinstance(piece, Missing)])
