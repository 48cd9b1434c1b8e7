"""Check that the stores of a study do not share documents."""

from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

from data_prep.errors import InputError
from data_prep.overlap import SharedText, count_shared_training_text, require_disjoint
from data_prep.token_store import TokenStore, find_store
from repeat_study.config.corpora import POOL_DOMAIN

if TYPE_CHECKING:
    from repeat_study.preparation import PreparedStudy


class SharedTrainingText(NamedTuple):
    """The training text that two stores of a study share."""

    store: TokenStore  # the store of the pool or of one source in a mixture
    other: TokenStore
    text: SharedText


def shared_training_text(prepared: "PreparedStudy") -> Iterator[SharedTrainingText]:
    """Count the training documents that each pair of training stores shares: sources of a mixture, and a named pool."""
    for store, other in combinations(reversed(prepared.training_stores), 2):
        yield SharedTrainingText(store, other, count_shared_training_text(store, other))


def check_overlaps(prepared: "PreparedStudy") -> None:
    """Check that no test document is in a training split, and that training stores share no more documents than allowed.

    Ancestors' splits are checked too. Raises InputError if a check fails.
    """
    data_dir = prepared.store.folder.parent
    trained = {store.fingerprint: store for ancestor in prepared.lineage for store in ancestor.training_stores}
    tested = {table_of(test.name): find_store(data_dir, test.fingerprint) for test in prepared.further_tests}
    for ancestor in prepared.lineage:
        for number, store in enumerate(ancestor.sources):
            source = f", {ancestor.study.data.mix[number].label}" if ancestor.study.data.mix else ""
            tested[f"test split of {ancestor.study.name}{source}"] = store
    for where, test_store in tested.items():
        for fingerprint, store in trained.items():
            if fingerprint != test_store.fingerprint:
                require_disjoint(test_store, store, where)
    names = prepared.source_names
    for store, other, text in shared_training_text(prepared):
        in_pool = prepared.pool is not None and prepared.pool.fingerprint in (store.fingerprint, other.fingerprint)
        table = prepared.study.pool if in_pool else prepared.study.data
        assert table is not None
        # Sources with equal fingerprints are refused when the runs are drawn.
        if text.documents > table.max_shared_documents and store.fingerprint != other.fingerprint:
            raise InputError(
                f"{names[store.fingerprint]}: {text.documents} training documents ({text.tokens:,} tokens) also appear in the"
                f" training text of {names[other.fingerprint]} ({other.folder}), e.g. {text.first}; runs would see their text"
                f" more than {'R times' if in_pool else 'once'}; remove them, or set {'pool' if in_pool else 'data'}"
                f".max_shared_documents (now {table.max_shared_documents})"
            )


def table_of(test_set: str) -> str:
    """The table of the study file that declares an additional test set."""
    return "pool" if test_set == POOL_DOMAIN else f"evaluate, {test_set}"
