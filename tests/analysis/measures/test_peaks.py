"""Planted peaks along R, their power laws of size, and the compute lost at them are recovered."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import curve_fit
from written_runs import write_run

from analysis.figures import peak_location
from analysis.figures.plot import Plot
from analysis.intervals import Bound, Estimate
from analysis.measures.compute_equivalent_loss import LostCompute, compute, lost_compute
from analysis.measures.degradation import summary
from analysis.measures.effective_size import SIZE_METRICS, TEST_LOSS, NoLaw, size_multipliers
from analysis.measures.peak_laws import ESTIMATES, PowerLawOfSize, at_worst, peak_law, power_law_of_size
from analysis.measures.peaks import Peak, peaks, worst_repeats
from analysis.published import C26_WORST_REPEATS, H22_LEFT_EDGE
from analysis.report import published_comparison
from analysis.report.findings import findings
from analysis.report.summary import summarize, worst_arms
from analysis.runs import Runs, load_runs
from data_prep.token_store import TokenStore
from repeat_study.config.corpora import StudyTexts
from repeat_study.config.model_sizes import shape_of
from repeat_study.config.run import Run
from repeat_study.config.study import Study

MODELS = ("2x32", "2x64", "2x128", "2x256")
TRIED = [2**power for power in range(2, 13)]
TOKENS = 2**26  # not trained on; large enough for a pool at every R
WIDTH = 0.4  # decades
TO_HALF = 10 ** (WIDTH * (2 * np.log(2)) ** 0.5)  # factor in R from the center of a Gaussian to half its height
EXPONENT = -0.4


def size(model: str) -> int:
    return shape_of(model).parameters_non_embedding


def center(model: str) -> float:
    """The R of the planted peak, 350 at the smallest size."""
    return float(350 * (size(model) / size(MODELS[0])) ** EXPONENT)


def highest(model: str) -> float:
    """The planted excess at the worst of the R tried."""
    return float(np.exp(-((np.log10(np.array(TRIED) / center(model)) / WIDTH) ** 2) / 2).max())


def clean(model: str) -> float:
    return float(2 + 40 * size(model) ** -0.3)


def plant(
    folder: Path,
    template: Run,
    store: TokenStore,
    models: Sequence[str] = MODELS,
    tried: Sequence[int] = TRIED,
    seeds: int = 2,
    fraction: float = 0.1,
    height: float = 1.0,
) -> Runs:
    """Write runs whose excess loss is a Gaussian in log R, 2% higher for odd seeds and 2% lower for even seeds."""
    for seed in range(seeds):
        sign = 2 * (seed % 2) - 1 if seeds > 1 else 0
        fields = {"seed": seed, "tokens": TOKENS}
        for model in models:
            write_run(folder, template, store, [5.0, clean(model)], model=model, repeats=1, **fields)
            for repeats in tried:
                away = np.log10(repeats / center(model)) / WIDTH
                excess = height * np.exp(-(away**2) / 2) * (1 + 0.02 * sign) + 0.003 * sign
                losses = [9.0, clean(model) + float(excess)]
                write_run(
                    folder, template, store, losses, model=model, repeats=repeats, repeated_fraction=fraction, **fields
                )
    return load_runs(folder)


@pytest.fixture(scope="module")
def planted(study: Study, store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return plant(tmp_path_factory.mktemp("planted"), study.runs(StudyTexts(store.fingerprint))[0], store)


def test_planted_peaks_are_found_within_their_intervals(planted: Runs) -> None:
    estimated = peaks(planted)
    assert [peak.model for peak in estimated] == list(MODELS)
    for peak in estimated:
        assert peak.interior and peak.seeds == 2
        assert peak.height.value == pytest.approx(highest(peak.model), rel=0.01), "the height is measured at an R tried"
        assert peak.height.low < highest(peak.model) < peak.height.high
        assert peak.worst.value in TRIED and peak.worst.low < center(peak.model) < peak.worst.high
        assert peak.gaussian is not None
        assert peak.gaussian.value == pytest.approx(center(peak.model), rel=0.01) and peak.gaussian_misses < 0.01
        assert peak.left.value == pytest.approx(center(peak.model) / TO_HALF, rel=0.07), (
            "the height is measured at a single R"
        )
        assert peak.right.value == pytest.approx(center(peak.model) * TO_HALF, rel=0.07)
        assert peak.left.low < peak.left.value < peak.left.high
        assert peak.pool(peak.gaussian).value == pytest.approx(0.1 * TOKENS / center(peak.model), rel=0.01)
        assert peak.pool(peak.worst).low == pytest.approx(0.1 * TOKENS / peak.worst.high)


@pytest.mark.parametrize("quantity", ["left", "right"])
def test_edges_follow_the_planted_power_law(planted: Runs, quantity: str) -> None:
    law = peak_law(peaks(planted), quantity)
    assert isinstance(law, PowerLawOfSize) and law.sizes == 4 and law.interval == "95% over seeds"
    assert law.law.exponent == pytest.approx(EXPONENT, abs=0.02)
    assert law.exponent.low < law.law.exponent < law.exponent.high
    edge = center("2x64") * (TO_HALF if quantity == "right" else 1 / TO_HALF)
    assert law.law.at(size("2x64")) == pytest.approx(edge, rel=0.04)


def test_the_worst_R_and_its_pool_have_opposite_exponents(planted: Runs) -> None:
    estimated = peaks(planted)
    expected = np.polyfit(
        np.log([peak.total for peak in estimated]), np.log([center(peak.model) for peak in estimated]), 1
    )[0]
    repeats, pool = peak_law(estimated, "gaussian"), peak_law(estimated, "pool_at_gaussian")
    assert isinstance(repeats, PowerLawOfSize) and isinstance(pool, PowerLawOfSize)
    assert repeats.law.exponent == pytest.approx(expected, abs=0.01)
    assert pool.law.exponent == pytest.approx(-repeats.law.exponent), "all sizes have the same tokens"


def test_with_one_seed_only_the_regression_gives_an_interval(
    tmp_path: Path, runs: list[Run], store: TokenStore
) -> None:
    estimated = peaks(plant(tmp_path, runs[0], store, seeds=1))
    for peak in estimated:
        assert peak.seeds == 1 and np.isnan([peak.height.low, peak.worst.high, peak.left.low, peak.right.high]).all()
        assert peak.gaussian is not None and peak.gaussian.value == pytest.approx(center(peak.model), rel=0.001)
    law = peak_law(estimated, "left")
    assert isinstance(law, PowerLawOfSize) and law.interval == "95% from the regression"
    assert law.exponent.low < EXPONENT < law.exponent.high
    assert law.is_determined and law.equation("R").startswith(f"R = {law.law.coefficient:.2g}·N^")
    exponent = Estimate(-0.5, -1.6, 0.6)
    wide = replace(law, exponent=exponent)
    assert not wide.is_determined and wide.equation("R").startswith("exponent of R not determined: -0.50 [-1.60, 0.60;")


@pytest.mark.parametrize(
    ("tried", "bound"), [((4, 8, 16, 32, 64), Bound.AT_LEAST), ((1024, 2048, 4096, 8192), Bound.AT_MOST)]
)
def test_a_peak_beyond_the_R_tried_is_a_bound_and_is_left_out_of_laws(
    tmp_path: Path, runs: list[Run], store: TokenStore, tried: list[int], bound: Bound
) -> None:
    estimated = peaks(plant(tmp_path, runs[0], store, models=MODELS[:3], tried=tried))[:1]
    (peak,) = estimated
    assert not peak.interior and peak.worst.value == (max(tried) if bound is Bound.AT_LEAST else min(tried))
    assert {peak.worst.bound, peak.left.bound, peak.right.bound} == {bound}
    assert peak.gaussian is None, "without a maximum there is no center"
    assert peak.pool(peak.worst).bound is not bound, "a larger R means a smaller pool"
    assert peak.height.bound is Bound.AT_LEAST and np.isnan(peak.height.high)
    assert isinstance(peak_law(estimated * 3, "worst"), NoLaw)


@pytest.mark.parametrize("seeds", [1, 3])
def test_losses_that_rise_to_the_last_R_give_only_a_lower_bound(
    tmp_path: Path, runs: list[Run], store: TokenStore, seeds: int
) -> None:
    """The losses flatten, so a fitted Gaussian would have its center inside the R tried, where no peak was measured."""
    tried, excess = (4, 16, 64, 256, 1024), (0.1, 0.4, 0.7, 0.85, 0.86)
    for model in MODELS[:3]:
        for seed in range(seeds):
            jitter = 0.002 * (seed - (seeds - 1) / 2)
            fields = {"model": model, "seed": seed, "tokens": TOKENS}
            write_run(tmp_path, runs[0], store, [9.0, 3.0 + jitter], repeats=1, **fields)
            for repeats, harm in zip(tried, excess, strict=True):
                losses = [9.0, 3.0 + harm - jitter]
                write_run(tmp_path, runs[0], store, losses, repeats=repeats, repeated_fraction=0.5, **fields)
    loaded = load_runs(tmp_path)
    estimated = peaks(loaded)
    assert len(estimated) == 3
    for peak in estimated:
        assert (peak.worst.value, peak.worst.bound) == (1024, Bound.AT_LEAST) and not peak.interior
        assert np.isnan([peak.worst.low, peak.worst.high, peak.height.low, peak.height.high]).all(), (
            "bounds have no intervals"
        )
        assert peak.gaussian is None and np.isnan(peak.gaussian_misses)
    for quantity in ESTIMATES:
        assert isinstance(peak_law(estimated, quantity), NoLaw), quantity
    figure = peak_location.plot(loaded)
    assert isinstance(figure, Plot)
    assert "have only a bound, which fits exclude: 2x32 (24.6k), f = 50%; 2x64 (98.3k), f = 50%" in figure.caption
    assert "Gaussians deviate" not in figure.caption and "Too few values of R" not in figure.caption
    table = published_comparison.table(loaded)
    assert not table.quantity.str.contains("Gaussian|= k·N").any()
    plt.close(figure.figure)


def test_an_interior_maximum_within_the_noise_between_seeds_is_a_bound(
    tmp_path: Path, runs: list[Run], store: TokenStore
) -> None:
    for seed, (inner, last) in enumerate([(0.80, 0.70), (0.72, 0.79), (0.79, 0.72), (0.70, 0.78)]):
        fields = {"model": "2x32", "seed": seed, "tokens": TOKENS}
        write_run(tmp_path, runs[0], store, [9.0, 3.0], repeats=1, **fields)
        for repeats, harm in ((4, 0.1), (16, 0.4), (64, 0.7), (256, inner), (1024, last)):
            losses = [9.0, 3.0 + harm]
            write_run(tmp_path, runs[0], store, losses, repeats=repeats, repeated_fraction=0.5, **fields)
    loaded = load_runs(tmp_path)
    (peak,) = peaks(loaded)
    assert (peak.worst.value, peak.worst.bound, peak.gaussian) == (256, Bound.AT_LEAST, None)
    numbers = summary(loaded)
    sentence = next(
        sentence
        for sentence in findings(numbers)
        if sentence.startswith("2x32 (24.6k), f = 50%: the worst R is 256 (5 values tried)")
    )
    assert sentence.endswith(". Given the noise between seeds, the true worst R may be at the edge of the range tried.")
    (arm,) = worst_arms(numbers).itertuples()
    assert (arm.repeats, arm.interior, arm.at_edge) == (256, False, False)
    assert (
        "R = 256 (1 of 1 size; given the noise between seeds, the true worst R may be at the edge of the range tried)"
        in summarize(loaded, numbers)[1]
    )


def test_peaks_findings_and_the_summary_agree_on_interior_maxima(planted: Runs) -> None:
    assert all(peak.interior for peak in peaks(planted))
    numbers = summary(planted)
    assert worst_arms(numbers).interior.all()
    assert " ".join(findings(numbers)).count(". Fewer and more repeats both do less harm.") == len(MODELS)
    assert (
        f"({len(MODELS)} of {len(MODELS)} sizes; fewer and more repeats do less harm)" in summarize(planted, numbers)[1]
    )


def test_the_worst_R_is_a_bound_if_an_end_is_worst_in_more_than_5_percent_of_the_resamples() -> None:
    def worst(*arms: list[float], shared_seeds: bool = False) -> tuple[int, Bound]:
        rows = [
            (4**power, loss, place if shared_seeds else 10 * power + place)
            for power, losses in enumerate(arms, start=1)
            for place, loss in enumerate(losses)
        ]
        repeats, losses, seeds = (pd.Series(column) for column in zip(*rows, strict=True))
        return worst_repeats(repeats, losses, seeds)

    assert worst([3.0, 3.1], [4.0, 4.1], [3.5, 3.6]) == (16, Bound.EXACT)
    assert worst([3.0, 3.1], [4.0, 4.1], [3.0, 5.0]) == (16, Bound.AT_LEAST)
    assert worst([3.0, 5.0], [4.0, 4.1], [3.0, 3.1]) == (16, Bound.AT_MOST)
    assert worst([3.0], [4.0], [3.9]) == (16, Bound.EXACT), "one seed shows no noise"
    assert worst([3.0, 3.1], [3.2, 3.3], [4.0, 4.1]) == (64, Bound.AT_LEAST)
    assert worst([4.0, 4.1], [3.2, 3.3]) == (4, Bound.AT_MOST)
    arms = [2.0, 3.0, 4.0], [2.2, 3.2, 4.2], [2.1, 3.1, 4.1]
    assert worst(*arms)[1] is not Bound.EXACT
    assert worst(*arms, shared_seeds=True) == (16, Bound.EXACT), "the noise that seeds share cancels"


def test_the_height_of_a_peak_is_paired_by_seed(tmp_path: Path, runs: list[Run], store: TokenStore) -> None:
    for folder, seeds_of_arms in (("shared", [0, 1, 2]), ("different", [3, 4, 5])):
        for offset, clean_seed, arm_seed in zip((0.0, 0.4, 0.9), (0, 1, 2), seeds_of_arms, strict=True):
            fields = {"model": "2x32", "tokens": TOKENS}
            write_run(tmp_path / folder, runs[0], store, [9.0, 3.0 + offset], repeats=1, seed=clean_seed, **fields)
            for repeats, harm in ((4, 0.1), (16, 0.3), (64, 0.2)):
                losses = [9.0, 3.0 + harm + offset]
                fields |= {"repeats": repeats, "repeated_fraction": 0.5, "seed": arm_seed}
                write_run(tmp_path / folder, runs[0], store, losses, **fields)
    (shared,), (different,) = (peaks(load_runs(tmp_path / folder)) for folder in ("shared", "different"))
    assert shared.height.value == pytest.approx(0.3) and different.height.value == pytest.approx(0.3)
    assert [shared.height.low, shared.height.high] == pytest.approx([0.3, 0.3])
    assert not shared.worst.bound
    more = {"repeats": 1, "tokens": TOKENS, "model": "2x32"}
    for seed, loss in ((7, 3.2), (8, 3.6)):  # clean runs without repeated runs
        write_run(tmp_path / "shared", runs[0], store, [9.0, loss], seed=seed, **more)
    (unchanged,) = peaks(load_runs(tmp_path / "shared"))
    assert unchanged == shared, "only the clean runs of the arms' seeds count"
    assert different.height.high - different.height.low > 0.5, "arms and clean runs do not share seeds"


def test_an_edge_beyond_the_R_tried_is_a_bound_even_if_the_peak_is_exact(
    tmp_path: Path, runs: list[Run], store: TokenStore
) -> None:
    (peak,) = peaks(plant(tmp_path, runs[0], store, models=["2x32"], tried=[128, 256, 512, 1024]))
    assert peak.interior
    assert (peak.left.bound, peak.left.value) == (Bound.AT_MOST, pytest.approx(128))
    assert (peak.right.bound, peak.right.value) == (Bound.AT_LEAST, pytest.approx(1024))


def test_a_peak_needs_several_R_harm_and_clean_runs(tmp_path: Path, runs: list[Run], store: TokenStore) -> None:
    few = plant(tmp_path / "few", runs[0], store, models=["2x32"], tried=[128, 256, 512], seeds=1)
    assert peaks(few)[0].gaussian is None
    assert peaks(plant(tmp_path / "one", runs[0], store, models=["2x32"], tried=[256])) == []
    assert peaks(plant(tmp_path / "none", runs[0], store, models=["2x32"], height=-1.0, seeds=1)) == []
    for unfinished in (tmp_path / "few").glob("*R256*"):
        (unfinished / "done.json").unlink()
    (left,) = peaks(load_runs(tmp_path / "few"))
    assert left.repeats == (128, 512)
    for unfinished in (tmp_path / "few").glob("*clean*"):
        (unfinished / "done.json").unlink()
    assert peaks(load_runs(tmp_path / "few")) == []


def test_a_second_pool_seed_counts_as_another_run_of_the_arm(
    tmp_path: Path, runs: list[Run], store: TokenStore
) -> None:
    plant(tmp_path, runs[0], store, models=["2x32"], tried=[64, 256, 1024], seeds=1)
    fields = {"model": "2x32", "repeats": 256, "repeated_fraction": 0.1, "pool_seed": 1, "tokens": TOKENS}
    write_run(tmp_path, runs[0], store, [9.0, clean("2x32") + 2], **fields)
    (peak,) = peaks(load_runs(tmp_path))
    once = np.exp(-((np.log10(256 / 350) / WIDTH) ** 2) / 2)
    assert peak.height.value == pytest.approx((once + 2) / 2)
    assert peak.seeds == 1 and np.isnan(peak.height.low), "the other arms and the clean run have one seed"


def test_the_gaussian_agrees_with_an_optimizer(tmp_path: Path, runs: list[Run], store: TokenStore) -> None:
    rng = np.random.default_rng(0)
    x = np.log10(TRIED)
    y = np.exp(-((x - 2.2) ** 2) / (2 * 0.6**2)) + rng.normal(0, 0.1, len(x))
    write_run(tmp_path, runs[0], store, [5.0, 3.0], repeats=1, tokens=TOKENS)
    for repeats, excess in zip(TRIED, y, strict=True):
        write_run(tmp_path, runs[0], store, [9.0, 3 + excess], repeats=repeats, repeated_fraction=0.5, tokens=TOKENS)
    (peak,) = peaks(load_runs(tmp_path))

    def fitted(x: np.ndarray, h: float, c: float, w: float) -> np.ndarray:
        return h * np.exp(-((x - c) ** 2) / (2 * w**2))

    best, _ = curve_fit(fitted, x, y, [1, 2, 0.5])
    expected = best[1]
    assert peak.gaussian is not None and np.log10(peak.gaussian.value) == pytest.approx(expected, abs=0.01)
    assert peak.gaussian_misses == pytest.approx(np.abs(fitted(x, *best) - y).max(), abs=0.005)


def test_a_power_law_leaves_out_bounds_and_needs_three_sizes() -> None:
    sizes = [1e4, 1e5, 1e6, 1e7]
    values = [Estimate(5e3 * size**-0.5) for size in sizes[:3]]
    law = power_law_of_size(sizes, [*values, Estimate(900.0, bound=Bound.AT_MOST)])
    assert isinstance(law, PowerLawOfSize) and law.sizes == 3
    assert law.law.exponent == pytest.approx(-0.5) and law.law.coefficient == pytest.approx(5e3)
    short = power_law_of_size(sizes[:3], [*values[:2], None])
    assert isinstance(short, NoLaw) and "at 2 sizes; a power law needs 3" in short.reason


def test_planted_lost_compute_is_recovered_and_never_extrapolated(
    tmp_path: Path, runs: list[Run], store: TokenStore
) -> None:
    """Tokens grow with size, as in compute-optimal training. The worst R wastes half of the compute."""

    def law(spent: float) -> float:
        return 1.5 + 2e3 * spent**-0.3

    for place, model in enumerate(MODELS):
        fields = {"model": model, "tokens": TOKENS * 4**place}
        write_run(tmp_path, runs[0], store, [9.0, 1.0], repeats=1, **fields)
    spent = dict(zip(*(load_runs(tmp_path).done.pipe(lambda t: (t.model, compute(t)))), strict=True))
    for place, model in enumerate(MODELS):
        fields = {"model": model, "tokens": TOKENS * 4**place}
        write_run(tmp_path, runs[0], store, [9.0, law(spent[model])], repeats=1, seed=1, **fields)
        for repeats, share in ((4, 0.9), (16, 0.5), (64, 0.8)):
            losses = [9.0, law(share * spent[model])]
            write_run(tmp_path, runs[0], store, losses, repeats=repeats, repeated_fraction=0.1, seed=1, **fields)
    for planted_without_a_law in tmp_path.glob("*-s0-*"):
        (planted_without_a_law / "done.json").unlink()
    loaded = load_runs(tmp_path)
    wasted = lost_compute(loaded)
    assert isinstance(wasted, LostCompute)
    small, *larger = peaks(loaded)
    at_smallest = at_worst(loaded, small, wasted.lost)
    assert at_smallest is not None and at_smallest.bound is Bound.AT_LEAST
    assert at_smallest.value == pytest.approx(0.0, abs=1e-6)
    for peak in larger:
        lost = at_worst(loaded, peak, wasted.lost)
        assert lost is not None and not lost.bound and lost.value == pytest.approx(0.5, abs=0.02)


def test_lost_compute_needs_three_clean_sizes(planted: Runs) -> None:
    two = Runs(
        planted.folder,
        planted.table[planted.table.model.isin(MODELS[:2])],
        planted.evaluations,
        not_started=[],
        undeclared=[],
    )
    wasted = lost_compute(two)
    assert (
        isinstance(wasted, NoLaw)
        and "clean runs of at least 3 sizes, because it has 3 parameters; found 2" in wasted.reason
    )


def test_published_numbers_are_compared_with_ours(planted: Runs) -> None:
    table = published_comparison.table(planted)
    assert list(table) == published_comparison.COLUMNS

    def row(quantity: str, where: str) -> tuple[float, float, float, float, str]:
        (match,) = table[(table.quantity == quantity) & table["where"].str.startswith(where)].itertuples()
        return match.here, match.low, match.high, match.published, match.bound

    first: Peak = peaks(planted)[0]
    here, low, high, published, _ = row("worst R, Gaussian", "2x32 (24.6k), f = 10%")
    assert low < here < high and here == pytest.approx(350, rel=0.01)
    assert published == pytest.approx(C26_WORST_REPEATS.at(first.total))
    here, low, high, published, _ = row("left edge = k·N^a: a", "4 sizes, f = 10%")
    assert low < here < high and here == pytest.approx(EXPONENT, abs=0.02) and published == H22_LEFT_EDGE.exponent
    here, *_, published, bound = row("size multiplier at the worst R, test loss", "2x256")
    effective = (40 / (clean("2x256") + highest("2x256") - 2)) ** (1 / 0.3)
    assert here == pytest.approx(effective / size("2x256"), rel=0.02)
    assert (bound, published) == (Bound.EXACT, 370 / 800)
    assert row("size multiplier at the worst R, test loss", "2x32")[4] == Bound.AT_MOST
    here, *_, published, _ = row("excess at the worst R (nats)", "2x64")
    assert here == pytest.approx(highest("2x64"), rel=0.01) and np.isnan(published)
    assert not table.quantity.str.startswith("double descent").any(), "planted curves only fall"


def test_multipliers_at_the_worst_R_are_means_over_seeds(tmp_path: Path, runs: list[Run], store: TokenStore) -> None:
    for model in MODELS[:3]:
        for seed in (0, 1):
            fields = {"model": model, "seed": seed, "tokens": TOKENS}
            write_run(tmp_path, runs[0], store, [9.0, clean(model)], repeats=1, **fields)
            for repeats, share in ((4, 0.9), (16, 0.5 if seed else 0.7), (64, 0.8)):
                losses = [9.0, 2 + 40 * (share * size(model)) ** -0.3]
                write_run(tmp_path, runs[0], store, losses, repeats=repeats, repeated_fraction=0.9, **fields)
    loaded = load_runs(tmp_path)
    small, *larger = peaks(loaded)
    multipliers = size_multipliers(loaded, TEST_LOSS)
    for peak in larger:
        mean = at_worst(loaded, peak, multipliers)
        assert mean is not None and mean.value == pytest.approx(0.6, rel=0.01)
        assert mean.high - mean.value == pytest.approx(12.706 * 0.1, rel=0.02), "the t interval of two seeds"
    bounded = at_worst(loaded, small, multipliers)
    assert bounded is not None and bounded.bound is Bound.AT_MOST and np.isnan(bounded.low)
    assert at_worst(loaded, larger[0], size_multipliers(loaded, SIZE_METRICS[-1])) is None, "no heads were measured"
