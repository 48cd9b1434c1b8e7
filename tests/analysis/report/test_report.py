"""Reports on run directories with known numbers."""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from markupsafe import escape
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.util.tensor_util import make_ndarray
from written_runs import write_run

from analysis.measures.degradation import noise_of_rise, summary
from analysis.report import collect
from analysis.report.build import write_report
from analysis.report.findings import findings
from analysis.report.summary import summarize
from analysis.runs import load_runs
from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.config.corpora import StudyTexts
from repeat_study.config.run import Run
from repeat_study.config.study import Study

FORMATS = (".pdf", ".svg", ".png")
SIZES = {"2x32": 24576, "2x64": 98304, "2x128": 393216}


@pytest.fixture
def few_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plot only a few figures, because plotting all of them takes seconds."""
    monkeypatch.setattr(collect, "FIGURES", ("learning_curves", "degradation_by_repeats", "size_multiplier"))
    monkeypatch.setattr(collect, "SECTIONS", ())


def plant(folder: Path, run: Run, store: TokenStore) -> None:
    """Write clean runs that follow L = 2 + 40·N^-0.3, and runs at R = 4 whose double descent ends at the loss of half-size models."""
    for model, size in SIZES.items():
        clean, half = 2 + 40 * size**-0.3, 2 + 40 * (size / 2) ** -0.3
        write_run(folder, run, store, [5.0, 4.5, 4.0, clean], model=model, repeats=1)
        for repeats, end in ((2, clean + 0.001), (4, half), (16, clean + 0.002)):
            curve = [5.0, 4.4, 5.15 if repeats == 4 else 4.2, end]
            write_run(folder, run, store, curve, model=model, repeats=repeats, repeated_fraction=0.5)


@pytest.fixture
def planted(tmp_path: Path, runs: list[Run], store: TokenStore) -> Path:
    plant(tmp_path, runs[0], store)
    return tmp_path


@pytest.fixture(scope="module")
def reported(study: Study, store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted runs with a complete report. Tests must not change this folder."""
    folder = tmp_path_factory.mktemp("reported")
    plant(folder, study.runs(StudyTexts(store.fingerprint))[0], store)
    write_report(folder)
    return folder


def test_planted_effects_are_recovered(planted: Path) -> None:
    numbers = summary(load_runs(planted))
    worst = numbers[numbers.repeats == 4].sort_values("parameters_non_embedding")
    assert worst.size_multiplier.iloc[1:].tolist() == pytest.approx([0.5, 0.5], rel=0.01)
    assert worst.size_multiplier_bound.tolist() == ["≤", "", ""], "half of the smallest size is outside the law"
    assert worst.rise.tolist() == pytest.approx([0.75] * 3)
    assert worst.rise_at_tokens.tolist() == pytest.approx([43 * 256] * 3)
    assert worst.rise_counts.all() and not numbers[numbers.repeats != 4].rise_counts.any()
    text = " ".join(findings(numbers))
    assert "Double descent at f = 50%: in 3 of 9 runs" in text
    assert text.count("the worst R is 4 (3 values tried)") == 3
    assert text.count("Fewer and more repeats both do less harm") == 3


def test_a_rise_within_the_noise_of_clean_runs_does_not_count(
    planted: Path, runs: list[Run], store: TokenStore
) -> None:
    write_run(
        planted, runs[0], store, [5.0, 4.0, 4.4, 2 + 40 * SIZES["2x128"] ** -0.3], model="2x128", repeats=1, seed=1
    )
    loaded = load_runs(planted)
    assert noise_of_rise(loaded) == pytest.approx(0.8)
    assert not summary(loaded).rise_counts.any()


@pytest.mark.slow
def test_the_page_is_complete_and_needs_no_network(reported: Path) -> None:
    text = (reported / "report.html").read_text()
    names = ["learning_curves", "degradation_by_repeats", "degradation_by_size", "size_multiplier", "pool_loss"]
    names += ["copying_and_prefix_sizes"]
    assert {path.stem for path in (reported / "figures").glob("*.svg")} >= set(names)
    assert text.count("data:image/svg+xml,") == len(list((reported / "figures").glob("*.svg")))
    assert not re.search(r"""(src|href|url\(|import)\s*[=(]?\s*["']?(https?:)?//""", text)
    assert not re.search(r"fetch\(|XMLHttpRequest|@import|<link|<script src", text)
    for name in names:
        assert (reported / "figures" / f"{name}.png").stat().st_size > 5000
        assert (reported / "figures" / f"{name}.svg").read_text().lstrip().startswith("<?xml")
        assert len(pd.read_csv(reported / "tables" / f"{name}.csv"))
    assert len(pd.read_csv(reported / "tables" / "summary.csv")) == 12
    for link in re.findall(r'href="([^"]+)"', text):
        assert f'id="{link[1:]}"' in text if link.startswith("#") else (reported / link).exists(), link


@pytest.mark.slow
def test_figures_have_print_versions_with_fonts_and_identical_bytes(
    reported: Path, tmp_path: Path, with_pdf: None
) -> None:
    page = (reported / "report.html").read_bytes()
    planted = Path(shutil.copytree(reported, tmp_path / reported.name))
    pdf_files = sorted((planted / "figures").glob("*.pdf"))
    assert {path.stem for path in pdf_files} == {path.stem for path in (planted / "figures").glob("*.svg")}
    first = {path.name: path.read_bytes() for path in (planted / "figures").iterdir() if path.suffix in FORMATS}
    shutil.rmtree(planted / "figures")
    time.sleep(1.1)  # a date in the file would differ
    text = write_report(planted)[1].read_text()
    assert text.encode() == page, "the same runs give the same page"
    assert first == {path.name: path.read_bytes() for path in (planted / "figures").iterdir() if path.suffix in FORMATS}
    for path in pdf_files:
        content = path.read_bytes()
        assert content.startswith(b"%PDF") and b"/FontFile2" in content and b"/Type3" not in content, path
        assert f'href="figures/{path.name}"' in text and f'href="tables/{path.stem}.csv"' in text


@pytest.mark.slow
def test_the_summary_has_five_sentences(reported: Path) -> None:
    runs = load_runs(reported)
    sentences = summarize(runs, summary(runs))
    assert len(sentences) == 5
    study, worst, descent, cost, heads = sentences
    assert "12 runs (all finished); 3 model sizes (24.6k to 393k" in study and "f = 50%; R from 2 to 16" in study
    assert "f = 50%, R = 4 (3 of 3 sizes; fewer and more repeats do less harm)" in worst
    assert "in 3 of 9 runs at f = 50%" in descent and "rises by 0.75 nats" in descent
    assert "matching clean models of 0.5 times the size" in cost and "differs from that of clean runs by" in cost
    assert "Induction heads were not measured" in heads and "higher for 0 and lower for 0 of 3 combinations" in heads
    text = (reported / "report.html").read_text()
    summary_ends = text.index("<details")
    assert all(text.index(str(escape(sentence))) < summary_ends for sentence in sentences)
    assert text.index("the worst R is 4 (3 values tried)") > summary_ends, "details are collapsed below"


def test_null_results_are_reported(tmp_path: Path, runs: list[Run], store: TokenStore) -> None:
    for seed, end in ((0, 4.0), (1, 4.1)):
        write_run(tmp_path, runs[0], store, [5.0, 4.5, end], model="2x32", repeats=1, seed=seed)
        for repeats in (2, 4, 16):
            fields = {"model": "2x32", "repeats": repeats, "repeated_fraction": 0.5, "seed": seed}
            write_run(tmp_path, runs[0], store, [5.0, 4.5, end + 0.01], **fields)
    loaded = load_runs(tmp_path)
    _, worst, descent, *_ = summarize(loaded, summary(loaded))
    assert "f = 50%, none (1 size)" in worst
    assert descent.startswith("No double descent in any of the 6 repeated runs")


@pytest.mark.slow
def test_tables_work_without_scripts_and_sort_with_them(reported: Path) -> None:
    text = (reported / "report.html").read_text()
    assert text.count('<table class="sortable">') == text.count("<table")
    assert "<button" not in text, "without scripts nothing looks clickable"
    assert text.count('<td class="n">') > 50 and "aria-sort" in text
    for run in summary(load_runs(reported)).run:
        assert f'<a href="{run}/">' in text
    table = pd.read_csv(reported / "tables" / "published_comparison.csv")
    assert {"quantity", "where", "here", "low", "high", "published", "source"} <= set(table)
    assert "Comparison with the papers</h2>" in text


@pytest.mark.slow
def test_runs_that_differ_only_in_evaluation_are_not_two_seeds(
    planted: Path, few_figures: None, runs: list[Run], store: TokenStore
) -> None:
    fields = {"model": "2x64", "repeats": 4, "repeated_fraction": 0.5}
    (first,) = (path.name for path in planted.glob("2x64-f0.5-R4-*"))
    more = runs[0].evaluation.model_copy(update={"test_sequences": runs[0].evaluation.test_sequences + 8})
    other = write_run(planted, runs[0], store, [5.0, 4.4, 5.15, 9.0], evaluation=more, **fields)
    assert other != first
    loaded = load_runs(planted)
    assert loaded.duplicates == {first: other}, "the run that was tested on more text is kept"
    table = summary(loaded).query("model == '2x64' and repeats == 4")
    assert table.test_loss.tolist() == [9.0], "no average of the two"
    text = write_report(planted)[1].read_text()
    assert (
        f"Left out: {first}. It was trained in the same way as {other}, so it does not count as another seed." in text
    )
    assert "Runs were evaluated with different settings (test_sequences), so their numbers can differ" in text
    (planted / other / "done.json").unlink()
    assert load_runs(planted).duplicates == {other: first}, "a finished run is kept rather than an unfinished one"


def test_many_unfinished_runs_are_one_folded_note_and_rows_of_the_table(planted: Path, few_figures: None) -> None:
    for done in sorted(planted.glob("*/done.json"))[:9]:
        metrics = done.with_name("metrics.jsonl")
        metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:3]))
        done.unlink()
    text = write_report(planted)[1].read_text()
    assert '<details class="note"><summary>9 runs have not finished and 0 have not started.' in text
    assert text.count('<p class="note">Not yet finished') == 0 and text.count("<li>Not yet finished") == 9
    assert text.count("trained, test loss so far") == 9
    assert "12 runs (3 finished)" in text
    curves = pd.read_csv(planted / "tables" / "learning_curves.csv")
    assert curves.name.nunique() == 12, "learning curves include unfinished runs"


def test_unfinished_and_undeclared_runs_are_named_and_left_out(
    planted: Path, few_figures: None, runs: list[Run], store: TokenStore
) -> None:
    names = sorted(path.parent.name for path in planted.glob("*/spec.json"))
    stranger, unfinished, *others = names
    (planted / unfinished / "done.json").unlink()
    short, page = write_report(planted, [unfinished, *others, "never-started"])
    text = page.read_text()
    assert f"Not yet finished: {unfinished} (interrupted)" in text
    assert "Not yet started: never-started" in text
    assert f"Left out: {stranger}. The study does not declare this run." in text
    assert len(short) == len(others)


@pytest.mark.slow
def test_names_are_escaped(planted: Path, few_figures: None) -> None:
    names = sorted(path.parent.name for path in planted.glob("*/spec.json"))
    (planted / "<b>strange").mkdir()
    (planted / "<b>strange" / "spec.json").write_text("{}")
    text = write_report(planted, [*names, "<img src=x>"])[1].read_text()
    assert "Not yet started: &lt;img src=x&gt;." in text and "Left out: &lt;b&gt;strange." in text
    assert "<img src=x>" not in text and "<b>" not in text


def test_missing_figures_state_what_they_need(tmp_path: Path, runs: list[Run], store: TokenStore) -> None:
    write_run(tmp_path, runs[0], store, [5.0, 4.0], repeats=1)
    text = write_report(tmp_path)[1].read_text()
    assert "Size multiplier: the clean law needs finished clean runs of at least 3 sizes" in text
    assert "Learning curves: no run with repeats" in text


def tensorboard_images(folder: Path) -> dict[str, bytes]:
    """The PNG files in the TensorBoard run `figures`, by tag."""
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    images = {}
    for tag in multiplexer.PluginRunToTagToContent("images").get("figures", {}):
        (event,) = multiplexer.Tensors("figures", tag)
        width, height, png = make_ndarray(event.tensor_proto)
        assert int(width) > 300 and int(height) > 100
        images[tag] = png
    return images


@pytest.mark.slow
def test_tensorboard_shows_the_figures_of_the_last_report(planted: Path, few_figures: None) -> None:
    write_report(planted)
    first = tensorboard_images(planted)
    saved = {f"report/{path.stem}": path.read_bytes() for path in (planted / "figures").glob("*.png")}
    assert first == saved and len(first) == 4
    write_report(planted)
    assert tensorboard_images(planted) == first
    for clean in planted.glob("2x32-clean*"):  # the clean law needs three sizes
        shutil.rmtree(clean)
    write_report(planted)
    assert "report/learning_curves" in (second := tensorboard_images(planted))
    assert "report/size_multiplier" not in second
    assert second["report/learning_curves"] == (planted / "figures" / "learning_curves.png").read_bytes()
    assert second["report/learning_curves"] != first["report/learning_curves"]


@pytest.mark.slow
def test_seeds_become_intervals(planted: Path, few_figures: None, runs: list[Run], store: TokenStore) -> None:
    write_run(planted, runs[0], store, [5.0, 4.4, 4.6, 4.0], model="2x64", repeats=4, repeated_fraction=0.5, seed=1)
    write_report(planted)
    table = pd.read_csv(planted / "tables" / "degradation_by_repeats.csv")
    twice = table[table.seeds == 2]
    assert len(twice) == 1 and (twice.low < twice["mean"]).all() and (twice["mean"] < twice.high).all()
    assert (table[table.seeds == 1].low == table[table.seeds == 1]["mean"]).all()


def test_an_empty_folder_and_altered_metrics_are_refused(planted: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no runs here"):
        write_report(tmp_path / "nothing")
    metrics = next(planted.glob("*/metrics.jsonl"))
    metrics.write_text(metrics.read_text().replace("4.5", "4.4", 1) + "\n")
    with pytest.raises(InputError, match="altered after the run finished"):
        write_report(planted)


def test_analysis_needs_no_torch() -> None:
    code = "import sys, analysis.report.build; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.slow
def test_only_seeds_are_averaged(planted: Path, few_figures: None, runs: list[Run], store: TokenStore) -> None:
    for repeats, end in ((1, 4.5), (2, 4.6), (4, 4.9)):
        fields = {"model": "2x64", "repeats": repeats, "repeated_fraction": 0.5, "learning_rate": 1e-3}
        write_run(planted, runs[0], store, [6.0, 5.5, 5.0, end], **fields)
    short, page = write_report(planted)
    assert pd.read_csv(planted / "tables" / "degradation_by_repeats.learning_rate-0.003.csv").seeds.max() == 1
    other = pd.read_csv(planted / "tables" / "degradation_by_repeats.learning_rate-0.001.csv")
    assert other["mean"].tolist() == pytest.approx([4.5, 4.6, 4.9])
    numbers = pd.read_csv(planted / "tables" / "summary.csv").set_index("run")
    slow = numbers[numbers.variant == "learning_rate = 0.001"]
    assert slow.excess_over_clean.tolist() == pytest.approx([0.0, 0.1, 0.4]), "each variant has its own clean runs"
    assert page.read_text().count(">Summary</h2>") == 2
    assert "The reference is learning_rate = 0.003." in page.read_text(), "it has more runs"
    assert "There is only one seed, so there are no intervals." in page.read_text()
    differences = pd.read_csv(planted / "tables" / "variant_differences.csv").query("metric == 'test_loss'")
    excess = numbers.excess_over_clean[(numbers.model == "2x64") & (numbers.variant == "learning_rate = 0.003")]
    expected = [4.5 - (2 + 40 * SIZES["2x64"] ** -0.3), 0.1 - sorted(excess)[1], 0.4 - sorted(excess)[3]]
    assert differences.sort_values("repeats")["mean"].tolist() == pytest.approx(expected)
    assert short.run.is_unique


def test_spacings_are_separate_variants_with_the_same_clean_runs(
    planted: Path, runs: list[Run], store: TokenStore
) -> None:
    fields = {"model": "2x64", "repeats": 4, "repeated_fraction": 0.5, "spacing": "uniform"}
    write_run(planted, runs[0], store, [5.0, 4.5, 4.2, 4.0], **fields)
    variants = dict(load_runs(planted).variants())
    assert set(variants) == {"passes", "uniform"}
    uniform = variants["uniform"]
    assert sorted(uniform.table.repeats) == [1, 1, 1, 4]
    repeated = summary(uniform).query("repeats == 4")
    assert repeated.excess_over_clean.item() == pytest.approx(4.0 - (2 + 40 * SIZES["2x64"] ** -0.3))


def test_findings_are_means_over_seeds(planted: Path, runs: list[Run], store: TokenStore) -> None:
    clean = 2 + 40 * SIZES["2x64"] ** -0.3
    write_run(planted, runs[0], store, [5.0, 4.4, 5.15, 7.0], model="2x64", repeats=4, repeated_fraction=0.5, seed=1)
    first = 2 + 40 * (SIZES["2x64"] / 2) ** -0.3
    finding = next(line for line in findings(summary(load_runs(planted))) if line.startswith("2x64"))
    assert f"test loss of {(first + 7) / 2:.3f} ({(first + 7) / 2 - clean:+.3f} compared with clean runs)" in finding
    assert "means over 2 seeds" in finding


def test_malformed_records_are_refused(planted: Path) -> None:
    spec = next(planted.glob("*/spec.json"))
    for content, message in (
        ("[]", "expected a JSON object, found list"),
        ("{}", "the key 'format' is missing"),
        ("{", "not valid"),
    ):
        spec.write_text(content)
        with pytest.raises(InputError, match=message):
            write_report(planted)


def test_a_setting_that_depends_only_on_size_makes_no_variants(
    tmp_path: Path, runs: list[Run], store: TokenStore
) -> None:
    for index, (model, size) in enumerate(SIZES.items()):
        for repeats, end in ((1, 2 + 40 * size**-0.3), (4, 2.5 + 40 * size**-0.3)):
            fields = {"model": model, "repeats": repeats, "repeated_fraction": 0.5, "learning_rate": 1e-3 / (1 + index)}
            write_run(tmp_path, runs[0], store, [5.0, 4.5, end], **fields)
    ((name, variant),) = load_runs(tmp_path).variants()
    assert name == "" and len(variant.table) == 6
    assert summary(variant).size_multiplier.notna().all(), "one clean law over the sizes"


def test_file_names_of_variants_have_no_spaces_or_signs() -> None:
    assert collect.file_name("heads", "tokens = 12,288,000, weight_decay = 0.01, bursts 20 apart") == (
        "heads.tokens-12288000_weight_decay-0.01_bursts_20_apart"
    )
    assert collect.file_name("heads", "") == "heads"
