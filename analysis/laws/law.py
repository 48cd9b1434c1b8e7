"""What every law has: named constants, a loss for every point, and the range that its constants are valid for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from analysis.formatting import short_count, span
from analysis.laws.points import Floats, Points

Constants = Mapping[str, float]


class Power(NamedTuple):
    """A factor column^(sign·exponent) of a law, such as N^-alpha: Power("params", "alpha", -1)."""

    column: str  # params or tokens
    exponent: str  # name of the constant in the exponent
    sign: int


@dataclass(frozen=True)
class Constant:
    """A constant of a law and where a fit searches for it.

    A positive constant is fitted as its logarithm. If it multiplies powers of params or tokens, the fit searches for the
    whole product at the geometric mean of the points, which hardly depends on the exponents.
    """

    name: str
    starts: tuple[float, ...]  # of the fitted value
    low: float  # of the fitted value
    high: float
    positive: bool = True
    multiplies: tuple[Power, ...] = ()
    needs_several: str = (
        ""  # a column; if all points share one value of it, the constant is not fitted but set to `default`
    )
    default: float = 0.0


@dataclass(frozen=True)
class Law:
    """A formula for the loss L(N, T, f, R) in nats per token.

    A file of `analysis/laws` defines a law; `registry.LAWS` lists them.
    """

    name: str
    title: str
    constants: tuple[Constant, ...]
    loss: Callable[[Constants, Points], Floats]
    clean_only: bool = False  # it has no R, so it is fitted on clean runs only
    ignores_fraction: bool = False  # it has no f, so a fit needs repeated runs of one fraction
    fixed: Constants = field(default_factory=dict)  # constants that are not fitted
    variants: "tuple[Law, ...]" = ()  # forms with other fixed constants, for cross-validation only
    caveat: str = ""  # what a reader of its cross-validation has to know
    published: "Published | None" = None


def with_fixed(law: Law, name: str, title: str, **values: float) -> Law:
    """The law with these constants fixed."""
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
    """Smallest and largest value of every column that a law was fitted on."""

    params: tuple[float, float]
    tokens: tuple[float, float]
    fraction: tuple[float, float]  # of repeated runs
    repeats: tuple[float, float]
    tokens_per_param: tuple[float, float] | None = None  # if it is narrower than params and tokens imply

    def outside(self, params: float, tokens: float, fraction: float, repeats: float | None = None) -> list[str]:
        """A clause for every value outside the domain by more than 1%."""
        values = {"params": params, "tokens": tokens, "fraction": fraction, "repeats": repeats}
        if self.tokens_per_param:
            values["tokens_per_param"] = tokens / params
        clauses = []
        for name, value in values.items():
            low, high = getattr(self, name)
            if value is not None and not low / 1.01 <= value <= high * 1.01:
                name_in_words, form = _DOMAIN_WORDS[name]
                clauses.append(f"{name_in_words} {form(value)} (fitted on {span((low, high), form)})")
        return clauses


@dataclass(frozen=True)
class Published:
    """A law with the constants that its paper gives.

    loss: nats per token. alternatives: the same with other constants that the paper allows; their range is the interval.
    noise: nats by which two runs at R differ that differ only in their data; it replaces the interval.
    """

    loss: Callable[[Points], Floats]
    domain: Domain
    notes: tuple[str, ...] = ()
    alternatives: tuple[Callable[[Points], Floats], ...] = ()
    noise: Callable[[float], float] | None = None


def domain_of(points: Points) -> Domain:
    """The domain that these points span."""
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
