"""In-context learning: how much lower the loss is late in the context than early on [O22].

The score is computed from the test losses. Its null is the untrained model, whose score is 0 apart from noise.
"""

from typing import Any

from torch import Tensor

from repeat_study.probes.intervals import numbers
from repeat_study.probes.positions import position_bands, windows


def in_context_scores(losses_bt: Tensor) -> Tensor:
    """Each sequence's late loss minus its early loss in nats, [..., batch, time] to [..., batch]; negative for in-context learning."""
    early, late = windows(losses_bt.shape[-1])
    return losses_bt[..., late].double().mean(dim=-1) - losses_bt[..., early].double().mean(dim=-1)


def in_context(losses_bt: Tensor) -> dict[str, Any]:
    """Compute the in-context score, its interval and the mean loss in each position band from losses [batch, time] in nats."""
    by_position = losses_bt.double().mean(dim=0)
    bands = position_bands(losses_bt.shape[1])
    return {
        **numbers("in_context_score", in_context_scores(losses_bt)),
        "loss_by_position": [float(by_position[low:high].mean()) for low, high in bands],
    }
