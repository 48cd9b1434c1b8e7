"""Pools of a fixed size: the axis `pool_tokens`, converted to a number of sequences."""

from enum import StrEnum
from typing import Any

from data_prep.errors import InputError
from data_prep.validation import toml_text
from repeat_study.config.corpora import PoolCorpus

ALL = "all"  # value of `pool_tokens` in a grid: the whole training split of the pool's store


class HoldFixed(StrEnum):
    """Which number of tokens is held fixed for all R if the size of the pool is given."""

    TOTAL = "total"  # training.tokens counts all tokens, so a larger R leaves fewer unique tokens
    FRESH = "fresh"  # training.tokens counts the unique tokens, so a larger R makes the run longer


def fixed_pool(pool_tokens: Any, values: dict[str, Any], prefix: str) -> int:
    """Convert the key `pool_tokens` to a number of sequences, rounded down. "all" means the whole training split of the pool's store."""
    pool_corpus, context = values.get("pool_corpus"), values.get("context")
    if not isinstance(context, int) or context < 1:
        return 0  # the run is invalid, and its validation reports this
    if pool_tokens == ALL:
        if not isinstance(pool_corpus, PoolCorpus):
            raise InputError(f'{prefix}pool_tokens: "{ALL}" needs a named pool (a [pool] table)')
        if not (sequences := pool_corpus.tokens // (context + 1)):
            raise InputError(
                f'{prefix}pool_tokens: "{ALL}" found, but the pool has {pool_corpus.tokens} tokens, too few for one sequence of'
                f" {context} tokens and its target; increase pool.max_tokens"
            )
        return sequences
    if isinstance(pool_tokens, bool) or not isinstance(pool_tokens, int) or pool_tokens < context:
        raise InputError(
            f'{prefix}pool_tokens: expected "{ALL}" or a number of tokens, at least {context} (one sequence), found'
            f" {toml_text(pool_tokens)}"
        )
    return pool_tokens // context


def limited_estimate(pool_corpus: PoolCorpus | None, declared: list[dict[str, Any]]) -> PoolCorpus | None:
    """Limit the estimated size of an unprepared pool so that it fits into every run with pool_tokens = "all".

    All runs then have the same estimated pool. The size of a prepared store is not changed.
    """
    if pool_corpus is None or pool_corpus.fingerprint:
        return pool_corpus
    tokens = pool_corpus.tokens
    for values in declared:
        numbers = [values.get(key, 0) for key in ("tokens", "context", "sequences_per_step", "repeats")]
        if values.get("pool_tokens") != ALL or values.get("hold_fixed") == HoldFixed.FRESH:
            continue
        if all(isinstance(number, int) and number > 0 for number in numbers):
            run_tokens, context, sequences_per_step, repeats = numbers
            positions = run_tokens // (context * sequences_per_step) * sequences_per_step
            tokens = min(tokens, max(1, positions // repeats) * (context + 1))
    return pool_corpus.model_copy(update={"tokens": tokens})
