"""Effective model size: the size at which clean runs reach a run's loss [H22 fig. 4 left]."""

from dataclasses import dataclass
from enum import StrEnum

from analysis.scaling_law import PowerLaw


class Bound(StrEnum):
    """How the value stands to the truth where the law would have to be read outside its fitted range."""

    EXACT = ""
    AT_MOST = "≤"
    AT_LEAST = "≥"


@dataclass(frozen=True)
class Multiplier:
    """N_eff / N, below 1 is harm; never extrapolated, hence the bound."""

    value: float
    bound: Bound


def multiplier(law: PowerLaw, size: float, loss: float) -> Multiplier:
    """Effective-size multiplier of a run of `size` parameters and final `loss` in nats."""
    effective = law.size(loss)
    if effective < law.smallest:
        return Multiplier(law.smallest / size, Bound.AT_MOST)
    if effective > law.largest:
        return Multiplier(law.largest / size, Bound.AT_LEAST)
    return Multiplier(effective / size, Bound.EXACT)
