"""The user's table of models, and the figures of their scores."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.figures.plot import Missing, Plot
from analysis.probed_models.figures import copying, prefix_matching
from analysis.probed_models.listed_models import ListedModel, read_models
from analysis.probed_models.scores import differing_tokens, score_table
from data_prep.errors import InputError

HEADER = "path,params,tokens,fraction,repeats,seed\n"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "models.csv"
    path.write_text(text)
    return path


def test_paths_start_at_the_folder_of_the_table_and_clean_controls_have_no_fraction(tmp_path: Path) -> None:
    lines = "a,34M,1B,0.1,1,0\n/b,34M,1B,0.1,100,0\n"
    first, second = read_models(written(tmp_path, HEADER + lines))
    assert (first.path, first.clean, first.fraction, first.params) == (tmp_path / "a", True, 0.0, 34e6)
    assert (second.path, second.clean, second.fraction, second.repeats) == (Path("/b"), False, 0.1, 100.0)


def test_models_with_r_0_are_the_controls_if_there_are_any(tmp_path: Path) -> None:
    models = read_models(written(tmp_path, HEADER + "a,34M,1B,0,0,0\nb,34M,1B,0.1,1,0\nc,34M,1B,0.1,3.5,0\n"))
    assert [model.clean for model in models] == [True, False, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,params,tokens,fraction,repeats\na,1M,1M,0,1\n", "missing column seed; found path, params"),
        (HEADER, "no models below the header"),
        (HEADER.replace(",", ";"), "columns are separated by ';'; expected a comma"),
        (HEADER + "a,1M,1M,0,1\n", "line 2: 5 cells, but the header has 6"),
        (HEADER + "a,1M,1M,0,1,\n", "line 2: seed is ''; expected a value"),
        (HEADER + ",1M,1M,0,1,0\n", "line 2: path is ''; expected a value"),
        (HEADER + "a,few,1M,0,1,0\n", "line 2: params is 'few'; expected a count"),
        (HEADER + "a,1M,1M,1.5,1,0\n", "line 2: fraction is '1.5'; expected a number from 0 to 1"),
        (HEADER + "a,1M,1M,0.5,-1,0\n", "line 2: repeats is '-1'; expected a number from 0 to 1e12"),
        (HEADER + "a,1M,1M,0,10,0\n", "line 2: fraction is 0 but repeats is 10; expected the fraction"),
        (
            HEADER + "a,1M,1M,0,0,0\nb,1M,1M,0,1,0\n",
            "line 3: fraction is 0 but repeats is 1; .* repeats = 0 for a clean",
        ),
        (HEADER + "a,1M,1M,0,1,0\nb/../a,2M,1M,0,1,0\n", "line 3: the same folder as line 2"),
        (HEADER + "a,1M,1M,0.1,1,0\nb,1M,1M,0.5,1,0\n", "line 3: the same training and seed as line 2"),
    ],
)
def test_bad_tables_are_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_models(written(tmp_path, text))


def record(value: float, **row: float) -> dict[str, Any]:
    row = {"copying_loss": value, "prefix_matching": value / 10, "prefix_matching_null": 0.03} | row
    return {"row": row, "untrained": {"row": {"prefix_matching": 0.02}}, "paragraph": {"token": ["a", " b"]}}


def models(*repeats: float, fraction: float = 0.5, params: float = 1e6, seed: str = "0") -> list[ListedModel]:
    control = min(repeats)
    return [
        ListedModel(
            "", f"{params}-{r}", Path("x"), params, 1e9, 0.0 if r == control else fraction, r, seed, r == control
        )
        for r in repeats
    ]


def test_the_table_has_every_score_with_its_null_and_the_untrained_models_score() -> None:
    table = score_table(models(1, 10), [record(2.0), record(3.0, previous_token=0.5)])
    assert table.copying_loss.tolist() == [2.0, 3.0] and table.prefix_matching_null.tolist() == [0.03, 0.03]
    assert table.untrained_prefix_matching.tolist() == [0.02, 0.02]
    assert table.previous_token.isna().tolist() == [True, False]
    assert "pool_loss" not in table, "no model has this score"


def test_figures_have_one_line_per_size_and_fraction_with_the_range_over_seeds() -> None:
    listed = [
        *models(0, 1, 10, 100),
        *models(0, 1, 10, 100, seed="1"),
        *models(0, 10, fraction=0.1, params=4e6),
    ]
    values = [5, 4, 3, 2, 6, 5, 5, 2, 1, 0.5]
    table = score_table(listed, [record(value) for value in values])
    plot = copying(table)
    assert isinstance(plot, Plot) and isinstance(prefix_matching(table), Plot)
    rows = plot.table[(plot.table.params == 1e6) & (plot.table.repeats == 10)]
    assert rows[["fraction", "mean", "low", "high", "seeds"]].to_numpy().tolist() == [[0.5, 4.0, 3.0, 5.0, 2]]
    assert set(plot.table.fraction) == {0.5, 0.1} and set(plot.table[plot.table.fraction == 0.1].params) == {4e6}
    left, right = plot.figure.axes
    assert [text.get_text() for text in left.get_xticklabels()] == ["clean", "1", "10", "100"]
    assert left.get_xscale() == "log" and 0 < left.get_xticks()[0] < 1
    assert [left.get_title(), right.get_title()] == ["f = 50%", "f = 10%"]


def test_a_figure_needs_two_values_of_r() -> None:
    assert isinstance(copying(score_table(models(1), [record(1)])), Missing)


def test_models_with_different_tokens_are_detected() -> None:
    other = record(1.0) | {"paragraph": {"token": ["ab"]}}
    assert differing_tokens([record(1.0), other]) and not differing_tokens([record(1.0), record(2.0), {"row": {}}])
    assert pd.isna(score_table(models(1, 10), [record(1), {"row": {}, "untrained": {"row": {}}}]).copying_loss[1])
