"""The token stores that runs use, as recorded in their specs."""

from typing import NamedTuple, Self

from data_prep.token_store import TokenStore
from repeat_study.config.base import Spec

POOL_DOMAIN = "pool_domain"  # name of the additional test set with the test text of a named pool


class PoolCorpus(Spec):
    """The token store of a named pool."""

    fingerprint: str = ""  # empty until the store is prepared
    tokens: int  # in the training split; an estimate until the store is prepared

    @classmethod
    def of(cls, store: TokenStore) -> Self:
        """Describe a prepared store."""
        return cls(fingerprint=store.fingerprint, tokens=store.train.size)


class MixedCorpus(Spec):
    """The token store of one source of a mixture."""

    name: str
    share: float  # of the unique sequences
    fingerprint: str = ""  # empty until the store is prepared


class FurtherTest(Spec):
    """An additional test set, which is evaluated whenever the run's own test set is evaluated."""

    name: str
    fingerprint: str  # the fingerprint of the test set's token store; empty until the store is prepared


class StudyTexts(NamedTuple):
    """The stores that the runs of a study are trained and evaluated on. Empty or None: not prepared yet."""

    corpus: str = ""  # fingerprint of the (first) store of training text
    further_tests: tuple[FurtherTest, ...] | None = None
    pool_corpus: PoolCorpus | None = None
    mix: tuple[MixedCorpus, ...] | None = None


UNPREPARED = StudyTexts()
