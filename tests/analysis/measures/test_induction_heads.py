"""Induction heads and copying in the report: when heads form, what size they are worth, which tokens are lost."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from written_runs import HALF, NULL, TOKENS, write_run

from analysis.figures import (
    copying_and_prefix_sizes,
    heads,
    induction_over_training,
    loss_by_position,
)
from analysis.figures.panels import arms
from analysis.figures.plot import Missing, Plot
from analysis.measures.degradation import summary
from analysis.measures.effective_size import SIZE_METRICS, TEST_LOSS, NoLaw, clean_law, size_multipliers
from analysis.measures.induction_heads import formation
from analysis.report import token_page
from analysis.report.build import write_report
from analysis.report.findings import findings
from analysis.report.summary_table import short_summary
from analysis.runs import load_runs
from data_prep.token_store import TokenStore
from repeat_study.config.run import Run

SIZES = {"2x32": 24576, "2x64": 98304, "2x128": 393216}
PREFIX = next(metric for metric in SIZE_METRICS if metric.key == "prefix_matching")
COPYING = next(metric for metric in SIZE_METRICS if metric.key == "copying_loss")
GOOD, BAD = [0.5, *[0.875] * 5], [0.5, *[0.25] * 5]


def score_of(size: float) -> float:
    """The prefix matching of a clean model: what it lacks of 1 is a power law."""
    return 1 - (0.1 + 12 * size**-0.3)


def formed(score: float) -> list[Any]:
    """Two layers of two heads at four evaluations: the last head reaches `score` at the third."""
    quiet = [[NULL, 0.0], [NULL / 2, NULL]]
    return [quiet, quiet, [[NULL, 0.0], [NULL / 2, score / 2]], [[NULL, 0.0], [NULL / 2, score]]]


@pytest.fixture
def planted(tmp_path: Path, runs: list[Run], store: TokenStore) -> Path:
    """Clean runs whose heads form; at R = 4 the score of half the size and the copying loss of a third, at R = 16 no head,
    and a control of one layer."""
    for model, size in SIZES.items():
        for repeats, share, score in ((1, 1.0, score_of(size)), (4, 1 / 3, score_of(size / 2)), (16, 0.9, NULL)):
            loss = 2 + 40 * (size * (0.95 if repeats > 1 else 1)) ** -0.3
            metrics = {"copying_loss": 1 + 30 * (size * share) ** -0.3, "copying_gain": 1.5 * share}
            paragraph = [BAD, GOOD, BAD if repeats > 1 else GOOD] if repeats != 16 else [BAD, GOOD, GOOD]
            fields = {"model": model, "repeats": repeats, "repeated_fraction": 0.5}
            write_run(tmp_path, runs[0], store, [5.0, 4.5, 4.0, loss], formed(score), paragraph, metrics, **fields)
    one_layer = [[[NULL, NULL / 2]]] * 4
    for repeats in (1, 4):
        fields = {"model": "1x128", "repeats": repeats, "repeated_fraction": 0.5}
        write_run(tmp_path, runs[0], store, [5.0, 4.5, 4.0, 3.9], one_layer, [BAD, BAD, BAD], **fields)
    return tmp_path


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
        ([0.03, 0.3, 0.04, 0.3, 0.4], 300, None),  # one high score on the way makes no head
        ([0.03, 0.3, 0.04, 0.04, 0.04], None, None),  # nor does it lose one
        ([0.03, 0.3, 0.4, 0.04, 0.04], 100, 300),
        ([0.03, 0.3, 0.4, 0.04, 0.3], 100, None),  # one low score loses none
        ([0.03, 0.3, 0.4, 0.08, 0.085], 100, None),  # wavers about twice the null
        ([0.03, 0.04, 0.04, 0.04, 0.3], None, None),  # one high score at the end is not enough
        ([0.03, 0.04, 0.05, 0.06, 0.07], None, None),
        ([0.03, 0.04, 0.05, 0.06, 0.089], None, None),  # above twice the null, its interval is not
        ([0.15, 0.2, 0.25, 0.28, 0.3], None, None),  # an untrained model scores half of that
    ],
)
def test_heads_have_formed_where_the_score_is_above_twice_its_null_twice_in_a_row(
    scores: list[float], formed_at: float | None, lost_at: float | None
) -> None:
    found = formation(curve(scores))
    wanted = [float("nan") if value is None else value for value in (formed_at, lost_at)]
    assert [found.formed_at, found.lost_at] == pytest.approx(wanted, nan_ok=True)


def test_a_null_that_grows_as_the_score_does_makes_no_head() -> None:
    rising = curve([0.03, 0.2, 0.3, 0.4])
    assert formation(rising).formed_at == 100
    assert np.isnan(formation(rising.assign(prefix_matching_null=[0.03, 0.1, 0.2, 0.2])).formed_at)


def test_heads_and_paragraphs_are_read_as_they_were_written(planted: Path) -> None:
    runs = load_runs(planted)
    name = runs.done.query("model == '2x64' and repeats == 4").name.item()
    table = runs.heads(name)
    assert len(table) == 4 * 4 and sorted(table.tokens.unique()) == [0, 21 * 256, 43 * 256, 64 * 256]
    last = table[table.step == 64]
    assert last.prefix_matching.tolist() == [NULL, 0, NULL / 2, score_of(SIZES["2x64"] / 2)]
    assert list(zip(last.layer, last["head"], strict=True)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    paragraph = runs.paragraph(name)
    assert paragraph[paragraph.step == 64].token.tolist() == TOKENS * 3
    (planted / name / "heads.parquet").unlink()
    assert runs.heads(name).empty


def test_effective_sizes_by_copying_and_prefix_matching(planted: Path) -> None:
    numbers = summary(load_runs(planted)).query("layers == 2 and repeats == 4").sort_values("parameters_non_embedding")
    assert numbers.size_multiplier.iloc[1:].tolist() == pytest.approx([0.95] * 2, rel=0.01)
    assert numbers.copying_multiplier.iloc[1:].tolist() == pytest.approx([1 / 3] * 2, rel=0.02)
    assert numbers.prefix_matching_multiplier.iloc[1:].tolist() == pytest.approx([0.5] * 2, rel=0.01)
    assert numbers.prefix_matching_multiplier_bound.tolist() == ["≤", "", ""]


def test_a_control_of_one_layer_is_no_point_of_the_law(planted: Path) -> None:
    runs = load_runs(planted)
    law = clean_law(runs, PREFIX)
    assert not isinstance(law, NoLaw) and law.points == 3 and law.residual < 1e-3
    control = set(runs.table[runs.table.layers == 1].name)
    assert not control & size_multipliers(runs, PREFIX).keys()


def test_clean_runs_that_do_not_order_a_metric_give_no_multiplier(
    planted: Path, runs: list[Run], store: TokenStore
) -> None:
    assert not isinstance(clean_law(load_runs(planted), COPYING), NoLaw)
    for seed, (model, loss) in enumerate((("2x32", 1.3), ("2x128", 2.8)), start=1):
        metrics = {"copying_loss": loss}
        fields = {"model": model, "repeats": 1, "seed": seed}
        size = SIZES[model]
        curve = [5.0, 4.5, 4.0, 2 + 40 * size**-0.3]
        write_run(planted, runs[0], store, curve, formed(score_of(size)), None, metrics, **fields)
    loaded = load_runs(planted)
    law = clean_law(loaded, COPYING)
    assert isinstance(law, NoLaw) and "do not order it by size" in law.reason
    assert not size_multipliers(loaded, COPYING) and size_multipliers(loaded, TEST_LOSS)
    assert summary(loaded).copying_multiplier.isna().all()


def test_scores_within_twice_their_null_are_no_size(tmp_path: Path, runs: list[Run], store: TokenStore) -> None:
    for place, model in enumerate(SIZES):
        best = [[NULL, NULL * (1.1 + 0.2 * place)]]
        write_run(tmp_path, runs[0], store, [5.0, 4.0 - place / 5], [best] * 2, model=model, repeats=1)
    law = clean_law(load_runs(tmp_path), PREFIX)
    assert isinstance(law, NoLaw) and "exceeds twice its null" in law.reason


def test_figures_hold_the_numbers_they_show(planted: Path) -> None:
    runs = load_runs(planted)
    over, at_end, position, sizes = (
        figure.plot(runs) for figure in (induction_over_training, heads, loss_by_position, copying_and_prefix_sizes)
    )
    assert isinstance(over, Plot) and isinstance(at_end, Plot)
    assert isinstance(position, Plot) and isinstance(sizes, Plot)
    assert len(over.table) == 11 * 4 and len(over.figure.axes) == 6 * 4
    assert "1x128 (one layer: a control), f = 50%" in [ax.get_title() for ax in over.figure.axes]
    for path in planted.glob("1x128-f0.5*"):
        shutil.rmtree(path)
    alone = induction_over_training.plot(load_runs(planted))
    assert isinstance(alone, Plot), "a control that is never repeated is shown too"
    assert "1x128 (one layer: a control), clean" in [ax.get_title() for ax in alone.figure.axes]
    clean = over.table.query("model == '2x64' and repeats == 1")
    assert clean.prefix_matching.tolist() == [NULL, NULL, score_of(98304) / 2, score_of(98304)]
    assert len(at_end.table) == 9 * 4 + 2 * 2, "every head of every run, at the end alone"
    assert at_end.table.step.unique().tolist() == [64]
    first = position.table.query("model == '2x64' and repeats == 16")
    assert first.position.tolist()[:3] == [1, 2, 3] and first.position.max() <= 32
    assert np.diff(first.loss) == pytest.approx(-1 / 8)
    worst = sizes.table.query("repeats == 4 and parameters_non_embedding == 393216").set_index("metric")["mean"]
    assert worst["copying loss"] < worst["prefix matching"] < worst["test loss"] < 1


def test_every_seed_has_a_row_of_maps(planted: Path, runs: list[Run], store: TokenStore) -> None:
    for repeats in (1, 4):
        fields = {"model": "2x64", "repeats": repeats, "repeated_fraction": 0.5, "seed": 3}
        write_run(planted, runs[0], store, [5.0, 4.5, 4.0, 3.9], formed(0.5), **fields)
    found = heads.plot(load_runs(planted))
    assert isinstance(found, Plot)
    rows = [ax.get_ylabel() for ax in found.figure.axes if "seed" in ax.get_ylabel()]
    assert sorted(rows) == sorted(
        [
            *(f"{size}, f = 50%, seed 0\nlayer" for size in SIZES),
            "1x128\n(one layer: a control), f = 50%, seed 0\nlayer",
            "2x64, f = 50%, seed 3\nlayer",
        ]
    )


def test_runs_without_scores_of_heads_say_what_is_missing(tmp_path: Path, runs: list[Run], store: TokenStore) -> None:
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


def test_findings_say_when_heads_form_and_what_repeats_leave(planted: Path, runs: list[Run], store: TokenStore) -> None:
    fields = {"model": "2x64", "repeats": 16, "repeated_fraction": 0.5, "seed": 1}
    curve = [5.0, 4.5, 4.0, 6.0]
    write_run(planted, runs[0], store, curve, formed(2 * NULL), None, {"copying_gain": 0.35}, **fields)
    said = findings(summary(load_runs(planted)))
    assert "Induction heads in clean 2x64: formed by 11,008 tokens." in said
    assert "Induction heads in 2x64, f = 50%: R = 4: formed by 11,008 tokens; R = 16: none in 2 seeds." in said
    assert "1x128 has one layer and cannot form induction heads: none formed (best final score 0.031)." in said
    beside = next(line for line in said if line.startswith("2x64, f = 50%, final numbers"))
    assert "clean runs and of R = 16, the worst for test loss (one seed): test loss" in beside, (
        "seed 1 has no clean run"
    )
    score = score_of(98304)
    assert f"prefix matching {score:.3f} and {NULL:.3f} ({NULL - score:+.3f})" in beside
    assert "copying gain 1.500 and 1.350 (-0.150)" in beside
    clean = fields | {"repeats": 1}
    write_run(planted, runs[0], store, [5.0, 4.5, 4.0, 3.8], formed(score), None, {"copying_gain": 1.4}, **clean)
    said = findings(summary(load_runs(planted)))
    beside = next(line for line in said if line.startswith("2x64, f = 50%, final numbers"))
    assert "means of 2 seeds, changes with 95% intervals" in beside
    changes = np.array([1.35 - 1.5, 0.35 - 1.4])
    half = 12.706 * changes.std(ddof=1) / 2**0.5
    assert f"copying gain 1.450 and 0.850 ({changes.mean():+.3f} ± {half:.3f})" in beside


def test_a_study_in_which_no_head_formed_claims_nothing(planted: Path) -> None:
    for path in planted.glob("2x*"):
        if "-R16-" not in path.name:
            shutil.rmtree(path)
    said = findings(summary(load_runs(planted)))
    lines = [line for line in said if "nduction head" in line]
    assert len(lines) == 1 and lines[0].startswith("No induction head formed in any of 5 runs")
    assert "This study cannot show what repetition does to induction heads" in lines[0]


def test_the_largest_drops_are_of_copies_two_onwards() -> None:
    clean = pd.DataFrame({"copy": [1, 1, 2, 2, 3, 3], "token": list("ababab"), "probability": [0.9] * 6})
    repeated = clean.assign(probability=[0.0, 0.9, 0.5, 0.95, 0.9, 0.2])
    found = token_page.drops(clean, repeated)
    assert found.index.tolist() == [5, 2], "copy 1 is not counted, and what does not fall is not listed"
    assert found[["copy", "token", "clean", "repeated"]].to_numpy().tolist() == [[3, "b", 0.9, 0.2], [2, "a", 0.9, 0.5]]


def test_the_page_of_tokens_shows_the_worst_run_beside_the_clean_one(planted: Path) -> None:
    runs = load_runs(planted)
    panel = next(panel for panel in arms(runs.done) if panel.model == "2x64")
    (shown,) = token_page.comparisons(panel, runs)
    assert shown.seed == 0 and list(shown.repeated) == [4, 16], "the highest copying loss first"
    assert shown.repeated[4].probability.to_numpy() == pytest.approx([*BAD, *GOOD, *BAD])
    page = write_report(planted)[1].read_text()
    assert 'href="tokens.html"' in page
    text = (planted / "tokens.html").read_text()
    assert "<script" not in text and not re.search(r'(src|href)="', text)
    assert "<b>" not in re.sub(r"<b>copy \d+</b>", "", text), "tokens are escaped"
    assert text.count('<p class="copy">') == 3 * (3 * 3 + 2), "all copies of all runs"
    assert text.count("<details>") == 3
    assert "<u>⇥</u>&lt;b&gt;</span>" in text and "<u>⏎</u>" in text and "<i> </i>&amp;" in text
    assert 'title="87.5%, 0.13 nats"' in text
    assert text.count('<td class="n">87.5%</td><td class="n">25.0%</td>') == 3 * 5


@pytest.mark.parametrize(
    ("token", "shown"),
    [(" a", "<i> </i>a"), ("\n", "<u>⏎</u>"), ("\x00<&", "<u>␀</u>&lt;&amp;"), ('"', "&#34;"), ("é", "é")],
)
def test_white_space_in_tokens_is_seen(token: str, shown: str) -> None:
    assert token_page.visible(token) == shown


def test_intervals_are_drawn_from_five_seeds_on(planted: Path, runs: list[Run], store: TokenStore) -> None:
    def bands() -> int:
        drawn = induction_over_training.plot(load_runs(planted))
        assert isinstance(drawn, Plot)
        return sum(len(ax.collections) for ax in drawn.figure.axes)

    fields = {"model": "2x64", "repeats": 4, "repeated_fraction": 0.5}
    assert bands() == 0
    for seed, wanted in ((1, 0), (2, 0), (3, 0), (4, 6)):
        write_run(planted, runs[0], store, [5.0, 4.5, 4.0, 3.9], formed(0.5 + HALF), seed=seed, **fields)
        assert bands() == wanted
