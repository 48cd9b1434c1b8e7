"""Prepare laws for forecasts, both published laws and laws fitted to runs."""

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
    """A published law, or a law that was fitted to runs.

    name, title: the key and the readable name of the law. origin: "published", or how many runs it was fitted on.
    loss: in nats per token, for given points. resampled_losses: the loss with each bootstrap resample's constants.
    ignores_fraction: whether the formula does not contain f.
    varied_tokens: whether the runs in the fit have different numbers of tokens. If not, the law cannot estimate lost compute.
    noise: the loss difference in nats between two data seeds, as a function of R. If given, the interval is the loss plus or
    minus this difference.
    """

    name: str
    title: str
    origin: str
    loss: Callable[[Points], Floats]
    domain: Domain
    resampled_losses: tuple[Callable[[Points], Floats], ...] = ()
    varied_tokens: bool = True
    ignores_fraction: bool = False
    noise: Callable[[float], float] | None = None
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The law and its origin, for sentences and legends."""
        return f"{self.title} ({self.origin})"


def published_predictors() -> list[Predictor]:
    """The laws whose constants are published or follow from published numbers."""
    return [
        Predictor(
            law.name,
            law.title,
            "published",
            law.published.loss,
            law.published.domain,
            law.published.alternatives,
            ignores_fraction=law.ignores_fraction,
            noise=law.published.noise,
            notes=law.published.notes,
        )
        for law in LAWS
        if law.published
    ]


def fitted_predictor(fitted: "FittedLaw") -> Predictor:
    """Prepare a fitted law for forecasts."""

    def loss_with(constants: Constants) -> Callable[[Points], Floats]:
        return lambda points: fitted.law.loss(constants, points)

    return Predictor(
        fitted.law.name,
        fitted.law.title,
        f"fitted on {fitted.points} runs",
        fitted.loss,
        fitted.domain,
        tuple(map(loss_with, fitted.resamples)),
        varied_tokens=fitted.domain.tokens[0] < fitted.domain.tokens[1],
        ignores_fraction=fitted.law.ignores_fraction,
        notes=(
            f"the root mean square error on the runs in the fit is {fitted.error:.2g} nats. The intervals cover only the uncertainty in the"
            " constants; if the formula is wrong, the error on other runs can be much larger",
        ),
    )
