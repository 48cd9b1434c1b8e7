"""Price a census of duplicates: how many tokens occur how many times in a corpus."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from analysis.counts import parse_number
from analysis.csv_table import Column, read_rows
from analysis.forecast.forecast import Cost, cost_at
from analysis.forecast.predictors import Predictor
from analysis.forecast.question import Question
from analysis.intervals import Estimate
from data_prep.errors import InputError

COPIES, TOKENS = "copies", "tokens"
READ_AS = {
    COPIES: Column(parse_number, "a number from 1 to 1e12", lambda value: 1 <= value <= 1e12),
    TOKENS: Column(parse_number, "a number of tokens above 0", lambda value: 0 < value <= 1e30),
}


@dataclass(frozen=True)
class Census:
    """Distinct tokens by number of copies. `tokens` counts every distinct token once."""

    copies: tuple[float, ...]
    tokens: tuple[float, ...]

    @property
    def total(self) -> float:
        """Tokens in the corpus, with all copies."""
        return float(np.dot(self.copies, self.tokens))

    @property
    def repeated_share(self) -> float:
        """Share of the corpus that occurs more than once."""
        repeated = sum(copies * tokens for copies, tokens in zip(self.copies, self.tokens, strict=True) if copies > 1)
        return repeated / self.total


@dataclass(frozen=True)
class Price:
    """What the duplicates cost. rows: each number of copies on its own. total: their sum, as a share of the clean loss and in nats.

    The laws describe one repeated pool, so the sum assumes that the pools do not interact. The ends of the sum's interval are the sums of
    the ends, because errors of the same law have the same sign.
    """

    rows: tuple[Cost, ...]
    penalty: Estimate
    share: Estimate


def read_census(path: Path) -> Census:
    """Read a CSV file with the columns `copies` and `tokens`. Raises InputError with the line and what was found."""
    rows: dict[float, float] = {}
    for row in read_rows(path, tuple(READ_AS), {}):
        copies, tokens = (column.value(row.where, name, row.cells[name]) for name, column in READ_AS.items())
        if copies in rows:
            raise InputError(f"{row.where}: {COPIES} {copies:g} occurs twice; expected one line per number of copies")
        rows[copies] = tokens
    if not rows:
        raise InputError(f"{path}: no rows below the header; expected one line per number of copies")
    return Census(tuple(sorted(rows)), tuple(rows[copies] for copies in sorted(rows)))


def price(census: Census, predictor: Predictor, question: Question) -> Price:
    """What training on this corpus costs, compared with a run of the same length on tokens that are all different.

    A run of T tokens passes T / total times over the corpus; R is the number of copies times the number of passes, but at least 1.
    """
    passes = question.tokens / census.total
    rows = []
    for copies, tokens in zip(census.copies, census.tokens, strict=True):
        repeats = copies * passes
        if repeats <= 1 + 1e-9:
            continue
        share = copies * tokens / census.total
        rows.append(cost_at(predictor, replace(question, fraction=share, subset_tokens=None), repeats))
    return Price(tuple(rows), _sum([row.penalty for row in rows]), _sum([row.share for row in rows]))


def _sum(estimates: Sequence[Estimate]) -> Estimate:
    return Estimate(
        sum(each.value for each in estimates), sum(each.low for each in estimates), sum(each.high for each in estimates)
    )
