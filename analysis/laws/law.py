"""Define what a law consists of: its constants, its loss function, and the range of runs that it was fitted on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from analysis.formatting import short_count, span
from analysis.laws.points import Floats, Points

Constants = Mapping[str, float]


class Power(NamedTuple):
    """A factor column^(sign·exponent) in a law. For example, N^-alpha is Power("params", "alpha", -1)."""

    column: str  # params, tokens or fraction
    exponent: str | float  # the exponent, or the name of the constant that is the exponent
    sign: int


@dataclass(frozen=True)
class Constant:
    """A constant of a law, with the range in which a fit searches for it.

    For a positive constant, the fit searches for its logarithm. If the constant multiplies powers of N, T or f, the fit searches for the
    whole product, evaluated at a reference point amid the runs, because this product hardly depends on the exponents. Starts, bounds and
    prior then refer to the product.

    needs_several: a column. Without a prior, the constant is set to `default` if this column has the same value for all points.
    prior: mean and standard deviation of a normal prior. For a positive constant, the mean is its median, and the standard deviation
        refers to its natural logarithm.
    """

    name: str
    starts: tuple[float, ...]  # starting points of the search for the fitted value
    low: float  # bounds on the fitted value
    high: float
    positive: bool = True
    multiplies: tuple[Power, ...] = ()
    needs_several: str = ""
    default: float = 0.0
    prior: tuple[float, float] | None = None


@dataclass(frozen=True)
class Law:
    """A formula for what repetition costs; `registry.LAWS` lists all laws.

    name: the key in options and files. title: the name for readers. idea: what the law assumes, as a clause.
    penalty: the loss above a clean run of the same size and tokens, in nats per token, for N, T, f and R.
    clean_loss: the loss of a clean run. None if the penalty does not depend on the constants of a clean law; another law then describes
        the clean runs.
    """

    name: str
    title: str
    idea: str
    constants: tuple[Constant, ...]
    penalty: Callable[[Constants, Points], Floats]
    clean_loss: Callable[[Constants, Points], Floats] | None = None
    clean_only: bool = False  # no R in the law, so it is fitted on clean runs only
    ignores_fraction: bool = False  # no f in the law, so all repeated runs in a fit must share one fraction
    published: "Published | None" = None

    def loss(self, constants: Constants, points: Points) -> Floats:
        """Loss in nats per token, for a law that has a clean loss."""
        assert self.clean_loss
        return self.clean_loss(constants, points) + self.penalty(constants, points)


def no_penalty(constants: Constants, points: Points) -> Floats:
    """The penalty of a law of clean runs."""
    return np.zeros(np.broadcast_shapes(np.shape(next(iter(constants.values()))), points.params.shape))


def without_priors(law: Law, name: str, title: str) -> Law:
    """A variant of the law that is fitted without priors."""
    constants = tuple(replace(constant, prior=None) for constant in law.constants)
    return replace(law, name=name, title=title, constants=constants, published=None)


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

    loss: in nats per token.
    """

    loss: Callable[[Points], Floats]
    domain: Domain
    notes: tuple[str, ...] = ()


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
