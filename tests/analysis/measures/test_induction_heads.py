"""Formation and loss of induction heads; reading heads.parquet and paragraph.parquet."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from head_runs import SIZES, score_of
from written_runs import NULL, TOKENS

from analysis.measures.induction_heads import formation
from analysis.runs import load_runs


def curve(scores: list[float], nulls: float = 0.04, half: float | None = 0.01) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "tokens": np.arange(len(scores)) * 100,
            "prefix_matching": scores,
            "prefix_matching_ci": half,
            "prefix_matching_null": nulls,
        }
    )


@pytest.mark.parametrize(
    ("scores", "formed_at", "lost_at"),
    [
        ([0.03, 0.04, 0.2, 0.3, 0.4], 200, None),
        ([0.03, 0.3, 0.04, 0.3, 0.4], 300, None),  # a single high score is not a head
        ([0.03, 0.3, 0.04, 0.04, 0.04], None, None),  # and no head can be lost after it
        ([0.03, 0.3, 0.4, 0.04, 0.04], 100, 300),
        ([0.03, 0.3, 0.4, 0.04, 0.3], 100, None),  # a single low score does not mean that a head is lost
        ([0.03, 0.3, 0.4, 0.08, 0.085], 100, None),  # scores close to twice the null
        ([0.03, 0.04, 0.04, 0.04, 0.3], None, None),  # a single high score at the end is not enough
        ([0.03, 0.04, 0.05, 0.06, 0.07], None, None),
        ([0.03, 0.04, 0.05, 0.06, 0.089], None, None),  # the last interval extends below twice the null
        ([0.15, 0.2, 0.25, 0.28, 0.3], None, None),  # the untrained model already has half of the final score
    ],
)
def test_heads_have_formed_once_the_score_exceeds_twice_its_null_twice_in_a_row(
    scores: list[float], formed_at: float | None, lost_at: float | None
) -> None:
    result = formation(curve(scores))
    expected = [float("nan") if value is None else value for value in (formed_at, lost_at)]
    assert [result.formed_at, result.lost_at] == pytest.approx(expected, nan_ok=True)


def test_no_head_forms_if_the_null_grows_with_the_score() -> None:
    rising = curve([0.03, 0.2, 0.3, 0.4])
    assert formation(rising).formed_at == 100
    assert np.isnan(formation(rising.assign(prefix_matching_null=[0.03, 0.1, 0.2, 0.2])).formed_at)


def test_heads_and_paragraphs_are_read_as_they_were_written(with_heads: Path) -> None:
    runs = load_runs(with_heads)
    name = runs.done.query("model == '2x64' and repeats == 4").name.item()
    table = runs.heads(name)
    assert len(table) == 4 * 4 and sorted(table.tokens.unique()) == [0, 21 * 256, 43 * 256, 64 * 256]
    last = table[table.step == 64]
    assert last.prefix_matching.tolist() == [NULL, 0, NULL / 2, score_of(SIZES["2x64"] / 2)]
    assert list(zip(last.layer, last["head"], strict=True)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    paragraph = runs.paragraph(name)
    assert paragraph[paragraph.step == 64].token.tolist() == TOKENS * 3
    (with_heads / name / "heads.parquet").unlink()
    assert runs.heads(name).empty
