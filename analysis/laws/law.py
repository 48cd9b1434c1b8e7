"""Define what a law consists of: its constants, its loss function, and the range of runs that it was fitted on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from analysis.formatting import short_count, span
from analysis.laws.points import Floats, Points

Constants = Mapping[str, float]


class Power(NamedTuple):
    """A factor column^(sign·exponent) in a law. For example, N^-alpha is Power("params", "alpha", -1)."""

    column: str  # params or tokens
    exponent: str  # name of the constant that is the exponent
    sign: int


@dataclass(frozen=True)
class Constant:
    """A constant of a law, with the range in which a fit searches for it.

    For a positive constant, the fit searches for its logarithm. If the constant multiplies powers of N or T, the fit searches for the
    whole product, evaluated at the geometric mean of the points, because this product hardly depends on the exponents.

    needs_several: a column. If its value is the same for all points, the constant is set to `default` instead of being fitted.
    """

    name: str
    starts: tuple[float, ...]  # starting points of the search for the fitted value
    low: float  # bounds on the fitted value
    high: float
    positive: bool = True
    multiplies: tuple[Power, ...] = ()
    needs_several: str = ""
    default: float = 0.0


@dataclass(frozen=True)
class Law:
    """A formula for the loss L(N, T, f, R) in nats per token; `registry.LAWS` lists all laws.

    name: the key in options and files. title: the name for readers. idea: what the law assumes, as a clause.
    """

    name: str
    title: str
    idea: str
    constants: tuple[Constant, ...]
    loss: Callable[[Constants, Points], Floats]
    clean_only: bool = False  # no R in the law, so it is fitted on clean runs only
    ignores_fraction: bool = False  # no f in the law, so all repeated runs in a fit must share one fraction
    fixed: Constants = field(default_factory=dict)  # constants that are not fitted
    variants: "tuple[Law, ...]" = ()  # the same formula with other fixed constants, for cross-validation only
    caveat: str = ""  # a caution to print with cross-validation results
    published: "Published | None" = None


def with_fixed(law: Law, name: str, title: str, **values: float) -> Law:
    """A variant of the law with the constants in `values` held fixed."""
    free = tuple(constant for constant in law.constants if constant.name not in values)
    return replace(law, name=name, title=title, constants=free, fixed=values, variants=(), caveat="", published=None)


_DOMAIN_WORDS: dict[str, tuple[str, Callable[[float], str]]] = {
    "params": ("parameters", short_count),
    "tokens": ("tokens", short_count),
    "fraction": ("repeated fraction", "{:.3g}".format),
    "repeats": ("repeats", lambda value: f"{value:,.4g}" if value < 1e4 else short_count(value)),
    "tokens_per_param": ("tokens per parameter", "{:.3g}".format),
}


@dataclass(frozen=True)
class Domain:
    """The range of runs that a law was fitted on: the smallest and largest values of every column."""

    params: tuple[float, float]
    tokens: tuple[float, float]
    fraction: tuple[float, float]  # of the repeated runs
    repeats: tuple[float, float]
    tokens_per_param: tuple[float, float] | None = None  # given if this range is narrower than params and tokens imply

    def outside(self, params: float, tokens: float, fraction: npt.ArrayLike, repeats: npt.ArrayLike) -> list[str]:
        """One clause for every quantity that is outside the domain by more than 1%. `fraction` and `repeats` can be arrays."""
        values = {"params": params, "tokens": tokens, "fraction": fraction, "repeats": repeats}
        if self.tokens_per_param:
            values["tokens_per_param"] = tokens / params
        clauses = []
        for name, value in values.items():
            low, high = getattr(self, name)
            array = np.atleast_1d(np.asarray(value, float))
            beyond = array[~((low / 1.01 <= array) & (array <= high * 1.01))]
            if len(beyond):
                name_in_words, form = _DOMAIN_WORDS[name]
                clauses.append(f"{name_in_words} {span(beyond, form)} (fitted on {span((low, high), form)})")
        return clauses


@dataclass(frozen=True)
class Published:
    """A law with constants from its paper.

    loss: in nats per token. alternatives: the loss with other constants that the paper supports; the interval spans them. noise: the
    loss difference in nats between two runs that differ only in their data, as a function of R. If given, the interval is the loss plus
    or minus this difference.
    """

    loss: Callable[[Points], Floats]
    domain: Domain
    notes: tuple[str, ...] = ()
    alternatives: tuple[Callable[[Points], Floats], ...] = ()
    noise: Callable[[float], float] | None = None


def domain_of(points: Points) -> Domain:
    """The domain spanned by these points."""
    repeated = points if points.clean.all() else points[~points.clean]

    def ends(values: Floats) -> tuple[float, float]:
        return float(values.min()), float(values.max())

    return Domain(
        params=ends(points.params),
        tokens=ends(points.tokens),
        fraction=ends(repeated.fraction),
        repeats=(1.0, float(points.repeats.max())),
        tokens_per_param=ends(points.tokens / points.params),
    )
