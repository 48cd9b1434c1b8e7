"""Represent figures with their titles, captions and numbers, and save them."""

import io
import re
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from data_prep.files import write_atomically

matplotlib.rcParams["svg.hashsalt"] = (
    "repeat-study"  # without it, element ids are random and identical figures give different files
)
matplotlib.rcParams["pdf.fonttype"] = 42  # TrueType, because journals reject Type 3 fonts
UNDATED: dict[str, dict[str, None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}


@dataclass(frozen=True)
class Noise:
    """Why a figure shows only noise. The page collapses figures with the same reason into one section under this sentence."""

    title: str  # of the section
    sentence: str  # what was looked for, and the largest value with its null


def no_heads(sentence: str) -> Noise | None:
    """The reason why induction-head figures show only noise; None if `sentence` is empty."""
    return Noise("Induction heads: none formed", sentence) if sentence else None


@dataclass(frozen=True)
class SavedPlot:
    """The parts of a saved figure that the page needs. The large matplotlib figure is not kept."""

    name: str
    title: str
    caption: str
    svg: bytes
    noise: Noise | None = None

    @staticmethod
    def files(name: str) -> list[str]:
        """The paths of a figure's files, relative to the study's folder."""
        return [*(f"figures/{name}.{form}" for form in UNDATED), f"tables/{name}.csv"]


@dataclass(frozen=True)
class Plot:
    """A figure with the numbers behind it."""

    name: str  # file stem
    title: str
    caption: str  # what to look for, what the bars mean, and what the papers found
    figure: Figure
    table: pd.DataFrame
    noise: Noise | None = None  # None if the figure shows more than noise

    def save(self, folder: Path) -> SavedPlot:
        """Write figures/<name>.png, .svg and .pdf and tables/<name>.csv below `folder`. Call it once.

        Saving an identical figure writes identical bytes.
        """
        for subfolder in ("figures", "tables"):
            (folder / subfolder).mkdir(exist_ok=True)
        # The layout is computed once here; savefig would compute it again for every format. `draw_without_rendering` gives the same
        # bytes but takes 1.7 times as long.
        if engine := self.figure.get_layout_engine():
            engine.execute(self.figure)
        self.figure.set_layout_engine(None)
        box = self.figure.get_tightbbox().padded(0.1)
        saved = {form: io.BytesIO() for form in UNDATED}
        for form, file in saved.items():
            self.figure.savefig(file, format=form, dpi=150, bbox_inches=box, metadata=UNDATED[form])
        files = {form: file.getvalue() for form, file in saved.items()}
        files["svg"] = re.sub(
            rb"(\.\d\d)\d{2,}(?=[ \n\"])", rb"\1", files["svg"]
        )  # hundredths of a point are precise enough
        for form, content in files.items():
            write_atomically(folder / "figures" / f"{self.name}.{form}", content)
        write_atomically(folder / "tables" / f"{self.name}.csv", self.table.to_csv(index=False).encode())
        return SavedPlot(self.name, self.title, self.caption, files["svg"], self.noise)


@dataclass(frozen=True)
class Missing:
    """The name of a figure that cannot be made from the runs of this study, and the reason."""

    name: str
    reason: str
