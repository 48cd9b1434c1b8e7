"""The form that all laws share: named constants, a loss for every point, and where they hold."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from analysis.laws.points import Floats, Points

Constants = Mapping[str, float]


@dataclass(frozen=True)
class Constant:
    """A constant of a law and how it is searched for.

    A positive one is fitted as its logarithm. `per` names powers of params or tokens that it is a coefficient of, as
    (column, exponent, sign): then its size at the middle of the points is fitted, which hardly depends on the exponent.
    """

    name: str
    starts: tuple[float, ...]  # in the units of the fit
    low: float
    high: float
    positive: bool = True
    per: tuple[tuple[str, str, int], ...] = ()
    varies: str = ""  # a column that has to vary among the points, or this stays at `otherwise`
    otherwise: float = 0.0


@dataclass(frozen=True)
class Law:
    """A form of L(N, T, f, R) in nats per token."""

    name: str
    title: str
    constants: tuple[Constant, ...]
    loss: Callable[[Constants, Points], Floats]
    only_clean: bool = False  # it knows no repetition and is fitted on clean runs
    one_fraction: bool = False  # it has no f
    held: Constants = field(default_factory=dict)  # constants that are given, not fitted


def held(law: Law, name: str, title: str, **values: float) -> Law:
    """The law with these constants given."""
    return replace(
        law,
        name=name,
        title=title,
        constants=tuple(one for one in law.constants if one.name not in values),
        held=values,
    )


@dataclass(frozen=True)
class Domain:
    """The smallest and largest value of every column that a law was fitted on."""

    params: tuple[float, float]
    tokens: tuple[float, float]
    fraction: tuple[float, float]  # of repeated runs
    repeats: tuple[float, float]
    tokens_per_param: tuple[float, float] | None = None  # where it is narrower than the two

    def outside(self, params: float, tokens: float, fraction: float, repeats: float | None = None) -> list[str]:
        """What of a question lies outside, each as a clause; 1% off is inside."""
        asked = {"params": params, "tokens": tokens, "fraction": fraction, "repeats": repeats}
        if self.tokens_per_param:
            asked["tokens_per_param"] = tokens / params
        said = []
        for name, value in asked.items():
            low, high = getattr(self, name)
            if value is not None and not low / 1.01 <= value <= high * 1.01:
                range_ = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
                said.append(f"{name.replace('_', ' ')} {value:.3g} (fitted on {range_})")
        return said


def domain_of(points: Points) -> Domain:
    """The ranges of these points."""
    repeated = points if points.clean.all() else points[~points.clean]

    def range_of(values: Floats) -> tuple[float, float]:
        return float(values.min()), float(values.max())

    per_param = range_of(points.tokens / points.params)
    most = float(points.repeats.max())
    return Domain(range_of(points.params), range_of(points.tokens), range_of(repeated.fraction), (1.0, most), per_param)


def seen(points: Points, half_life: float) -> Floats:
    """What the tokens of a run are worth in unique ones when each further pass over the pool is worth less
    [M23: D' = U + U·R*·(1 - exp(-r/R*)), r = passes - 1], the tokens outside of the pool being seen once."""
    return (1 - points.fraction) * points.tokens + points.pool * (
        1 + half_life * -np.expm1(-(points.repeats - 1) / half_life)
    )
