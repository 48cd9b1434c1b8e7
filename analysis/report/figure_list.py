"""List the report's figures in page order. Each name is a module in analysis/figures."""

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
SHOW_ANY_POOL = ("learning_curves", "induction_over_training", "heads", "loss_by_position")
# Figures that compare values of R at the same f. With a pool of fixed size, every R has its own f.
AT_ONE_FRACTION = (*(name for name in FIGURES if name not in SHOW_ANY_POOL), "variant_comparison")
NO_FRACTION = "compares values of R at the same f, but the pool has a fixed size, so every R has its own f"
HEADLINE_FIGURE = "headline"  # on the first screen
NAMED_POOL_FIGURE = "named_pool"  # in studies with a named pool
VARIANT_FIGURES = ("variant_comparison", "retention")  # compare all variants, in studies with more than one
FINE_TUNING_FIGURES = ("ossification", "fine_tuning_curves", "forgetting", "heads_over_fine_tuning")


def plot_figure(name: str, runs: Runs) -> Plot | Missing:
    """Plot a figure of these runs. Its module is imported on first use."""
    if name in AT_ONE_FRACTION and runs.has_fixed_pool:
        return Missing(name, NO_FRACTION)
    figure: Plot | Missing = import_module(f"analysis.figures.{name}").plot(runs)
    return figure
