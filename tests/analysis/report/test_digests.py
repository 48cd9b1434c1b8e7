"""A second report plots only the figures whose inputs have changed."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from written_runs import write_run

from analysis.figures.plot import Plot
from analysis.laws.points import Points
from analysis.laws.study_fits import StudyFits
from analysis.report import collect, digests
from analysis.report.build import write_report
from analysis.report.figure_list import HEADLINE_FIGURE, VARIANT_FIGURES
from analysis.runs import Runs
from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.config.run import Run

FIGURES = ("learning_curves", "pool_loss")
PLOTTED = [*FIGURES, HEADLINE_FIGURE]
NO_LAWS = StudyFits(Points(*(np.empty(0) for _ in range(5))), {}, {}, pd.DataFrame())


@pytest.fixture
def plotted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all plotted figures, in order. A test may clear the list. The figures are small, because saving takes longest."""
    names: list[str] = []

    def plot(name: str, runs: Runs) -> Plot:
        names.append(name)
        figure = Figure(figsize=(1, 1))
        figure.subplots().plot(runs.table.final_test_loss)
        return Plot(name, name.capitalize().replace("_", " "), "A caption.", figure, runs.evaluations)

    monkeypatch.setattr(collect, "plot_figure", plot)
    monkeypatch.setattr(collect, "FIGURES", FIGURES)
    monkeypatch.setattr(collect, "SECTIONS", ())
    monkeypatch.setattr(collect, "process_count", lambda: 1)
    monkeypatch.setattr("analysis.report.build.fit_study", lambda runs: NO_LAWS)  # fits take seconds
    return names


@pytest.fixture
def study_folder(tmp_path: Path, runs: list[Run], store: TokenStore) -> Path:
    for model, end in (("2x32", 4.0), ("2x64", 3.5)):
        for repeats in (1, 2, 4):
            fields = {"model": model, "repeats": repeats, "repeated_fraction": 0.5}
            write_run(tmp_path, runs[0], store, [5.0, 4.5, end + 0.1 * repeats], **fields)
    return tmp_path


def alter(folder: Path, loss: float) -> None:
    """Change the final test loss of a 2x64 run, as if it had been trained again."""
    (run,) = folder.glob("2x64-f0.5-R4-*")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows[-1]["test_loss"] = loss
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = json.loads((run / "done.json").read_text())
    done["sha256"]["metrics.jsonl"] = digests.hashlib.sha256((run / "metrics.jsonl").read_bytes()).hexdigest()
    done["test_loss"] = loss
    (run / "done.json").write_text(json.dumps(done))


def contents(folder: Path) -> dict[str, bytes]:
    files = [
        folder / "report.html",
        *folder.glob("figures/*.*g"),
        *folder.glob("figures/*.pdf"),
        *folder.glob("tables/*"),
    ]
    return {path.name: path.read_bytes() for path in files}


def test_an_unchanged_study_is_not_even_read(
    study_folder: Path, plotted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, page = write_report(study_folder)
    assert plotted == PLOTTED
    before = contents(study_folder)
    monkeypatch.setattr("analysis.report.build.load_runs", None)
    second, same_page = write_report(study_folder)
    assert plotted == PLOTTED and page == same_page and contents(study_folder) == before
    pd.testing.assert_frame_equal(first.astype(str), second)


@pytest.mark.slow
def test_a_changed_run_is_redrawn_everywhere(study_folder: Path, plotted: list[str]) -> None:
    write_report(study_folder)
    before = contents(study_folder)
    alter(study_folder, 3.999)
    write_report(study_folder)
    assert plotted == [*PLOTTED, *PLOTTED]
    after = contents(study_folder)
    for name in ("report.html", "summary.csv", "learning_curves.csv", "pool_loss.svg"):
        assert before[name] != after[name], name
    assert b"3.999" in after["report.html"]
    shutil.rmtree(study_folder / "figures")
    write_report(study_folder)
    assert contents(study_folder) == after, "the same as a report from scratch"


@pytest.mark.slow
def test_only_a_deleted_or_edited_figure_is_redrawn(study_folder: Path, plotted: list[str]) -> None:
    write_report(study_folder)
    before = contents(study_folder)
    for file in ("figures/learning_curves.svg", "figures/learning_curves.png", "tables/learning_curves.csv"):
        for spoil in (Path.unlink, lambda path: path.write_text("edited")):
            plotted.clear()
            spoil(study_folder / file)
            write_report(study_folder)
            assert plotted == ["learning_curves"] and contents(study_folder) == before, file


def test_a_deleted_page_or_table_is_written_again_without_plotting(study_folder: Path, plotted: list[str]) -> None:
    write_report(study_folder)
    before = contents(study_folder)
    plotted.clear()
    for file in ("report.html", "tables/summary.csv"):
        (study_folder / file).unlink()
        write_report(study_folder)
    assert not plotted and contents(study_folder) == before


@pytest.mark.slow
def test_other_code_redraws_everything(study_folder: Path, plotted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write_report(study_folder)
    monkeypatch.setattr(digests, "code_digest", lambda: "another version")
    write_report(study_folder)
    assert plotted == [*PLOTTED, *PLOTTED]


def test_the_code_digest_follows_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package"
    package.mkdir()
    monkeypatch.setattr(digests.analysis, "__path__", [str(package)])
    code_digests = set()
    for name in ("law.py", "page.html.j2"):
        for content in ("a", "b"):
            (package / name).write_text(content)
            digests.code_digest.cache_clear()
            code_digests.add(digests.code_digest())
    digests.code_digest.cache_clear()
    assert len(code_digests) == 4


@pytest.mark.slow
def test_a_new_run_redraws_only_its_own_variant(
    study_folder: Path, plotted: list[str], runs: list[Run], store: TokenStore
) -> None:
    for repeats in (1, 2, 4):
        fields = {"model": "2x64", "repeats": repeats, "repeated_fraction": 0.5, "learning_rate": 1e-3}
        write_run(study_folder, runs[0], store, [5.0, 4.5, 4.0], **fields)
    write_report(study_folder)
    assert plotted == [*FIGURES, *FIGURES, *VARIANT_FIGURES, HEADLINE_FIGURE]
    plotted.clear()
    write_run(study_folder, runs[0], store, [5.0, 4.5, 4.1], **fields | {"repeats": 8})
    before = contents(study_folder)
    write_report(study_folder)
    assert plotted == [*FIGURES, *VARIANT_FIGURES, HEADLINE_FIGURE]
    changed = {name for name, content in contents(study_folder).items() if before.get(name) != content}
    assert {name for name in changed if name.startswith(FIGURES)} == {name for name in changed if "0.001" in name}


@pytest.mark.slow
def test_figures_of_a_deleted_variant_are_deleted(
    study_folder: Path, plotted: list[str], runs: list[Run], store: TokenStore
) -> None:
    (study_folder / "figures").mkdir()
    (study_folder / "figures" / "mine.png").write_text("not the report's")
    for repeats in (1, 2, 4):
        fields = {"model": "2x64", "repeats": repeats, "repeated_fraction": 0.5, "learning_rate": 1e-3}
        write_run(study_folder, runs[0], store, [5.0, 4.5, 4.0], **fields)
    write_report(study_folder)
    assert list(study_folder.glob("*/learning_curves.learning_rate*"))
    for path in study_folder.glob("*/spec.json"):
        if json.loads(path.read_text())["learning_rate"] == 1e-3:
            shutil.rmtree(path.parent)
    write_report(study_folder)
    assert not list(study_folder.glob("*/learning_curves.learning_rate*"))
    assert list(study_folder.glob("figures/learning_curves.*")) and (study_folder / "figures" / "mine.png").exists()


@pytest.mark.slow
def test_a_run_that_has_trained_further_is_reported_again(study_folder: Path, plotted: list[str]) -> None:
    (run,) = study_folder.glob("2x64-f0.5-R4-*")
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "done.json").unlink()
    (run / "metrics.jsonl").write_text("".join(lines[:-1]))
    write_report(study_folder)
    plotted.clear()
    with (run / "metrics.jsonl").open("a") as file:
        file.write(lines[-1])
    page = write_report(study_folder)[1]
    assert plotted == PLOTTED and "100% trained" in page.read_text()


def test_a_change_in_the_declared_runs_makes_a_new_report(study_folder: Path, plotted: list[str]) -> None:
    names = sorted(path.parent.name for path in study_folder.glob("*/spec.json"))
    write_report(study_folder, names)
    page = write_report(study_folder, [*names, "one-more"])[1]
    assert "Not yet started: one-more" in page.read_text()


def test_altered_records_are_refused_even_after_a_report(study_folder: Path, plotted: list[str]) -> None:
    write_report(study_folder)
    metrics = next(study_folder.glob("*/metrics.jsonl"))
    metrics.write_text(metrics.read_text().replace("4.5", "4.4"))
    with pytest.raises(InputError, match="altered after the run finished"):
        write_report(study_folder)


@pytest.mark.slow
def test_a_damaged_record_causes_a_complete_redraw(study_folder: Path, plotted: list[str]) -> None:
    write_report(study_folder)
    before = contents(study_folder)
    for content in ("", "{", "[]", '{"inputs": 1, "files": {"../x": [0, 0]}}', '{"other": {}}'):
        plotted.clear()
        (study_folder / digests.RECORD).write_text(content)
        write_report(study_folder)
        assert plotted == PLOTTED and contents(study_folder) == before, content


def test_a_new_modification_time_changes_the_digest_of_a_run(study_folder: Path) -> None:
    (run, *_) = (path.parent for path in study_folder.glob("*/metrics.jsonl"))
    before = digests.run_digests(study_folder)
    os.utime(run / "metrics.jsonl", ns=(0, 0))
    after = digests.run_digests(study_folder)
    assert {name for name in before if before[name] != after[name]} == {run.name}


def test_progress_names_every_figure(study_folder: Path, plotted: list[str]) -> None:
    messages: list[tuple[str, float]] = []
    write_report(study_folder, None, lambda stage, share: messages.append((stage, share)))
    figures = [message for message in messages if message[0].startswith("figure")]
    assert figures == [("figure 1 of 2: learning curves", 0.5), ("figure 2 of 2: pool loss", 1.0)]
    messages.clear()
    write_report(study_folder, None, lambda stage, share: messages.append((stage, share)))
    assert messages == [("nothing changed since the last report", 1.0)]
