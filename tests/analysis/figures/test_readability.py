"""Figures have colors with contrast, lines that differ without color, marked log axes and one name per model size."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from head_runs import SIZES, write_runs_with_heads
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.container import ErrorbarContainer
from matplotlib.lines import Line2D
from written_runs import write_run

from analysis.figures.axes import log_axis
from analysis.figures.panels import grid_of_axes
from analysis.figures.plot import Plot
from analysis.figures.style import UNTRAINED, colors, styles
from analysis.report.figure_list import FIGURES, FINE_TUNING_FIGURES, plot_figure
from analysis.runs import Runs, load_runs
from data_prep.token_store import TokenStore
from repeat_study.config.corpora import StudyTexts
from repeat_study.config.run import Parent, Run
from repeat_study.config.study import Study

Floats = npt.NDArray[np.float64]
LEAST_CONTRAST = 3.0  # WCAG 2.2, success criterion 1.4.11, for graphics on their background
# How red-green color blindness changes linear RGB (Machado et al. 2009, severity 1).
COLOR_VISION = {
    "normal": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(color: object) -> Floats:
    rgb = np.array(to_rgb(color))  # type: ignore[arg-type]
    return np.where(rgb <= 0.03928, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def contrast_on_white(color: object) -> float:
    return 1.05 / (float(TO_XYZ[1] @ linear(color)) + 0.05)


def lab(color: object, vision: str = "normal") -> Floats:
    """The CIELAB coordinates of a color, as perceived with a kind of color vision."""
    xyz = TO_XYZ @ np.clip(np.array(COLOR_VISION[vision]) @ linear(color), 0, 1) / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("count", [*range(1, 13), 30])
def test_every_color_has_enough_contrast_on_white(count: int) -> None:
    assert min(map(contrast_on_white, colors(range(count)).values())) >= LEAST_CONTRAST
    assert contrast_on_white(UNTRAINED) >= LEAST_CONTRAST


@pytest.mark.parametrize("vision", COLOR_VISION)
@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 7, 8])
def test_colors_can_be_told_apart_with_red_green_color_blindness(vision: str, count: int) -> None:
    perceived = [lab(color, vision) for color in colors(range(count)).values()]
    distances = [np.linalg.norm(a - b) for index, a in enumerate(perceived) for b in perceived[:index]]
    assert min(distances) >= 10, "two colors at a distance of 2.3 are just noticeably different"


def test_larger_values_are_lighter_so_the_order_survives_in_gray() -> None:
    for count in range(2, 13):
        assert (np.diff([lab(color)[0] for color in colors(range(count)).values()]) > 0).all()


def test_28_lines_differ_without_color() -> None:
    pairs = [(style["marker"], str(style["linestyle"])) for style in styles(range(28)).values()]
    assert len(set(pairs)) == 28
    assert not {"--", ":"} & {line for _, line in pairs}, "reserved for clean runs and nulls"
    assert not {"^", "v"} & {marker for marker, _ in pairs}, "reserved for bounds"


@pytest.fixture(scope="module")
def plots(study: Study, store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> list[Plot]:
    """The figures of a grid with induction heads and of fine-tuned runs."""
    grid, tuned = tmp_path_factory.mktemp("grid"), tmp_path_factory.mktemp("tuned")
    template = study.runs(StudyTexts(store.fingerprint))[0]
    write_runs_with_heads(grid, template, store)
    write_fine_tuned(tuned, template, store)
    made = [plot_figure(name, load_runs(grid)) for name in FIGURES]
    made += [plot_figure(name, load_runs(tuned)) for name in FINE_TUNING_FIGURES]
    made_plots = [plot for plot in made if isinstance(plot, Plot)]
    assert len(made_plots) >= 14
    return made_plots


def write_fine_tuned(
    folder: Path, template: Run, store: TokenStore, pool_loss: float = 1.0, score: float = 0.5
) -> None:
    """Runs from scratch and fine-tuned ones of two sizes; pool_loss and score: of the repeated parents before fine-tuning."""
    for model, end in (("2x32", 4.0), ("2x64", 3.8)):
        no_heads = [[[0.01, 0.02]]] * 4
        write_run(folder, template, store, [6.0, 5.0, 4.8, end], no_heads, model=model, repeats=1)
        for repeats in (1, 4):
            label = f"{model}-clean-s0" if repeats == 1 else f"{model}-f0.5-R4-s0"
            grid = {"repeats": repeats, "repeated_fraction": 0.0 if repeats == 1 else 0.5, "seed": 0}
            parent = Parent(study="parents", label=label, identity=f"{repeats:064x}", **grid)  # type: ignore[arg-type]
            of_parent = [[3, pool_loss if repeats > 1 else 3, 2.5]] + [[3.2, 2.5 if repeats > 1 else 3.2, 3.0]] * 3
            heads = [[[0.01, score if repeats > 1 else 0.02]]] * 4
            losses = [5.0, 4.9, 4.7, end + 0.1 * repeats]
            fields = {"model": model, "repeats": 1, "parent": parent, "of_parent": of_parent}
            write_run(folder, template, store, losses, heads, **fields)


def log_labels(axes: list[Axes], which: str) -> Iterator[tuple[str, list[str]]]:
    """For every logarithmic axis: its scale, and the labels of it and of the axes that share it."""
    for ax in axes:
        scale = getattr(ax, f"get_{which}scale")()
        if scale != "linear" and ax.get_visible():
            shared = getattr(ax, f"get_shared_{which}_axes")().get_siblings(ax)
            yield scale, [getattr(other, f"get_{which}label")() for other in shared]


@pytest.mark.slow
def test_every_log_axis_says_so_in_its_label(plots: list[Plot]) -> None:
    scales = set()
    for plot in plots:
        for which in ("x", "y"):
            for scale, labels in log_labels(plot.figure.axes, which):
                labels = [label for label in labels if label]
                assert labels and all("log scale" in label for label in labels), plot.name
                scales.add((which, scale))
        for ax in plot.figure.axes:
            for which in ("x", "y"):
                if getattr(ax, f"get_{which}scale")() == "linear":
                    assert "log scale" not in getattr(ax, f"get_{which}label")(), plot.name
    assert scales == {("x", "log"), ("x", "symlog"), ("y", "log")}


def legend_entries(plot: Plot) -> list[tuple[str, Artist]]:
    """The labels of a figure's legends, each with the plotted line or error bars that it names."""
    in_axes: dict[str, Artist] = {
        label: handle for ax in plot.figure.axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    legends = [*plot.figure.legends, *(legend for ax in plot.figure.axes if (legend := ax.get_legend()))]
    return [
        (text.get_text(), in_axes.get(text.get_text(), handle))
        for legend in legends
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
        if handle is not None
    ]


def look(handle: Artist) -> tuple[str, str, bool]:
    """The line style, the marker and whether the marker is hollow: all that distinguishes a line except its color."""
    line = handle.lines[0] if isinstance(handle, ErrorbarContainer) else handle
    assert isinstance(line, Line2D), handle
    dashes = str(line._dash_pattern) + line.get_linestyle()  # type: ignore[attr-defined]
    return dashes, str(line.get_marker()), str(line.get_markerfacecolor()) == "white"


@pytest.mark.slow
def test_no_two_entries_of_a_legend_differ_in_color_alone(plots: list[Plot]) -> None:
    for plot in plots:
        looks: dict[tuple[str, str, bool], str] = {}
        for text, handle in legend_entries(plot):
            if text.endswith(("clean run", "clean runs", "null")):
                continue  # these lines are dotted and have the color of their series
            if plot.name == "heads_over_fine_tuning" and text == "untrained":
                continue  # a straight line
            assert look(handle) not in looks, f"{plot.name}: {text} and {looks.get(look(handle))}"
            looks[look(handle)] = text


def test_every_line_has_enough_contrast_on_white(plots: list[Plot]) -> None:
    for plot in plots:
        for ax in plot.figure.axes:
            for line in ax.lines:
                assert contrast_on_white(line.get_color()) >= LEAST_CONTRAST, (plot.name, line.get_label())


def texts(plot: Plot) -> Iterator[str]:
    for ax in plot.figure.axes:
        yield from (ax.get_title(), ax.get_ylabel())
    yield from (text for text, _ in legend_entries(plot))


def test_a_model_size_has_one_name_in_all_figures(plots: list[Plot]) -> None:
    names = set()
    for plot in plots:
        for text in texts(plot):
            assert not re.search(r"\bN = |\d parameters", text), (plot.name, text)
            for model in re.findall(r"\b\d+x\d+\b", text):
                (name,) = re.findall(rf"{model} \([\d.]+[kM]\)", text)
                names.add(name)
    assert names == {"2x32 (24.6k)", "2x64 (98.3k)", "2x128 (393k)", "1x128 (197k)"}


def test_curves_of_test_loss_name_the_evaluations_they_leave_out(plots: list[Plot]) -> None:
    by_name = {plot.name: plot for plot in plots}
    for name in ("learning_curves", "fine_tuning_curves"):
        plot = by_name[name]
        total = plot.table.tokens.max()
        assert re.search(r"The first 2% of training \(up to [\d.]+k? tokens\) is omitted because", plot.caption)
        first = min(np.min(line.get_xdata()) for ax in plot.figure.axes for line in ax.lines if len(line.get_xdata()))
        assert first >= 0.02 * total and plot.table.tokens.min() == 0, "the table lists every evaluation"
    assert "In the test-loss panels, the first 2%" in by_name["induction_over_training"].caption


def test_rows_of_heads_share_their_scales(plots: list[Plot]) -> None:
    (heads,) = (plot for plot in plots if plot.name == "heads")
    ablation = [ax for ax in heads.figure.axes if "copying gain lost" in ax.get_ylabel()]
    assert len(ablation) == len(SIZES) + 1
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in ablation}) == 1
    images = [image for ax in heads.figure.axes for image in ax.images]
    assert len({(image.norm.vmin, image.norm.vmax) for image in images}) == 1
    low, high = ablation[0].get_ylim()
    assert low < heads.table.ablation_copying_gain.min() and heads.table.ablation_copying_gain.max() < high


@pytest.mark.parametrize(("low", "high"), [(3.9, 5.8), (5.2, 5.9), (0.3, 1.2), (1e-3, 1.0), (1.0, 1000.0)])
def test_a_log_axis_has_at_least_three_labeled_ticks(low: float, high: float) -> None:
    figure, axes = grid_of_axes(1, 1)
    log_axis(axes[0][0], "loss")
    axes[0][0].set_ylim(low, high)
    figure.canvas.draw()
    ticks = [tick for tick in axes[0][0].get_yticks() if low <= tick <= high]
    assert 3 <= len(ticks) <= 12 and axes[0][0].get_ylabel() == "loss (log scale)"


def plotted(name: str, runs: Runs) -> Plot:
    plot = plot_figure(name, runs)
    assert isinstance(plot, Plot), plot
    return plot


def test_figures_of_heads_are_noise_if_none_formed(tmp_path: Path, runs: list[Run], store: TokenStore) -> None:
    for repeats in (1, 4):
        quiet = [[[0.01, 0.02], [0.01, 0.03]], [[0.01, 0.02], [0.01, 0.04]], [[0.02, 0.01], [0.03, 0.01]]]
        fields = {"model": "2x32", "repeats": repeats, "repeated_fraction": 0.5}
        write_run(tmp_path, runs[0], store, [6.0, 5.0, 4.0], quiet, **fields)
    loaded = load_runs(tmp_path)
    noise = {plotted(name, loaded).noise for name in ("heads", "induction_over_training")}
    (reason,) = noise
    assert reason is not None and reason.title == "Induction heads: none formed"
    assert (
        "No induction head formed in any of the 2 runs: the best head's prefix matching never stays above"
        in reason.sentence
    )
    assert "The largest score relative to its null is 0.04 (null 0.0312), in 2x32-" in reason.sentence
    assert plotted("learning_curves", loaded).noise is None


def test_figures_of_heads_are_no_noise_if_one_formed(plots: list[Plot]) -> None:
    assert {plot.name: plot.noise for plot in plots if plot.noise} == {}


def test_forgetting_is_noise_if_no_parent_had_memorized_its_pool(
    tmp_path: Path, runs: list[Run], store: TokenStore
) -> None:
    write_fine_tuned(tmp_path, runs[0], store, pool_loss=2.996, score=0.02)
    loaded = load_runs(tmp_path)
    forgetting, heads = plotted("forgetting", loaded).noise, plotted("heads_over_fine_tuning", loaded).noise
    assert forgetting is not None and heads is not None
    assert (
        "No parent had memorized its pool in any of the 2 fine-tuned runs with a repeated parent" in forgetting.sentence
    )
    assert "The largest difference is 0.004 nats, in 2x" in forgetting.sentence
    assert "No induction head exists before or after training in any of the 6 runs" in heads.sentence
