"""Laws that can be asked for a forecast: published ones, and laws fitted to runs."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from analysis.laws import chudnovsky, hernandez, muennighoff
from analysis.laws.law import Constants, Domain
from analysis.laws.points import Floats, Points

if TYPE_CHECKING:  # published laws are evaluated without scipy
    from analysis.laws.fit import Fitted


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
            "hernandez",
            hernandez.LAW.title,
            "published",
            hernandez.published_loss,
            hernandez.PUBLISHED_DOMAIN,
            tuple(partial(hernandez.published_loss, deeper=depth) for depth in hernandez.PUBLISHED_SPREAD),
            notes=(
                "H22 publishes effective sizes but no constants, so the penalty in nats is the loss of the smaller model by"
                " M23's clean law. The depth measured at 800M is used for all sizes. The interval covers the 340M to 400M"
                " that 800M acts like at R = 100; it does not cover the paper's 0.55 at R = 1,220 for 10M to 100M",
            ),
        ),
        Predictor(
            "chudnovsky",
            chudnovsky.LAW.title,
            "published",
            chudnovsky.published_loss,
            chudnovsky.PUBLISHED_DOMAIN,
            notes=(
                "parameters include embeddings. C26 publishes no width of the peak, so the width is H22's. The interval is"
                " the difference between two data seeds, 0.006 to 0.018 nats",
            ),
            noise=chudnovsky.noise,
        ),
        Predictor(
            "muennighoff",
            muennighoff.LAW.title,
            "published",
            lambda points: muennighoff.loss(muennighoff.PUBLISHED, points),
            muennighoff.PUBLISHED_DOMAIN,
            notes=(
                "fitted to runs that repeat their whole data set; for a repeated part, the values of unique and repeated"
                " tokens are added up. The law has no worst R",
            ),
        ),
    ]


def fitted_predictor(fitted: "Fitted") -> Predictor:
    """The predictor of a law that was fitted to runs."""

    def loss_with(constants: Constants) -> Callable[[Points], Floats]:
        return lambda points: fitted.law.loss(constants, points)

    return Predictor(
        fitted.law.name,
        fitted.law.title,
        f"fitted on {fitted.points} runs",
        fitted.loss,
        fitted.domain,
        tuple(map(loss_with, fitted.draws)),
        knows_tokens=fitted.domain.tokens[0] < fitted.domain.tokens[1],
        notes=(
            f"misses its own runs by {fitted.error:.2g} nats (root mean square). The intervals cover the uncertainty of its"
            " constants only: if its form is wrong, it can miss other runs by far more",
        ),
    )
