"""Means over a probe's sequences, with 95% intervals."""

from scipy.special import stdtrit
from torch import Tensor


def mean_and_interval(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the last axis, and the half-width of its 95% t interval, both float64. The half-width is NaN for a single sample.

    The interval reflects the choice of the probe's sequences, but not the choice of training seed.
    """
    samples = samples.double()
    count = samples.shape[-1]
    deviation = samples.std(dim=-1, correction=1) if count > 1 else samples.mean(dim=-1) * float("nan")
    return samples.mean(dim=-1), float(stdtrit(max(count - 1, 1), 0.975)) * deviation / count**0.5


def numbers(key: str, samples: Tensor) -> dict[str, float | None]:
    """Return the mean of `samples` as `key`, and the half-width of its interval (None for a single sample) as `key_ci`."""
    mean, half = mean_and_interval(samples)
    return {key: float(mean), f"{key}_ci": None if half.isnan() else float(half)}
