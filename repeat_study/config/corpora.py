"""The token stores that a run uses in addition to its corpus, as recorded in its spec."""

from enum import StrEnum

from repeat_study.config.base import Spec

POOL_DOMAIN = "pool_domain"  # name of the additional test set with the test text of a named pool
ALL = "all"  # value of `pool_tokens` in a grid: the whole training split of the pool's store


class PoolCorpus(Spec):
    """The token store of a named pool."""

    fingerprint: str = ""  # empty until the store is prepared
    tokens: int  # in the training split; an estimate until the store is prepared


class MixedCorpus(Spec):
    """The token store of one source of a mixture."""

    name: str
    share: float  # of the unique sequences
    fingerprint: str = ""  # empty until the store is prepared


class HoldFixed(StrEnum):
    """Which number of tokens is held fixed for all R if the size of the pool is given."""

    TOTAL = "total"  # training.tokens counts all tokens, so a larger R leaves fewer unique tokens
    FRESH = "fresh"  # training.tokens counts the unique tokens, so a larger R makes the run longer
