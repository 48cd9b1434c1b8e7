"""Prepare laws for forecasts: published laws, our law pooled over several laboratories, and laws fitted to a user's runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from analysis.laws import muennighoff, partial, pooled
from analysis.laws.law import Constants, Domain, Law
from analysis.laws.points import SCALE, Floats, Points
from analysis.laws.registry import LAWS

if TYPE_CHECKING:
    from analysis.laws.fit import FittedLaw

Penalty = Callable[[Points], Floats]
PUBLISHED, POOLED = "published", "pooled"
POOLED_DRAWS = 60


@dataclass(frozen=True)
class Predictor:
    """A law with constants.

    name, title: the key and the readable name of the law. origin: where the constants come from, such as "fitted on 24 runs".
    penalty: the loss above a clean run of the same size and tokens, in nats per token. clean_loss: the loss of that clean run.
    interval: the ends of the penalty's 95% interval, for points and their clean losses; None if no interval has been measured.
    draws: the penalty with constants drawn from their joint uncertainty.
    interval_holds: how the interval was measured, as a clause. scatter: standard deviation between runs, as a share of the clean loss.
    """

    name: str
    title: str
    origin: str
    penalty: Penalty
    clean_loss: Penalty
    domain: Domain
    interval: Callable[[Points, Floats], tuple[Floats, Floats]] | None = None
    draws: tuple[Penalty, ...] = ()
    varied_tokens: bool = True
    ignores_fraction: bool = False
    interval_holds: str = ""
    scatter: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The law and its origin, for sentences and legends."""
        return f"{self.title} ({self.origin})"


def published_predictors() -> list[Predictor]:
    """Our law pooled over laboratories, and the laws whose constants are published or follow from published numbers."""
    listed = []
    for law in LAWS:
        if published := law.published:
            loss = published.loss
            listed.append(
                Predictor(
                    law.name,
                    law.title,
                    PUBLISHED,
                    lambda points, loss=loss: loss(points) - loss(points.as_clean()),  # type: ignore[misc]
                    lambda points, loss=loss: loss(points.as_clean()),  # type: ignore[misc]
                    published.domain,
                    ignores_fraction=law.ignores_fraction,
                    notes=published.notes,
                )
            )
    return [pooled_predictor(), *listed]


def published_clean_loss(points: Points) -> Floats:
    """The clean loss in nats per token for plans without a clean law of their own [M23]."""
    return muennighoff.clean_loss(muennighoff.CONSTANTS, points)


def pooled_predictor() -> Predictor:
    """Our law with constants from several laboratories."""
    fitted = pooled.law()
    return Predictor(
        partial.LAW.name,
        partial.LAW.title,
        POOLED,
        fitted.penalty,
        published_clean_loss,
        pooled.DOMAIN,
        fitted.interval,
        _with(partial.LAW, fitted.drawn(POOLED_DRAWS)),
        interval_holds=pooled.INTERVAL_HOLDS,
        scatter=SCALE * fitted.spread.noise,
        notes=(f"{pooled.SOURCE}. Muennighoff et al. provide the loss without repetition",),
    )


def with_clean_law(predictor: Predictor, fits: "list[FittedLaw]") -> Predictor:
    """The pooled law with the clean loss of the user's runs, if one of the fits has a clean law for it."""
    for fitted in fits:
        if fitted.law.name == predictor.name and fitted.clean is not None:
            notes = (f"{pooled.SOURCE}. Its clean loss is that of the runs in the fit",)
            return replace(predictor, clean_loss=fitted.clean.loss, notes=notes)
    return predictor


def fitted_predictor(fitted: "FittedLaw") -> Predictor:
    """Prepare a fitted law for forecasts."""
    has_clean_law = fitted.law.clean_loss is not None or fitted.clean is not None
    widths = fitted.fitted.spread.widths
    left_out = " or a ".join(widths)
    notes = [
        f"the error of the penalty on the runs in the fit is {fitted.error:.2g} nats (root mean square), {fitted.median_error:.2g} nats"
        " (median)"
    ]
    if not has_clean_law:
        notes.append(
            "too few sizes have clean runs for a clean law, so Muennighoff et al. provide the loss without repetition"
        )
    return Predictor(
        fitted.law.name,
        fitted.law.title,
        f"fitted on {fitted.points} runs",
        fitted.penalty,
        fitted.clean_loss if has_clean_law else published_clean_loss,
        fitted.domain,
        fitted.fitted.interval,
        _with(fitted.law, fitted.resamples),
        varied_tokens=fitted.domain.tokens[0] < fitted.domain.tokens[1],
        ignores_fraction=fitted.law.ignores_fraction,
        interval_holds=f"were widened until they contained 95% of the runs when a {left_out} was left out of the fit"
        if widths
        else "could not be checked, because too few runs can be left out; they extend four standard deviations to either side",
        scatter=SCALE * fitted.fitted.spread.noise,
        notes=tuple(notes),
    )


def _with(law: Law, resamples: Sequence[Constants]) -> tuple[Penalty, ...]:
    def penalty_with(constants: Constants) -> Penalty:
        return lambda points: np.asarray(law.penalty(constants, points))

    return tuple(map(penalty_with, resamples))
