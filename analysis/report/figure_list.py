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

# One sentence per figure, under its heading.
WHAT_TO_SEE = {
    "learning_curves": "A line that rises and then falls again is double descent.",
    "degradation_by_repeats": "If a line has a peak, a moderate R does the most harm, and fewer and more repeats do less.",
    "degradation_by_size": "The further a line is above the dashed clean law, the more repetition costs at that size.",
    "divergence": "Compare where test loss leaves the clean law with where the pool loss goes to zero.",
    "size_multiplier": "A multiplier of 0.5 means that the run is only as good as a clean model of half its size.",
    "poor_performance_band": "In the gray band, the cost is at least half of its maximum. R outside the band can be harmful too.",
    "peak_location": "If the points fall with size, larger models are harmed most by fewer repeats.",
    "compute_equivalent_loss": "The height of a line is the share of compute that repetition wasted.",
    "pool_loss": "Compare the R at which the pool is memorized with the R at which test loss is highest.",
    "repeats_map": "Compare the values of R at which harm, memorization, copying and heads change.",
    "law_of_repetition": "The closer the points are to the lines, the better one law describes all runs.",
    "induction_over_training": "A curve that rises above twice its dotted null shows that induction heads have formed.",
    "heads": "A cell that is outlined in the clean run but not in a repeated one is an induction head that repetition broke.",
    "copying_and_prefix_sizes": "If these multipliers are lower than that of test loss, copying suffers more than prediction in general.",
    "loss_by_position": "A flat curve means that the model makes little use of its context.",
    "out_of_distribution": "If the lines agree, repetition harms other text as much as the training distribution.",
    "named_pool": "A pool helps where its domain's loss falls and the general loss does not rise.",
    "variant_comparison": "Lines that differ by more than their bars show that the factor matters.",
    "retention": "A line that falls quickly shows that a repeated sequence is soon forgotten.",
    "ossification": "A line above training from scratch means that starting from this parent is harmful.",
    "fine_tuning_curves": "The distance between the lines shows how long the starting point matters.",
    "forgetting": "A loss on the parent's text that rises during fine-tuning shows forgetting.",
    "heads_over_fine_tuning": "The curves show whether fine-tuning repairs or breaks induction heads.",
}


def plot_figure(name: str, runs: Runs) -> Plot | Missing:
    """Plot a figure of these runs. Its module is imported on first use."""
    if name in AT_ONE_FRACTION and runs.has_fixed_pool:
        return Missing(name, NO_FRACTION)
    figure: Plot | Missing = import_module(f"analysis.figures.{name}").plot(runs)
    return figure
