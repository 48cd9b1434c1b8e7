"""Comparisons of studies find the factors in which they differ and pair the runs that agree in everything else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from written_runs import write_run

from analysis.measures.study_comparison import Studies, StudyComparison, compare_studies, largest_difference
from analysis.report import explorer
from analysis.report.compare import write_comparison
from analysis.runs import load_runs
from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.config.run import Run

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, runs: list[Run], store: TokenStore) -> Write:
    """Write a study whose loss at R > 1 is `cost` above that of its clean run, and `cost` / 10 more for every seed."""

    def write_study(
        name: str, cost: float, seeds: range = range(3), repeats: tuple[int, ...] = (1, 4), **factors: Any
    ) -> None:
        for seed in seeds:
            for value in repeats:
                end = 4.0 + seed + (cost * (1 + seed / 10) if value > 1 else 0.0)
                fields = {"model": "2x32", "repeats": value, "repeated_fraction": 0.5, "seed": seed, **factors}
                write_run(tmp_path / name, runs[0], store, [6.0, 5.0, end], **fields)

    return write_study


def loaded(folder: Path, *names: str) -> Studies:
    return [(name, load_runs(folder / name)) for name in names]


def arm(comparison: StudyComparison, metric: str = "test_loss", repeats: int = 4) -> pd.Series:
    table = comparison.differences
    (row,) = [row for _, row in table[(table.metric == metric) & (table.repeats == repeats)].iterrows()]
    return row


def test_one_factor_is_found_and_differences_are_paired_by_seed(write: Write, tmp_path: Path) -> None:
    write("slow", 0.1, learning_rate=1e-3)
    write("fast", 0.2, learning_rate=3e-3, repeats=(1, 4, 16))
    comparison = compare_studies(loaded(tmp_path, "slow", "fast"))
    (factor,) = comparison.factors
    assert (factor.name, factor.values) == ("learning_rate", {"slow": [1e-3], "fast": [3e-3]})
    row = arm(comparison)
    assert row["mean"] == pytest.approx(0.11) and row.seeds == 3 and row.paired
    assert row["mean"] - row.low == pytest.approx(4.303 * 0.01 / 3**0.5, rel=1e-3), (
        "seeds differ by 1 nat, pairs by 0.01"
    )
    assert arm(comparison, "excess")["mean"] == pytest.approx(0.11)
    assert arm(comparison, repeats=1)["mean"] == pytest.approx(0.0)
    assert comparison.alone == {"slow": 0, "fast": 3}, "R = 16 has no counterpart"


def test_three_factors_are_found_and_named(write: Write, tmp_path: Path) -> None:
    write("one", 0.1, learning_rate=1e-3, weight_decay=0.1)
    write("two", 0.3, learning_rate=2e-3, weight_decay=0.2, spacing="uniform")
    studies = loaded(tmp_path, "one", "two")
    comparison = compare_studies(studies)
    assert {factor.name for factor in comparison.factors} == {"learning_rate", "weight_decay", "order"}
    assert arm(comparison)["mean"] == pytest.approx(0.22)
    page = write_comparison(studies, tmp_path / "out", "repeat-study compare one two")
    text = page.read_text()
    assert "What changes with the learning rate, the weight decay, and the order of the copies?" in text
    assert "0.001 (one); 0.002 (two)" in text and "passes (one); uniform (two)" in text
    assert "The studies differ in 3 factors, so a difference cannot be attributed to one of them." in text
    assert "0.22 nats/token [0.17, 0.27] above one" in text
    assert 'id="explorer-data"' in text and "repeat-study compare one two" in text
    content = json.loads(text.partition('id="explorer-data">')[2].partition("</script>")[0])
    start, panels = content["start"], content["panels"]
    assert panels[start["panel"]]["arms"][start["arm"]]["name"] == "R = 4, two", "the arm with the largest difference"
    assert len(pd.read_csv(tmp_path / "out" / "tables" / "study_pairs.csv").query("metric == 'test_loss'")) == 6
    assert (tmp_path / "out" / "figures" / "study_losses.svg").is_file()


def test_runs_in_both_studies_are_left_out(write: Write, tmp_path: Path) -> None:
    write("passes", 0.1)
    write("uniform", 0.2, spacing="uniform")  # has the same clean runs
    comparison = compare_studies(loaded(tmp_path, "passes", "uniform"))
    assert [factor.name for factor in comparison.factors] == ["order"] and comparison.in_both == 3
    assert set(comparison.differences.repeats) == {4}


def test_studies_without_common_seeds_are_compared_without_pairs(write: Write, tmp_path: Path) -> None:
    write("one", 0.1, seeds=range(2))
    write("two", 0.1, seeds=range(2, 4))
    row = arm(compare_studies(loaded(tmp_path, "one", "two")))
    assert not row.paired and row["mean"] == pytest.approx(2.02)
    assert row.low < 2.02 - 3 and row.high > 2.02 + 3, (
        "Welch's interval with 2 degrees of freedom and 1 nat between seeds"
    )


def test_studies_with_nothing_in_common_are_refused(write: Write, tmp_path: Path) -> None:
    write("one", 0.1, repeats=(4,), model="2x32")
    write("two", 0.1, repeats=(4, 16), repeated_fraction=0.25)
    write("three", 0.1, repeats=(1,), model="2x64")
    assert [factor.name for factor in compare_studies(loaded(tmp_path, "one", "two")).factors] == ["repeated_fraction"]
    with pytest.raises(InputError, match=r"one and three: no finished run has a counterpart .* differ \(model\)"):
        compare_studies(loaded(tmp_path, "one", "three"))


@pytest.mark.parametrize(
    ("factor", "name"), [({"repeats": (1, 16)}, "R = 16, two"), ({"repeated_fraction": 0.25}, "R = 4, two")]
)
def test_the_page_opens_at_the_headline_if_the_studies_differ_in_r_or_f(
    factor: dict[str, Any], name: str, write: Write, tmp_path: Path
) -> None:
    write("one", 0.1)
    write("two", 0.3, **factor)
    studies = loaded(tmp_path, "one", "two")
    largest = largest_difference(compare_studies(studies))
    data = json.loads(explorer.of_studies(studies, largest) or "")
    panel = data["panels"][data["start"]["panel"]]
    assert panel["arms"][data["start"]["arm"]]["name"] == name
    fraction = factor.get("repeated_fraction", 0.5)
    assert f"f = {fraction:.0%}" in panel["title"]
