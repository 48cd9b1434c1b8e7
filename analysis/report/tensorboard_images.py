"""Write the report's figures to TensorBoard as images."""

from collections.abc import Sequence
from pathlib import Path

from analysis.figures.plot import SavedPlot
from repeat_study.records.tensorboard.events import event_files, image, write_events


def write_images(folder: Path, figures: Sequence[SavedPlot]) -> list[str]:
    """Write each figure's figures/<name>.png to TensorBoard, replacing the last report's images.

    Returns the paths of the event files, relative to `folder`. Raises InputError if the folder cannot be written.
    """
    directory = folder / "figures"
    images = [
        image(f"report/{figure.name}", figure.title, figure.caption, (directory / f"{figure.name}.png").read_bytes())
        for figure in figures
    ]
    write_events(directory, images)
    return [f"figures/{path.name}" for path in event_files(directory)]
