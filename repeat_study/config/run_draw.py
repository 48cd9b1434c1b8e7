"""Find a run's token stores, and draw its sequences from them."""

from typing import TYPE_CHECKING

from data_prep.combined_draw import CombinedDraw
from data_prep.draw import Draw, Unit
from data_prep.errors import InputError
from data_prep.shares import ShareOrder, exact_shares
from data_prep.token_store import TOKENIZER, TokenStore, find_store

if TYPE_CHECKING:
    from repeat_study.config.run import Run


def training_stores(run: "Run", store: TokenStore) -> list[TokenStore]:
    """The stores of the unique stream, in the order of the shares.

    store: the store of `run.corpus`; the others are found next to it. Raises InputError if a store is missing or listed twice.
    """
    stores = [store, *(find_store(store.folder.parent, mixed.fingerprint) for mixed in run.mix[1:])]
    for number, mixed in enumerate(run.mix):
        if stores[number].fingerprint in {other.fingerprint for other in stores[:number]}:
            raise InputError(f"data.mix, {mixed.name}: has the same text as another source; each text may be used once")
        _require_same_tokenizer(stores[number], store, f"data.mix, {mixed.name}")
    return stores


def pool_store(run: "Run", stores: list[TokenStore]) -> TokenStore | None:
    """The store of the run's named pool, which can be one of `stores`; None if the pool is drawn from the corpus.

    Raises InputError if the store is missing or has a different tokenizer.
    """
    if run.pool_corpus is None:
        return None
    fingerprint = run.pool_corpus.fingerprint
    store = next((store for store in stores if store.fingerprint == fingerprint), None)
    store = store or find_store(stores[0].folder.parent, fingerprint)
    _require_same_tokenizer(store, stores[0], "pool")
    return store


def run_draw(run: "Run", store: TokenStore) -> Draw | CombinedDraw:
    """Draw the run's sequences from the stores of its corpus, its other sources and its pool.

    A pool from a training store consists of the sequences that the unique stream leaves out [H22]. A pool from a store of its own can
    use that store's whole training split. Raises InputError if a store is missing or has too few tokens.
    """
    stores = training_stores(run, store)
    for each in stores:
        _require_test_text(each, run.context)
    return _draw(run, stores)


def _draw(run: "Run", stores: list[TokenStore]) -> Draw | CombinedDraw:
    pool_from, mixture = pool_store(run, stores), run.mixture()
    order = ShareOrder(exact_shares([mixed.share for mixed in run.mix] or [1]))
    draws = []
    for each, positions in zip(stores, order.counts(run.clean_positions).tolist(), strict=True):
        # If the pool has its own store, the order of the unique stream does not depend on the unit of the pool.
        unit = run.unit if pool_from in (None, each) else Unit.SEQUENCE
        draws.append(Draw(each, run.context, positions, unit, run.seed, run.pool_seed))
    if not run.mix and pool_from in (None, stores[0]):
        draws[0].require(mixture.pool)
        return draws[0]
    named = None
    if pool_from:
        own = Draw(pool_from, run.context, 0, run.unit, run.seed, run.pool_seed)
        named = draws[stores.index(pool_from)] if pool_from in stores else own
    names = tuple(mixed.name for mixed in run.mix) or ("data",)
    draw = CombinedDraw(tuple(draws), names, order, named)
    draw.require(mixture.pool, mixture.unique_positions)
    return draw


def _require_same_tokenizer(store: TokenStore, first: TokenStore, where: str) -> None:
    tokenizers = [each.manifest["sha256"].get(TOKENIZER) for each in (store, first)]
    if tokenizers[0] != tokenizers[1] or store.vocabulary != first.vocabulary:
        raise InputError(
            f"{where}: {store.folder} and {first.folder} have different tokenizers; delete the first folder and run prepare again"
        )


def _require_test_text(store: TokenStore, context: int) -> None:
    if not store.sequences_in("test", context):
        raise InputError(
            f"context: the test split contains only {store.test.size} tokens, but one test sequence needs {context + 1};"
            " provide more text or increase data.test_fraction"
        )
