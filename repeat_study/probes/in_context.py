"""In-context learning: how much lower the loss is late in a context than early in it [O22].

Computed from the test losses. The null is the untrained model, whose score is 0 up to noise.
"""

from typing import Any

from torch import Tensor

from repeat_study.probes.intervals import numbers
from repeat_study.probes.positions import position_bands, windows


def in_context_scores(losses_bt: Tensor) -> Tensor:
    """Late minus early loss of every sequence in nats, [..., batch, time] to [..., batch]; negative means learning."""
    early, late = windows(losses_bt.shape[-1])
    return losses_bt[..., late].double().mean(dim=-1) - losses_bt[..., early].double().mean(dim=-1)


def in_context(losses_bt: Tensor) -> dict[str, Any]:
    """From losses [batch, time] in nats: the in-context score, its interval, and the mean loss in each position band."""
    by_position = losses_bt.double().mean(dim=0)
    bands = position_bands(losses_bt.shape[1])
    return {
        **numbers("in_context_score", in_context_scores(losses_bt)),
        "loss_by_position": [float(by_position[low:high].mean()) for low, high in bands],
    }
