"""A mean over a probe's sequences, with its 95% interval."""

from scipy.special import stdtrit
from torch import Tensor


def mean_and_interval(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the last axis and half the width of its 95% t interval, float64; the half is NaN for one sample.

    The interval is over the sequences a probe drew: it says how far another draw might have moved the number for these
    same weights, and nothing about another seed of the training.
    """
    samples = samples.double()
    count = samples.shape[-1]
    deviation = samples.std(dim=-1, correction=1) if count > 1 else samples.mean(dim=-1) * float("nan")
    return samples.mean(dim=-1), float(stdtrit(max(count - 1, 1), 0.975)) * deviation / count**0.5


def numbers(name: str, samples: Tensor) -> dict[str, float | None]:
    """`name` and `name_ci` of one row of metrics; None for an interval that one sequence cannot have."""
    mean, half = mean_and_interval(samples)
    return {name: float(mean), f"{name}_ci": None if half.isnan() else float(half)}
