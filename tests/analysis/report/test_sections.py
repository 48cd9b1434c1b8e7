"""The page folds figures that show only noise, and gives every reason for missing figures once."""

import re
from pathlib import Path

import pytest
from written_runs import write_run

from analysis.figures.plot import Missing, Noise, SavedPlot
from analysis.report import collect, figure_list, published_comparison
from analysis.report.build import write_report
from analysis.report.section import figure_sections, missing_section
from analysis.report.tables import published_table
from analysis.runs import load_runs
from data_prep.token_store import TokenStore
from repeat_study.config.run import Run

QUIET = [[[0.01, 0.02], [0.01, 0.03]], [[0.01, 0.02], [0.01, 0.04]], [[0.02, 0.01], [0.03, 0.01]]]


@pytest.fixture
def without_heads(tmp_path: Path, runs: list[Run], store: TokenStore, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(collect, "FIGURES", ("learning_curves", "induction_over_training", "heads", "pool_loss"))
    monkeypatch.setattr(collect, "SECTIONS", ())
    for repeats in (1, 4):
        fields = {"model": "2x32", "repeats": repeats, "repeated_fraction": 0.5}
        write_run(tmp_path, runs[0], store, [6.0, 5.0, 4.0], QUIET, **fields)
    return tmp_path


@pytest.mark.slow
def test_figures_of_heads_are_folded_into_one_sentence_if_none_formed(without_heads: Path) -> None:
    text = write_report(without_heads)[1].read_text()
    headings = re.findall(r"<h2 id[^>]*>(.*?)</h2>", text)
    assert headings.count("Induction heads: none formed") == 1
    assert not {"Heads at the end of training", "Induction heads and copying over training"} & set(headings)
    assert headings.index("Induction heads: none formed") == headings.index("Learning curves") + 1
    section = text[text.index('induction-heads-none-formed">Induction heads: none formed</h2>') :]
    section = section[: section.index("</section>")]
    sentences, folded = section.split("<details>")
    assert sentences.count("<li>") == 1 and "in any of the 2 runs" in sentences and "(null 0.0312)" in sentences
    assert (
        folded.count("<figure>") == 2
        and "Figures: Induction heads and copying over training; Heads at the end" in folded
    )
    (without_heads / "report.html").unlink()
    assert write_report(without_heads)[1].read_text() == text, "the record of the report includes noise"


def test_noise_of_different_kinds_has_different_sections() -> None:
    heads, pool = Noise("No heads", "None."), Noise("Nothing memorized", "Nothing.")
    figures = [
        SavedPlot(name, name, "", b"", noise) for name, noise in zip("abcd", (heads, None, pool, heads), strict=True)
    ]
    sections = figure_sections(figures)
    assert [section.title for section in sections] == ["No heads", "b", "Nothing memorized"]
    assert [[figure.name for figure in section.folded] for section in sections] == [["a", "d"], [], ["c"]]


def test_figures_that_are_missing_for_the_same_reason_share_a_sentence() -> None:
    section = missing_section(
        [
            Missing("size_multiplier.learning_rate-0.001", "no law"),
            Missing("heads", "no probe"),
            Missing("laws", "no law"),
        ]
    )
    assert section.sentences == ["Size multiplier, laws: no law.", "Heads: no probe."]


def test_every_figure_has_a_sentence_on_what_to_see_in_it() -> None:
    listed = {*figure_list.FIGURES, *figure_list.VARIANT_FIGURES, *figure_list.FINE_TUNING_FIGURES}
    assert set(figure_list.WHAT_TO_SEE) == listed | {figure_list.NAMED_POOL_FIGURE}


def test_every_row_compared_with_the_papers_has_something_to_compare_with(with_heads: Path) -> None:
    table = published_comparison.table(load_runs(with_heads))
    assert (table.source == "").any(), "the CSV file keeps rows without a published value"
    rows = published_table(table).rows
    assert len(rows) == (table.source != "").sum() > 0
    assert not rows.isin(["–", ""])[["published", "source"]].any(axis=None)


def test_a_qualitative_finding_replaces_a_missing_published_number(with_heads: Path) -> None:
    table = published_comparison.table(load_runs(with_heads)).iloc[:2]
    table = table.assign(
        published=[0.5, float("nan")], source=["H22, fig. 4", published_comparison.DOUBLE_DESCENT[0.5]]
    )
    rows = published_table(table).rows
    assert rows.published.tolist() == ["0.5", "long plateaus"] and rows.source.tolist() == [
        "H22, fig. 4",
        "H22, fig. 3",
    ]
