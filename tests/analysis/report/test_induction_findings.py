"""The report's findings about induction heads."""

import shutil
from pathlib import Path

import numpy as np
from head_runs import formed, score_of
from written_runs import NULL, write_run

from analysis.figures import (
    copying_and_prefix_sizes,
    heads,
    induction_over_training,
    loss_by_position,
)
from analysis.figures.plot import Missing
from analysis.measures.degradation import summary
from analysis.report.build import write_report
from analysis.report.findings import findings
from analysis.report.summary_table import short_summary
from analysis.runs import load_runs
from data_prep.token_store import TokenStore
from repeat_study.config.run import Run


def test_figures_of_heads_are_missing_if_runs_have_no_scores(
    tmp_path: Path, runs: list[Run], store: TokenStore
) -> None:
    for repeats in (1, 4):
        write_run(tmp_path, runs[0], store, [5.0, 4.0], repeats=repeats, repeated_fraction=0.5)
    loaded = load_runs(tmp_path)
    for figure in (induction_over_training, heads, loss_by_position, copying_and_prefix_sizes):
        assert isinstance(figure.plot(loaded), Missing), figure
    numbers = summary(loaded)
    assert not [line for line in findings(numbers) if "nduction" in line]
    assert "prefix matching" not in short_summary(numbers)
    page = write_report(tmp_path)[1].read_text()
    assert "tokens.html" not in page and not (tmp_path / "tokens.html").exists()


def test_findings_report_when_heads_form_and_how_repeats_affect_them(
    with_heads: Path, runs: list[Run], store: TokenStore
) -> None:
    fields = {"model": "2x64", "repeats": 16, "repeated_fraction": 0.5, "seed": 1}
    curve = [5.0, 4.5, 4.0, 6.0]
    write_run(with_heads, runs[0], store, curve, formed(2 * NULL), None, {"copying_gain": 0.35}, **fields)
    sentences = findings(summary(load_runs(with_heads)))
    assert "Induction heads in clean 2x64 (98.3k): formed by 11,008 tokens." in sentences
    assert (
        "Induction heads in 2x64 (98.3k), f = 50%: R = 4: formed by 11,008 tokens; R = 16: none in 2 seeds."
        in sentences
    )
    assert (
        "1x128 (197k) has one layer and cannot form induction heads, and none formed (highest final score 0.031)."
        in sentences
    )
    comparison = next(line for line in sentences if line.startswith("2x64 (98.3k), f = 50%, final metrics"))
    expected = "final metrics without repetition and at R = 16, where test loss is highest (one seed): test loss"
    assert expected in comparison, "seed 1 has no clean run"
    score = score_of(98304)
    assert f"prefix matching {score:.3f} and {NULL:.3f} ({NULL - score:+.3f})" in comparison
    assert "copying gain 1.500 and 1.350 (-0.150)" in comparison
    clean = fields | {"repeats": 1}
    write_run(with_heads, runs[0], store, [5.0, 4.5, 4.0, 3.8], formed(score), None, {"copying_gain": 1.4}, **clean)
    sentences = findings(summary(load_runs(with_heads)))
    comparison = next(line for line in sentences if line.startswith("2x64 (98.3k), f = 50%, final metrics"))
    assert "means over 2 seeds, changes with 95% intervals" in comparison
    changes = np.array([1.35 - 1.5, 0.35 - 1.4])
    half = 12.706 * changes.std(ddof=1) / 2**0.5
    assert f"copying gain 1.450 and 0.850 ({changes.mean():+.3f} ± {half:.3f})" in comparison


def test_without_any_induction_head_the_findings_claim_nothing(with_heads: Path) -> None:
    for path in with_heads.glob("2x*"):
        if "-R16-" not in path.name:
            shutil.rmtree(path)
    sentences = findings(summary(load_runs(with_heads)))
    lines = [line for line in sentences if "nduction head" in line]
    assert len(lines) == 1 and lines[0].startswith(
        "No induction head formed in any of the 3 runs with two or more layers, nor in 2 one-layer runs, which cannot form any:"
    )
    assert "This study therefore cannot show how repetition affects induction heads" in lines[0]
