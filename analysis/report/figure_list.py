"""The figures of the report, in the order of the page: names of files in analysis/figures."""

from importlib import import_module

from analysis.figures.plot import Missing, Plot
from analysis.runs import Runs

FIGURES = (
    "learning_curves",
    "degradation_by_repeats",
    "degradation_by_size",
    "divergence",
    "size_multiplier",
    "poor_performance_band",
    "peak_location",
    "compute_equivalent_loss",
    "pool_loss",
    "repeats_map",
    "law_of_repetition",
    "induction_over_training",
    "heads",
    "copying_and_prefix_sizes",
    "loss_by_position",
    "out_of_distribution",
)
FIGURES_OF_FINE_TUNING = ("ossification", "fine_tuning_curves", "forgetting", "heads_over_fine_tuning")


def plot_figure(name: str, runs: Runs) -> Plot | Missing:
    """Plot one figure of these runs; its file is imported on first use."""
    figure: Plot | Missing = import_module(f"analysis.figures.{name}").plot(runs)
    return figure
