"""Fine-tuned runs with planted losses are compared with runs from scratch."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from written_runs import HALF, NULL, write_run

from analysis.figures import fine_tuning_curves, forgetting, heads_over_fine_tuning, ossification
from analysis.figures.plot import Missing, Plot
from analysis.laws.study_fits import study_points
from analysis.measures import fine_tuning, headline
from analysis.measures.effective_size import PowerLaw, clean_law
from analysis.measures.induction_heads import none_before_or_after
from analysis.report import collect, fine_tuning_section
from analysis.report.build import write_report
from analysis.report.published_comparison import table as comparison_table
from analysis.runs import Runs, load_runs
from data_prep.token_store import TokenStore
from repeat_study.config.run import Parent, Run

SIZES = {"2x16": 6144, "2x32": 24576, "2x64": 98304, "2x128": 393216}
NO_HEADS = [[[0.03], [0.03]]] * 4


def law(size: float) -> float:
    return float(2 + 40 * size**-0.3)


def parent(model: str, repeats: int, label: str = "") -> Parent:
    label = f"{model}-{label or (f'f0.9-R{repeats}' if repeats > 1 else 'clean')}-s0"
    fields = {"repeats": repeats, "repeated_fraction": 0.9 if repeats > 1 else 0.0, "seed": 0}
    return Parent(study="parents", label=label, identity=f"{repeats:064x}", **fields)  # type: ignore[arg-type]


@pytest.fixture
def tuned(tmp_path: Path, runs: list[Run], store: TokenStore) -> Path:
    """Runs from scratch with L = 2 + 40·N^-0.3. A clean parent doubles the effective size; a parent with R = 30 divides it by 1.6."""

    def write(model: str, end: float, **fields: Any) -> None:
        write_run(tmp_path, runs[0], store, [6.0, 5.0, end + 0.1, end], NO_HEADS, model=model, repeats=1, **fields)

    for model, size in SIZES.items():
        write(model, law(size))
    for model in ("2x32", "2x64"):
        size = SIZES[model]
        write(model, law(2 * size), parent=parent(model, 1), of_parent=[[3, 3, 3]] * 3 + [[4, 4, 4]])
        forgotten = [[5, 1, 4], [5, 2, 4], [4.5, 3, 4], [4.5, 3.5, 4]]
        write(model, law(size / 1.6), parent=parent(model, 30), of_parent=forgotten)
    return tmp_path


@pytest.fixture
def loaded(tuned: Path) -> Runs:
    return load_runs(tuned)


def test_fine_tuned_runs_are_left_out_of_the_clean_law(loaded: Runs) -> None:
    assert len(loaded.done) == 4 and loaded.fine_tuned and len(loaded.fine_tuned.done) == 4
    assert len(loaded.combined.table) == 8 and len(study_points(loaded).points) == 4
    assert isinstance(clean := clean_law(loaded), PowerLaw) and clean.points == 4
    assert clean.exponent == pytest.approx(0.3, abs=0.01)
    assert [label for label, _ in loaded.variants()] == [""], (
        "half the learning rate does not make fine-tuned runs another experiment"
    )


def test_the_planted_effective_size_of_a_start_is_found(loaded: Runs) -> None:
    numbers = fine_tuning.table(loaded).set_index(["start", "model"])
    assert numbers.multiplier["clean parent"].tolist() == pytest.approx([2.0, 2.0], rel=0.01)
    assert numbers.multiplier["parent with f = 90%, R = 30"].tolist() == pytest.approx([1 / 1.6] * 2, rel=0.01)
    assert numbers.multiplier["from scratch"].isna().all() and numbers.excess["from scratch"].eq(0).all()
    assert numbers.excess[("clean parent", "2x64")] == pytest.approx(law(2 * 98304) - law(98304))
    pairs = fine_tuning.paired(fine_tuning.table(loaded))
    assert (pairs.multiplier_clean / pairs.multiplier_repeated).tolist() == pytest.approx([3.2, 3.2], rel=0.01)


def test_sentences_report_effects_and_null_results(loaded: Runs) -> None:
    sentences = fine_tuning_section.sentences(fine_tuning.table(loaded))
    text = " ".join(sentences)
    assert sentences[0].startswith("Clean parent: better than training from scratch. The difference in test loss is -")
    assert "Parent with f = 90%, R = 30: worse than training from scratch. The difference in test loss is +" in text
    assert "(higher in 2 of 2 pairs) and makes the effective size 3.20 times smaller" in text
    assert "The gap to the loss on the parent's test text changes from 4.00 to 1.00 nats, so 25% of it remains" in text
    assert "No run has a head whose prefix matching exceeds twice its null" in text
    numbers = fine_tuning.table(loaded)
    assert (
        "No fine-tuned run has finished yet"
        in fine_tuning_section.sentences(numbers[numbers.start == "from scratch"])[0]
    )


def test_only_repeated_parents_are_compared_with_the_paper(loaded: Runs) -> None:
    comparison = comparison_table(loaded)
    comparison = comparison[comparison.quantity.str.startswith("size multiplier after fine-tuning")].set_index("where")
    assert comparison.published["2x64 (98.3k), parent with f = 90%, R = 30"] == pytest.approx(0.625)
    assert comparison.here["2x64 (98.3k), parent with f = 90%, R = 30"] == pytest.approx(0.625, rel=0.01)
    assert comparison.published.isna().sum() == 2


def test_figures_of_fine_tuning_show_the_planted_numbers(loaded: Runs) -> None:
    plots = [module.plot(loaded) for module in (ossification, fine_tuning_curves, forgetting, heads_over_fine_tuning)]
    assert all(isinstance(plot, Plot) and len(plot.table) for plot in plots)
    left, right = plots[0].figure.axes  # type: ignore[union-attr]
    lines = {line.get_label(): line for line in left.containers}
    assert set(lines) == {"from scratch", "clean parent", "parent with f = 90%, R = 30"}
    (measured,) = [bars for bars in right.containers if bars.get_label() == "clean parent"]
    assert measured.lines[0].get_ydata().tolist() == pytest.approx([2.0, 2.0], rel=0.01)  # type: ignore[attr-defined]
    pools = [line for line in plots[2].figure.axes[2].lines if len(line.get_ydata()) == 4]  # type: ignore[union-attr]
    assert [line.get_ydata().tolist() for line in pools] == [[5, 5, 4.5, 4.5], [1, 2, 3, 3.5], [4, 4, 4, 4]]
    alone = Runs(loaded.folder, loaded.table, loaded.evaluations, [], [])
    assert isinstance(ossification.plot(alone), Missing)


def test_parents_of_different_r_are_labeled_and_not_connected(
    tmp_path: Path, runs: list[Run], store: TokenStore
) -> None:
    for model, repeats in (("2x32", 30), ("2x64", 100)):
        for parents in (None, parent(model, 1), parent(model, repeats)):
            fields: dict[str, Any] = {"parent": parents, "of_parent": [[3, 3, 3]] * 4} if parents else {}
            write_run(tmp_path, runs[0], store, [6.0, 5.0, 4.0, 4.0], NO_HEADS, model=model, repeats=1, **fields)
    loaded = load_runs(tmp_path)
    table = fine_tuning.starts(loaded)
    start = "parent with f = 90%"
    assert set(table.start) == {"from scratch", "clean parent", start}
    assert fine_tuning.with_repeats(start, table[(table.start == start) & (table.model == "2x64")].parent_repeats) == (
        "parent with f = 90%, R = 100"
    )
    assert fine_tuning.with_repeats(start, table[table.start == start].parent_repeats) == start
    left = ossification.plot(loaded).figure.axes[0]  # type: ignore[union-attr]
    (bars,) = [bars for bars in left.containers if bars.get_label() == start]
    assert bars.lines[0].get_linestyle() == "None" and [text.get_text() for text in left.texts] == ["R = 30", "R = 100"]
    curves = fine_tuning_curves.plot(loaded)
    titles = [ax.get_title() for ax in curves.figure.axes]  # type: ignore[union-attr]
    assert titles == ["2x32 (24.6k), parent's R = 30", "2x64 (98.3k), parent's R = 100"]


def test_every_r_in_a_title_belongs_to_its_start() -> None:
    rows = [("parent with f = 50%", 30), ("parent with f = 90% (uniform)", 100), ("clean parent", 1)]
    table = pd.DataFrame(rows, columns=["start", "parent_repeats"])
    assert fine_tuning.repeats_of_parents(table) == ", f = 50%, R = 30; f = 90%, R = 100 (uniform)"
    assert fine_tuning.repeats_of_parents(table[:1]) == ", parent's R = 30"
    assert fine_tuning.repeats_of_parents(table[2:]) == ""


def test_the_headline_writes_r_before_the_rest_of_the_label() -> None:
    start = "parent with f = 50% (uniform)"
    arms = pd.DataFrame({"start_repeated": [start] * 2, "parent_repeats_repeated": [30, 100]})
    assert headline.with_repeats(arms).label.tolist() == ["f = 50%, R = 30 (uniform)", "f = 50%, R = 100 (uniform)"]
    assert headline.with_repeats(arms[:1]).line.tolist() == ["parent with f = 50%, R = 30 (uniform)"]


@pytest.mark.parametrize(("score", "is_head"), [(2 * NULL + HALF, False), (2 * NULL + 2 * HALF, True)])
def test_a_score_within_its_interval_of_the_threshold_is_no_head(
    score: float, is_head: bool, tmp_path: Path, runs: list[Run], store: TokenStore
) -> None:
    heads = [[[score], [0.03]]] * 4
    write_run(tmp_path, runs[0], store, [6.0, 5.0, 4.0, 4.0], heads, model="2x32", repeats=1, parent=parent("2x32", 30))
    sentence = none_before_or_after(load_runs(tmp_path).combined)
    assert (sentence == "") == is_head and ("never exceeds twice" in sentence) != is_head


@pytest.mark.slow
def test_a_report_of_fine_tuned_runs_has_no_empty_grid(tuned: Path) -> None:
    short, page = write_report(tuned)
    assert list(short.columns[:3]) == ["run", "model", "start"] and len(short) == 8
    text = page.read_text()
    assert "Summary of fine-tuning" in text and "No repeated run" not in text and "8 finished runs" in text
    for name in ("ossification", "forgetting", "fine_tuning_curves", "heads_over_fine_tuning"):
        assert (tuned / "figures" / f"{name}.svg").is_file() and (tuned / "tables" / f"{name}.csv").is_file()
    assert len((tuned / "tables" / "fine_tuning.csv").read_text().splitlines()) == 9


@pytest.mark.slow
def test_a_report_shows_both_a_grid_and_fine_tuned_runs(
    tuned: Path, runs: list[Run], store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "FIGURES", ())
    monkeypatch.setattr(collect, "SECTIONS", ())
    write_run(tuned, runs[0], store, [6.0, 5.0, 5.0, 5.0], NO_HEADS, model="2x64", repeats=4, repeated_fraction=0.5)
    numbers, page = write_report(tuned)
    text = page.read_text()
    assert "Summary of fine-tuning" in text and ">Summary</h2>" in text
    assert len(numbers) == 5 and "from" not in " ".join(numbers.run), "fine-tuned runs have a table of their own"


def test_runs_and_parents_that_differ_have_different_starts(tuned: Path, runs: list[Run], store: TokenStore) -> None:
    def write(end: float, **fields: Any) -> None:
        write_run(tuned, runs[0], store, [6.0, 5.0, 4.8, end], NO_HEADS, model="2x64", **{"repeats": 1, **fields})

    of_parent = [[3, 3, 3]] * 4
    write(5.0, repeats=4, repeated_fraction=0.5)  # a repeated run from scratch is not a control
    write(4.0, parent=parent("2x64", 30, "f0.9-R30-uniform"), of_parent=of_parent)
    write(4.1, parent=parent("2x64", 1, "from-f0.9-R30"), of_parent=of_parent)
    write(4.2, parent=parent("2x64", 1), of_parent=of_parent, repeats=4, repeated_fraction=0.5)
    numbers = fine_tuning.table(load_runs(tuned))
    assert numbers.excess[numbers.start == "from scratch"].tolist() == [0, 0, 0, 0] and len(numbers) == 11
    of_64 = numbers[(numbers.model == "2x64") & (numbers.parent != "")]
    assert set(of_64.start) == {
        "clean parent, repeated_fraction = 0, repeats = 1",
        "clean parent, repeated_fraction = 0.5, repeats = 4",
        "parent with f = 90%, R = 30, repeated_fraction = 0, repeats = 1",
        "parent with f = 90%, R = 30 (uniform), repeated_fraction = 0, repeats = 1",
        "parent from-f0.9-R30, repeated_fraction = 0, repeats = 1",
    }
    pairs = fine_tuning.paired(numbers[numbers.model == "2x64"])
    assert pairs.repeats_clean.tolist() == pairs.repeats_repeated.tolist() == [1, 1]


def test_runs_from_scratch_of_several_kinds_are_not_a_control(tuned: Path, runs: list[Run], store: TokenStore) -> None:
    write_run(tuned, runs[0], store, [6.0, 5.0, 4.8, 4.0], NO_HEADS, model="2x64", repeats=1, learning_rate=1e-4)
    numbers = fine_tuning.table(load_runs(tuned))
    assert numbers.excess.isna().all() and numbers.multiplier.isna().all()
    assert {"from scratch, learning_rate = 0.0001", "from scratch, learning_rate = 0.003"} <= set(numbers.start)
    text = " ".join(fine_tuning_section.sentences(numbers))
    assert (
        "no run from scratch has finished or the runs from scratch differ in their settings" in text
        and not re.search(r"\bnan\b", text)
    )
    assert "Starting from a repeated instead of a clean parent changes test loss after fine-tuning by +" in text
    assert isinstance(ossification.plot(load_runs(tuned)), Plot)


@pytest.mark.slow
def test_without_controls_or_finished_runs_the_report_claims_nothing(
    tmp_path: Path, runs: list[Run], store: TokenStore
) -> None:
    for repeats in (1, 30):
        fields = {"parent": parent("2x64", repeats), "of_parent": [[3, 3, 3]] * 4, "model": "2x64", "repeats": 1}
        write_run(tmp_path, runs[0], store, [6.0, 5.0, 4.8, 4.0], NO_HEADS, metrics={"test_loss_prose": 5.5}, **fields)
    numbers, page = write_report(tmp_path)
    assert not re.search(r"\bnan\b", page.read_text()) and "loss on prose" in numbers
    for done in tmp_path.glob("*/done.json"):
        done.unlink()
    write_report(tmp_path)
    assert "No fine-tuned run has finished yet" in page.read_text()
