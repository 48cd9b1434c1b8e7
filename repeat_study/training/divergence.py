"""Detect divergence. A run has diverged if one of its metrics is not finite or its loss is far above that of a uniform guess."""

import math
from typing import Any

# A loss above this many times log(vocabulary), the loss of a uniform guess, counts as diverged.
MAX_LOSS_RATIO = 2.0


class Diverged(RuntimeError):
    """A run cannot continue because one of its metrics is not finite or its loss is too large."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


def max_loss(vocabulary: int) -> float:
    """The loss in nats above which a run counts as diverged."""
    return MAX_LOSS_RATIO * math.log(vocabulary)


def divergence_in_training(step: int, loss: float, gradient_norm: float, largest_loss: float) -> Diverged:
    """Make the error for a run whose loss or gradient norm went out of range at training step `step`."""
    return Diverged(
        f"training loss {loss:.4g} nats, gradient norm {gradient_norm:.3g}; expected a loss up to {largest_loss:.4g}",
        step,
    )


def divergence_in_evaluation(row: dict[str, Any], step: int, largest_loss: float) -> Diverged | None:
    """Return an error if an evaluation's metrics show that the run has diverged, otherwise None."""
    for key, value in row.items():
        if isinstance(value, float) and not math.isfinite(value):
            return Diverged(f"{key} is {value}", step)
    # A model that has memorized its pool may have a high loss on all other text.
    # If its pool loss is high too, the weights are ruined and must not be saved.
    if min(row["test_loss"], row["pool_loss"]) > largest_loss:
        losses = f"test loss {row['test_loss']:.4g} and pool loss {row['pool_loss']:.4g} nats"
        return Diverged(f"{losses}; expected up to {largest_loss:.4g}", step)
    return None
