"""Convert a forecast to a JSON record."""

import numpy as np

from analysis.forecast.forecast import Forecast
from analysis.intervals import Estimate


def as_record(forecast: Forecast) -> dict[str, object]:
    """All numbers in a forecast, for JSON. Numbers that are infinite or unknown become None, and so do penalties that are not credible."""

    def number(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    def estimate(value: Estimate) -> dict[str, float | None]:
        return {"value": number(value.value), "low": number(value.low), "high": number(value.high)}

    def nats(value: Estimate) -> dict[str, float | None]:
        return {key: None if forecast.is_beyond(end or 0.0) else end for key, end in estimate(value).items()}

    curve, multiplier, smallest = forecast.curve, forecast.multiplier, forecast.smallest_multiplier
    return {
        "law": forecast.predictor.name,
        "origin": forecast.predictor.origin,
        "repeats": number(forecast.repeats),
        "clean_loss": number(forecast.clean_loss),
        "penalty_nats": nats(forecast.penalty),
        "penalty_beyond_the_law": forecast.is_beyond(forecast.penalty.value),
        "largest_credible_penalty_nats": number(forecast.limit),
        "size_multiplier": estimate(multiplier),
        "size_multiplier_at_most": number(smallest) if multiplier.value < smallest else None,
        "lost_compute": number(forecast.lost_compute),
        "worst_repeats": estimate(forecast.worst),
        "harmful_from": estimate(forecast.harmful[0]),
        "harmful_up_to": estimate(forecast.harmful[1]),
        "safe_up_to": estimate(forecast.safe_up_to),
        "safe_from": estimate(forecast.safe_from),
        "safe_at_every_repeats": bool(np.isinf(forecast.safe_up_to.value)),
        "largest_repeats": number(curve.repeats[-1]),
        "outside_fitted_range": forecast.outside,
        "notes": list(forecast.predictor.notes),
        "curve": {
            "repeats": [number(value) for value in curve.repeats],
            "penalty_nats": [None if forecast.is_beyond(value) else number(value) for value in curve.penalty],
            "size_multiplier": [number(value) for value in curve.multiplier],
        },
    }
