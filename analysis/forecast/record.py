"""Convert forecasts and their answers to JSON records. Keys name the unit."""

from collections.abc import Sequence

import numpy as np

from analysis.forecast.answer import (
    PARTIAL,
    disagreement,
    indistinguishable,
    limit,
    nearest,
    primary,
    refusal,
    rule_of_thumb,
    sentence,
)
from analysis.forecast.census import Price
from analysis.forecast.forecast import Cost, Forecast, distance
from analysis.intervals import Estimate

TABLE_COLUMNS = (
    *("repeats", "repeated_fraction", "subset_tokens", "law", "origin"),
    *("cost_share_of_loss", "cost_share_of_loss_low", "cost_share_of_loss_high"),
    *("penalty_nats", "penalty_nats_low", "penalty_nats_high"),
    *("size_multiplier", "size_multiplier_low", "size_multiplier_high", "outside_fitted_range", "no_number_because"),
)


def number(value: float) -> float | None:
    """A number, or None if it is infinite or unknown."""
    return float(value) if np.isfinite(value) else None


def estimate(value: Estimate) -> dict[str, float | None]:
    """A value with the ends of its 95% interval."""
    return {"value": number(value.value), "low": number(value.low), "high": number(value.high)}


def cost_record(cost: Cost) -> dict[str, object]:
    """What one R costs."""
    return {
        "repeats": number(cost.repeats),
        "repeated_fraction": number(cost.fraction),
        "cost_share_of_loss": estimate(cost.share),
        "penalty_nats": estimate(cost.penalty),
        "size_multiplier": estimate(cost.multiplier),
    }


def answer_record(forecasts: Sequence[Forecast], max_cost: float | None) -> dict[str, object]:
    """The answer of our law, and how the laws compare."""
    common: dict[str, object] = {
        "nearest_law": nearest(forecasts).predictor.label,
        "disagreement": disagreement(forecasts),
    }
    answering = primary(forecasts)
    record: dict[str, object]
    if answering is None:
        record = {"answer": None, "reason": refusal(forecasts)}
        return record | common
    record = {
        "answer": sentence(answering),
        "law": answering.predictor.name,
        "origin": answering.predictor.origin,
        "interval_95_percent": answering.predictor.interval_holds,
        "cost": cost_record(answering.cost),
        "table": [
            row for row in table(forecasts) if row["law"] == PARTIAL and row["origin"] == answering.predictor.origin
        ],
        "rule_of_thumb": cost_record(rule_of_thumb(answering)[0]),
        "repeats_not_distinguishable": dict(zip(("from", "up_to"), indistinguishable(answering), strict=True)),
    }
    if max_cost is not None:
        found = limit(answering, max_cost)
        record["largest_repeats"] = {
            "max_cost_share_of_loss": max_cost,
            "expected_repeats": number(found.expected),
            "expected_for_every_repeats": bool(np.isinf(found.expected)),
            "sure_repeats": number(found.sure),
            "sure_for_every_repeats": bool(np.isinf(found.sure)),
        }
    return record | common


def table(forecasts: Sequence[Forecast]) -> list[dict[str, object]]:
    """One record per R and law, with the keys in TABLE_COLUMNS."""
    records: list[dict[str, object]] = []
    for repeats in forecasts[0].question.listed_repeats:
        for forecast in forecasts:
            cost, question, predictor = forecast.cost_at(repeats), forecast.question, forecast.predictor
            reason = forecast.too_far_at(repeats)
            if not reason and forecast.is_beyond(cost.penalty.value):
                reason = "not credible"
            beyond = predictor.domain.outside(question.params, question.tokens, cost.fraction, max(repeats, 1.0))
            numbers = (*_ends(cost.share), *_ends(cost.penalty), *_ends(cost.multiplier))
            values = (
                *(repeats, cost.fraction, question.subset_at(repeats), predictor.name, predictor.origin),
                *((None,) * len(numbers) if reason else numbers),
                *("; ".join(beyond) if repeats > 1 else "", reason),
            )
            records.append(dict(zip(TABLE_COLUMNS, values, strict=True)))
    return records


def _ends(value: Estimate) -> tuple[float | None, ...]:
    return number(value.value), number(value.low), number(value.high)


def price_record(price: Price) -> dict[str, object]:
    """The price of a census of duplicates."""
    return {
        "penalty_nats": estimate(price.penalty),
        "cost_share_of_loss": estimate(price.share),
        "by_copies": [cost_record(row) for row in price.rows],
    }


def as_record(forecast: Forecast) -> dict[str, object]:
    """All numbers of one law. Numbers that are infinite or unknown become None, and so do penalties that are not credible."""

    def nats(value: Estimate) -> dict[str, float | None]:
        return {key: None if forecast.is_beyond(end or 0.0) else end for key, end in estimate(value).items()}

    curve = forecast.curve
    band = forecast.band if forecast.band else (np.full(len(curve.repeats), np.nan),) * 2
    return {
        "law": forecast.predictor.name,
        "origin": forecast.predictor.origin,
        "distance_from_fit_in_factors_of_e": distance(forecast.predictor, forecast.question, forecast.repeats),
        "outside_fitted_range": forecast.outside,
        "no_number_because": forecast.too_far or None,
        "repeats": number(forecast.repeats),
        "clean_loss_nats": number(forecast.clean_loss),
        "penalty_nats": nats(forecast.cost.penalty),
        "cost_share_of_loss": estimate(forecast.cost.share),
        "penalty_beyond_the_law": forecast.is_beyond(forecast.cost.penalty.value),
        "largest_credible_penalty_nats": number(forecast.limit),
        "size_multiplier": estimate(forecast.cost.multiplier),
        "lost_compute_share": number(forecast.lost_compute),
        "worst_repeats": estimate(forecast.worst),
        "harmful_repeats": {"from": number(forecast.harmful[0]), "up_to": number(forecast.harmful[1])},
        "safe_repeats": {"up_to": estimate(forecast.safe_up_to), "again_from": number(forecast.safe_from)},
        "safe_at_every_repeats": bool(np.isinf(forecast.safe_up_to.value)),
        "notes": list(forecast.predictor.notes),
        "curve": {
            "repeats": [number(value) for value in curve.repeats],
            "penalty_nats": [None if forecast.is_beyond(value) else number(value) for value in curve.penalty],
            "penalty_low_nats": [number(value) for value in band[0]],
            "penalty_high_nats": [number(value) for value in band[1]],
            "size_multiplier": [number(value) for value in curve.multiplier],
        },
    }
