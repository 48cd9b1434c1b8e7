"""Figures of peaks, wasted compute and other test sets show the planted numbers, or name the runs that are missing."""

from pathlib import Path

import pandas as pd
import pytest
from written_runs import write_run

from analysis.figures import (
    compute_equivalent_loss,
    degradation_by_repeats,
    divergence,
    out_of_distribution,
    peak_location,
    poor_performance_band,
    repeats_map,
)
from analysis.figures.axes import apart
from analysis.figures.plot import Missing, Plot
from analysis.formatting import short_count
from analysis.runs import Runs, load_runs
from data_prep.token_store import TokenStore
from repeat_study.config.corpora import StudyTexts
from repeat_study.config.model_sizes import shape_of
from repeat_study.config.run import Run
from repeat_study.config.study import Study

MODELS = ("2x32", "2x64", "2x128")
TOKENS = 2**22  # on paper: enough for a pool at every R
EXCESS = {4: 0.1, 16: 0.5, 64: 0.2, 256: 0.05}
FIGURES = (
    divergence,
    poor_performance_band,
    compute_equivalent_loss,
    peak_location,
    repeats_map,
    out_of_distribution,
)
ALWAYS = FIGURES[:5]  # the figures that need no other test set


def clean(model: str) -> float:
    return float(2 + 40 * shape_of(model).parameters_non_embedding ** -0.3)


def plant(
    folder: Path,
    template: Run,
    store: TokenStore,
    models: tuple[str, ...] = MODELS,
    elsewhere: bool = False,
    fraction: float = 0.5,
) -> Runs:
    """Write runs with one seed and a peak at R = 16. elsewhere: they also record the loss on other text, with a fifth of the harm."""
    for model in models:
        for repeats, excess in {1: 0.0, **EXCESS}.items():
            metrics = (
                {"test_loss_python": 1 + clean(model) + excess / 5, "test_loss_python_ci": 0.1} if elsewhere else {}
            )
            fields = {
                "model": model,
                "repeats": repeats,
                "repeated_fraction": fraction,
                "tokens": TOKENS,
                "metrics": metrics,
            }
            write_run(folder, template, store, [9.0, clean(model) + excess], **fields)
    return load_runs(folder)


def drawn(figure: Plot | Missing) -> Plot:
    assert isinstance(figure, Plot), figure
    return figure


@pytest.fixture(scope="module")
def planted(study: Study, store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return plant(tmp_path_factory.mktemp("planted"), study.runs(StudyTexts(store.fingerprint))[0], store)


def test_divergence_is_shown_where_harm_is_largest(planted: Runs) -> None:
    figure = drawn(divergence.plot(planted))
    assert set(figure.table.repeats) == {1, 16}
    worst = figure.table[(figure.table.repeats == 16) & (figure.table.loss == "pool")]
    assert worst["mean"].tolist() == pytest.approx([(clean(model) + 0.5) / 2 for model in MODELS])
    assert figure.figure.axes[0].get_title() == "f = 50%, R = 16"


def test_divergence_takes_the_R_that_most_sizes_have(tmp_path: Path, runs: list[Run], store: TokenStore) -> None:
    plant(tmp_path, runs[0], store)
    fields = {"model": "2x64", "repeats": 32, "repeated_fraction": 0.5, "tokens": TOKENS}
    write_run(tmp_path, runs[0], store, [9.0, 8.0], **fields)
    assert set(drawn(divergence.plot(load_runs(tmp_path))).table.repeats) == {1, 16}


def test_the_caption_of_the_harmful_range_has_its_law(planted: Runs) -> None:
    figure = drawn(poor_performance_band.plot(planted))
    assert figure.table.worst.tolist() == [16] * 3 and figure.table.interior.all()
    assert (figure.table.left.between(4, 16) & figure.table.right.between(16, 64)).all()
    assert "left edge: R = " in figure.caption and "95% from the regression, 3 sizes]" in figure.caption
    assert (
        "this study has no runs of these sizes at this f" in figure.caption
        and "There is only one seed, so there are no intervals" in figure.caption
    )


def test_the_published_band_is_drawn_where_sizes_overlap(tmp_path: Path, runs: list[Run], store: TokenStore) -> None:
    figure = drawn(poor_performance_band.plot(plant(tmp_path, runs[0], store, ("2L", "3L", "4L"), fraction=0.1)))
    assert "not plotted" not in figure.caption
    assert figure.figure.legends[0].get_texts()[-1].get_text() == "published"


def test_the_table_of_the_harmful_range_marks_bounds(tmp_path: Path, runs: list[Run], store: TokenStore) -> None:
    loaded = plant(tmp_path, runs[0], store)
    few = Runs(tmp_path, loaded.table[loaded.table.repeats.isin([1, 4, 16])], loaded.evaluations, [], [])
    figure = drawn(poor_performance_band.plot(few))
    assert set(figure.table.worst_bound) == {"≥"} and not figure.table.interior.any()
    assert "Power laws: none" in figure.caption


def test_lost_compute_of_the_smallest_size_is_a_bound(planted: Runs) -> None:
    figure = drawn(compute_equivalent_loss.plot(planted))
    worst = figure.table[figure.table.repeats == 16].sort_values("parameters_non_embedding")
    assert worst.bound.tolist() == ["≥", "", ""] and worst["mean"].is_monotonic_increasing
    little = figure.table[figure.table.repeats == 256].sort_values("parameters_non_embedding")
    assert little.bound.tolist() == ["≥", "", ""] and (little["mean"].iloc[1:] > 0).all()
    assert "0.33 at 344M" in figure.caption and "All sizes are trained on the same number of tokens" in figure.caption


def test_the_pool_at_the_peak_is_its_share_of_the_tokens(planted: Runs) -> None:
    table = drawn(peak_location.plot(planted)).table
    assert (table.pool_at_worst * 16).tolist() == pytest.approx([0.5 * TOKENS] * 3)
    assert table.gaussian.between(8, 32).all()


def test_the_map_has_a_row_per_metric_and_names_missing_ones(planted: Runs) -> None:
    figure = drawn(repeats_map.plot(planted))
    harm = figure.table[(figure.table.measure == "excess_over_clean") & (figure.table.repeats == 16)]
    assert harm["mean"].tolist() == pytest.approx([0.5] * 3)
    assert set(figure.table.measure) == {"excess_over_clean", "pool_loss", "copying_loss"}
    assert "Not measured here: copying gain on random tokens; prefix matching." in figure.caption
    assert len(figure.figure.axes) == 3


def test_the_map_bars_are_the_range_of_few_seeds(tmp_path: Path, runs: list[Run], store: TokenStore) -> None:
    plant(tmp_path, runs[0], store)
    fields = {"model": "2x64", "repeats": 16, "repeated_fraction": 0.5, "tokens": TOKENS, "seed": 1}
    write_run(tmp_path, runs[0], store, [9.0, clean("2x64") + 0.9], heads=[[[0.1]], [[0.4]]], **fields)
    figure = drawn(repeats_map.plot(load_runs(tmp_path)))
    (twice,) = figure.table[(figure.table.measure == "excess_over_clean") & (figure.table.seeds == 2)].itertuples()
    assert (twice.low, twice.mean, twice.high) == pytest.approx((0.5, 0.7, 0.9))
    assert "range over up to 2 seeds" in figure.caption
    assert "prefix_matching" in set(figure.table.measure), "measured in one run"


def test_a_further_test_set_has_its_own_law(tmp_path: Path, runs: list[Run], store: TokenStore) -> None:
    figure = drawn(out_of_distribution.plot(plant(tmp_path, runs[0], store, elsewhere=True)))
    assert set(figure.table.test_set) == {"test loss", "test loss, python"}, "an interval is no test set"
    of_256 = figure.table[(figure.table.repeats == 256) & (figure.table.bound == "")]
    mean = of_256.groupby("test_set")["mean"].mean()
    assert mean["test loss"] < mean["test loss, python"] < 1, "harm is smaller there"
    assert "0.75 at f = 90%" in figure.caption


def test_a_study_without_further_test_sets_has_no_such_figure(planted: Runs) -> None:
    figure = out_of_distribution.plot(planted)
    assert isinstance(figure, Missing) and "test_loss_<set>" in figure.reason


@pytest.mark.parametrize(
    ("keep", "reasons"),
    [
        (
            "repeats == 1",
            {
                "divergence": "needs finished repeated runs",
                "poor_performance_band": "at two or more values of R above 1",
                "compute_equivalent_loss": "no finished run with repeats > 1",
                "peak_location": "at two or more values of R above 1",
                "repeats_map": "two or more values of R",
            },
        ),
        (
            "model == '2x64'",
            {
                "divergence": "at least two sizes",
                "poor_performance_band": "only one has a peak",
                "compute_equivalent_loss": "at least 3 sizes",
                "peak_location": "at least two model sizes",
            },
        ),
        (
            "repeats > 1",
            {
                "divergence": "clean runs of those sizes",
                "poor_performance_band": "a finished clean run",
                "compute_equivalent_loss": "finished clean runs of at least 3 sizes",
                "peak_location": "a finished clean run",
            },
        ),
    ],
)
def test_missing_runs_are_named(planted: Runs, keep: str, reasons: dict[str, str]) -> None:
    chosen = Runs(planted.folder, planted.table.query(keep), planted.evaluations, [], [])
    for module in ALWAYS:
        figure = module.plot(chosen)
        if reason := reasons.get(module.NAME):
            assert isinstance(figure, Missing) and reason in figure.reason, module.NAME
        else:
            drawn(figure)


def test_with_no_finished_run_every_figure_is_missing(tmp_path: Path, runs: list[Run], store: TokenStore) -> None:
    name = write_run(tmp_path, runs[0], store, [9.0, 4.0], repeats=1)
    (tmp_path / name / "done.json").unlink()
    for module in FIGURES:
        assert isinstance(module.plot(load_runs(tmp_path)), Missing), module.NAME


def test_captions_and_tables_survive_saving(planted: Runs, tmp_path: Path) -> None:
    for module in ALWAYS:
        figure = drawn(module.plot(planted))
        figure.save(tmp_path)
        assert len(pd.read_csv(tmp_path / "tables" / f"{module.NAME}.csv")) == len(figure.table)
        assert (tmp_path / "figures" / f"{module.NAME}.png").stat().st_size > 5000


def test_ticks_that_would_collide_are_left_out() -> None:
    assert apart([1, 10, 30, 100, 300, 900, 1000]) == [1, 10, 30, 100, 300, 900]
    assert apart([5.31e6, 12.6e6, 805e6], short_count) == [5.31e6, 12.6e6, 805e6]
    assert apart([1.57e6, 5.31e6, 12.6e6, 805e6], short_count) == [1.57e6, 5.31e6, 805e6]
    assert apart([5.0]) == [5.0]


def test_labels_of_lines_with_the_same_worst_r_have_different_positions(planted: Runs) -> None:
    panel = drawn(degradation_by_repeats.plot(planted)).figure.axes[0]
    labels = [text for text in panel.texts if text.get_text() == "R = 16"]
    assert [text.get_ha() for text in labels] == ["center", "left", "right"]
