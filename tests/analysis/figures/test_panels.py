from pathlib import Path

import pandas as pd
import pytest
from written_runs import write_run

from analysis.figures import headline
from analysis.figures.panels import grid_of_axes, legend_of_repeats, rows_and_columns
from analysis.figures.plot import Plot
from analysis.figures.style import styles
from analysis.runs import load_runs
from data_prep.token_store import TokenStore
from repeat_study.config.run import Run


def test_panels_fill_their_rows() -> None:
    shapes = {panels: rows_and_columns(panels) for panels in range(1, 17)}
    assert [shapes[panels] for panels in (1, 4, 5, 6, 8, 9)] == [(1, 1), (1, 4), (2, 3), (2, 3), (2, 4), (3, 3)]
    for panels, (rows, columns) in shapes.items():
        assert columns <= 4 and panels <= rows * columns < panels + rows, panels


@pytest.mark.parametrize(("repeats", "labels"), [([1, 3], ["clean", "R = 3"]), ([3], ["R = 3"])])
def test_the_legend_lists_clean_runs_only_if_there_are_any(repeats: list[int], labels: list[str]) -> None:
    figure, axes = grid_of_axes(1, 1)
    legend_of_repeats(figure, axes[0][0], pd.Series(repeats), styles([3]))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == labels


def test_the_headline_names_sizes_with_their_fraction(tmp_path: Path, runs: list[Run], store: TokenStore) -> None:
    for model in ("2x32", "2x64"):
        for repeats, end in ((1, 3.0), (4, 3.5)):
            write_run(tmp_path, runs[0], store, [6.0, end], model=model, repeats=repeats, repeated_fraction=0.5)
    plot = headline.plot(load_runs(tmp_path))
    assert isinstance(plot, Plot)
    labels = [text.get_text() for text in plot.figure.axes[0].get_legend().get_texts()]
    assert len(labels) == 2 and all(label.endswith("f = 50%") for label in labels), labels
