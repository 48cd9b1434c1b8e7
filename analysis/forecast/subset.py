"""Forecast the cost of repeating a subset of fixed size: one row per R, with f = R·D/T for a subset of D tokens."""

from dataclasses import dataclass

import numpy as np

from analysis.forecast.forecast import Forecast, Question, penalty_at
from analysis.formatting import bracketed, short_count, short_repeats
from analysis.intervals import Estimate

OUTSIDE = "*"  # marks a penalty for which f or R is outside the range that the law was fitted on
COLUMNS = (
    *("repeats", "fraction", "fresh_tokens_replaced", "law", "origin", "penalty_nats", "penalty_low", "penalty_high"),
    *("size_multiplier", "size_multiplier_low", "size_multiplier_high", "outside_fitted_range", "reason"),
)


@dataclass(frozen=True)
class Answer:
    """One law's prediction for one R: the penalty in nats and the size multiplier (effective size / actual size)."""

    penalty: Estimate
    multiplier: Estimate
    outside: list[str]  # clauses about f and R, if they are outside the range of the fit


@dataclass(frozen=True)
class Row:
    """One R. The subset replaces R·D of the tokens that a run without it trains on."""

    repeats: float
    fraction: float
    answers: list[Answer]  # one per law; empty if f would exceed 1
    reason: str = ""  # why there are no answers


def subset_rows(forecasts: list[Forecast], question: Question) -> list[Row]:
    """One row per R in `question.listed_repeats`."""
    return [_row(forecasts, question, repeats) for repeats in question.listed_repeats]


def _row(forecasts: list[Forecast], question: Question, repeats: float) -> Row:
    fraction = float(np.asarray(question.fraction_at(repeats)))
    if repeats > question.most_repeats:
        most, total = short_repeats(question.most_repeats), short_count(question.tokens)
        needed = short_count(fraction * question.tokens)
        return Row(repeats, fraction, [], f"needs {needed} tokens, but the run has {total}; R can be at most {most}")
    answers = []
    for forecast in forecasts:
        penalty, multiplier = penalty_at(forecast.predictor, question, repeats)
        domain = forecast.predictor.domain
        outside_size = domain.outside(question.params, question.tokens, domain.fraction, domain.repeats)
        outside = domain.outside(question.params, question.tokens, fraction, repeats) if repeats > 1 else outside_size
        answers.append(Answer(penalty, multiplier, [clause for clause in outside if clause not in outside_size]))
    return Row(repeats, fraction, answers)


def table_headings(forecasts: list[Forecast]) -> tuple[str, ...]:
    """Headings for the cells of `table_row`."""
    return ("R", "f", "fresh tokens replaced", *(forecast.predictor.label for forecast in forecasts))


def table_row(row: Row, forecasts: list[Forecast], question: Question) -> tuple[str, ...]:
    """The table cells for one R, with penalties in nats and their intervals in brackets."""
    cells = [_penalty(answer, forecast) for answer, forecast in zip(row.answers, forecasts, strict=bool(row.answers))]
    replaced = short_count(row.fraction * question.tokens) if row.answers else "–"
    return (f"{row.repeats:,.6g}", f"{row.fraction:.3%}", replaced, *(cells or ["–"] * len(forecasts)))


def _penalty(answer: Answer, forecast: Forecast) -> str:
    def nats(value: float) -> str:
        return "not credible" if forecast.is_beyond(value) else f"{value:.3g}"

    penalty = answer.penalty
    interval = "" if forecast.is_beyond(penalty.value) else bracketed(penalty.low, penalty.high, nats)
    return nats(penalty.value) + interval + (OUTSIDE if answer.outside else "")


def records(rows: list[Row], forecasts: list[Forecast], question: Question) -> list[dict[str, object]]:
    """One record per R and law with the keys in COLUMNS, for JSON and CSV. Penalties that are not credible are None.

    A row without answers is a single record that gives the reason.
    """
    empty: dict[str, object] = dict.fromkeys(COLUMNS)
    listed = []
    for row in rows:
        arm: dict[str, object] = {"repeats": row.repeats, "fraction": row.fraction}
        if row.reason:
            listed.append(empty | arm | {"reason": row.reason})
            continue
        arm["fresh_tokens_replaced"] = row.fraction * question.tokens
        for answer, forecast in zip(row.answers, forecasts, strict=True):
            law = {"law": forecast.predictor.name, "origin": forecast.predictor.origin}
            penalty = _ends("penalty", answer.penalty) | {"penalty_nats": answer.penalty.value}
            nats = {
                key: None if value is None or forecast.is_beyond(value) else value for key, value in penalty.items()
            }
            size = _ends("size_multiplier", answer.multiplier) | {"size_multiplier": answer.multiplier.value}
            listed.append(empty | arm | law | nats | size | {"outside_fitted_range": "; ".join(answer.outside)})
    return listed


def _ends(name: str, estimate: Estimate) -> dict[str, float | None]:
    ends = {f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return {key: value if value == value else None for key, value in ends.items()}
