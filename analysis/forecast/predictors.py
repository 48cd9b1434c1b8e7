"""Who can be asked: the published laws, and laws fitted on runs."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from analysis.laws import chudnovsky, hernandez, muennighoff
from analysis.laws.law import Constants, Domain
from analysis.laws.points import Floats, Points

if TYPE_CHECKING:  # a published law is asked without scipy
    from analysis.laws.fit import Fitted


@dataclass(frozen=True)
class Predictor:
    """Something that predicts: a published law, or one fitted on runs.

    loss: nats of points; draws: the same for every draw of its bootstrap; knows_tokens: whether its clean law was told by runs
    of several lengths, without which it says nothing of compute; noise: nats between two runs that differ in their data alone, by R,
    where the interval is no more than that.
    """

    name: str
    title: str
    origin: str
    loss: Callable[[Points], Floats]
    domain: Domain
    draws: tuple[Callable[[Points], Floats], ...] = ()
    knows_tokens: bool = True
    noise: Callable[[float], float] | None = None
    notes: tuple[str, ...] = ()


def tellers_published() -> list[Predictor]:
    """The laws whose constants are published, or put together from what is."""
    return [
        Predictor(
            "hernandez",
            hernandez.LAW.title,
            "published",
            hernandez.published_loss,
            hernandez.PUBLISHED_DOMAIN,
            tuple(partial(hernandez.published_loss, deeper=depth) for depth in hernandez.PUBLISHED_SPREAD),
            notes=(
                "its penalty in nats is the loss of the smaller model by M23's clean law, for H22 publishes no constants of its"
                " own; the depth at 800M stands for all sizes; the interval is the 340M to 400M that 800M acts like at R = 100, and the"
                " paper's 0.55 at R = 1,220 for 10M to 100M is not in it",
            ),
        ),
        Predictor(
            "chudnovsky",
            chudnovsky.LAW.title,
            "published",
            chudnovsky.published_loss,
            chudnovsky.PUBLISHED_DOMAIN,
            notes=(
                "it counts all parameters and says nothing of the width, which is H22's; the interval is by how much two"
                " draws of the data differ, 0.006 to 0.018 nats",
            ),
            noise=chudnovsky.noise,
        ),
        Predictor(
            "muennighoff",
            muennighoff.LAW.title,
            "published",
            lambda points: muennighoff.loss(muennighoff.PUBLISHED, points),
            muennighoff.PUBLISHED_DOMAIN,
            notes=("fitted where the whole set repeats; for a part, its tokens' worth is summed; it has no worst R",),
        ),
    ]


def teller_of(fitted: "Fitted") -> Predictor:
    """A law fitted on runs."""

    def of(constants: Constants) -> Callable[[Points], Floats]:
        return lambda points: fitted.law.loss(constants, points)

    return Predictor(
        fitted.law.name,
        fitted.law.title,
        f"fitted on {fitted.points} runs",
        fitted.loss,
        fitted.domain,
        tuple(map(of, fitted.draws)),
        knows_tokens=fitted.domain.tokens[0] < fitted.domain.tokens[1],
        notes=(
            f"misses its own runs by {fitted.error:.2g} nats (root mean square), and may miss others by far more where its form is"
            " wrong: the intervals are of its constants alone",
        ),
    )
