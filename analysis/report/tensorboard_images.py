"""The report's figures as images in TensorBoard."""

from collections.abc import Sequence
from pathlib import Path

from analysis.figures.plot import SavedPlot
from repeat_study.records.tensorboard.events import image, write_events


def write_images(folder: Path, pictures: Sequence[SavedPlot]) -> None:
    """Show figures/<name>.png of these pictures in TensorBoard, in place of what it was shown before.

    Raises InputError when the folder cannot be written.
    """
    figures = folder / "figures"
    write_events(
        figures,
        [
            image(f"report/{one.name}", one.title, one.caption, (figures / f"{one.name}.png").read_bytes())
            for one in pictures
        ],
    )
