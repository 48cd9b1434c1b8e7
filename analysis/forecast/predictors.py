"""Laws that can be asked for a forecast: published ones, and laws fitted to runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.laws.law import Constants, Domain
from analysis.laws.points import Floats, Points
from analysis.laws.registry import LAWS

if TYPE_CHECKING:  # published laws are evaluated without scipy
    from analysis.laws.fit import FittedLaw


@dataclass(frozen=True)
class Predictor:
    """A published law, or one fitted to runs.

    loss: nats per token at each point. resampled_losses: the same with the constants of each bootstrap resample.
    knows_tokens: whether the law was fitted to runs of different lengths; otherwise it cannot tell lost compute. noise: for
    laws whose interval is only the loss difference between two data seeds, that difference in nats by R.
    """

    name: str
    title: str
    origin: str
    loss: Callable[[Points], Floats]
    domain: Domain
    resampled_losses: tuple[Callable[[Points], Floats], ...] = ()
    knows_tokens: bool = True
    noise: Callable[[float], float] | None = None
    notes: tuple[str, ...] = ()


def published_predictors() -> list[Predictor]:
    """Laws with published constants, or with constants derived from published numbers."""
    return [
        Predictor(
            law.name,
            law.title,
            "published",
            law.published.loss,
            law.published.domain,
            law.published.alternatives,
            noise=law.published.noise,
            notes=law.published.notes,
        )
        for law in LAWS
        if law.published
    ]


def fitted_predictor(fitted: "FittedLaw") -> Predictor:
    """The predictor of a law that was fitted to runs."""

    def loss_with(constants: Constants) -> Callable[[Points], Floats]:
        return lambda points: fitted.law.loss(constants, points)

    return Predictor(
        fitted.law.name,
        fitted.law.title,
        f"fitted on {fitted.points} runs",
        fitted.loss,
        fitted.domain,
        tuple(map(loss_with, fitted.resamples)),
        knows_tokens=fitted.domain.tokens[0] < fitted.domain.tokens[1],
        notes=(
            f"misses its own runs by {fitted.error:.2g} nats (root mean square). The intervals cover the uncertainty of its"
            " constants only: if its form is wrong, it can miss other runs by far more",
        ),
    )
