"""Warn about a study whose text is probably too short for its grid, or whose test sets have fewer sequences than requested."""

import math
from collections.abc import Iterator

from data_prep.draw import Unit
from data_prep.shares import ShareOrder, exact_shares
from data_prep.token_store import find_store
from repeat_study.config.run import Run
from repeat_study.config.study import Study
from repeat_study.formatting import plural
from repeat_study.preparation import PreparedStudy


def expected_train_shortage(study: Study) -> list[str]:
    """Warn if any `max_tokens` is probably too small for a run. Reads no text, so the warning comes before a long build.

    Returns at most one warning per source of training text. It is only a warning, because a store can have more tokens than
    `max_tokens` (the last document is not cut), and the share of documents in the test split is only approximately `test_fraction`.
    """
    runs = study.runs()
    needs = {run: _train_sequences(study, run) for run in runs}
    warnings = []
    for number, (table, data) in enumerate(study.training_tables.items()):
        largest = max(runs, key=lambda run: needs[run][number] * (run.context + 1))
        train_fraction = 1 - data.test_fraction
        needed, expected = needs[largest][number] * (largest.context + 1), int(data.max_tokens * train_fraction)
        if needed > expected:
            warnings.append(
                f"warning: {study.name}: {table}.max_tokens = {data.max_tokens:,} is probably too small: {largest.label} needs"
                f" {needed:,} training tokens, but the training split will contain about {expected:,}; increase"
                f" {table}.max_tokens to {math.ceil(needed / train_fraction):,}"
            )
    return warnings


def _train_sequences(study: Study, run: Run) -> list[int]:
    """Number of sequences that each training split must contain for the unique stream and for the pool."""
    named = study.pool and study.pool.data(study.data)
    sequences = []
    for name, data in zip(run.sequences_by_source(0) or [""], study.data.stores, strict=True):
        drawn_from = data == named if named else True  # whether the pool is set aside from this source's text
        unique = run.clean_positions if drawn_from else run.mixture().unique_positions
        pool = run.pool if drawn_from else 0
        if name:
            unique, pool = run.sequences_by_source(unique)[name], pool if named else run.sequences_by_source(pool)[name]
        # If the pool consists of documents, half of the split is reserved for the unique stream.
        sequences.append(max(unique + pool, 2 * pool) if run.unit is Unit.DOCUMENT else unique + pool)
    return [*sequences, run.pool]


def expected_test_shortage(study: Study) -> list[str]:
    """Warn if a test split will probably have fewer sequences than `evaluation.test_sequences`. Reads no text."""
    tests = [*study.data.stores, *study.test_sets.values()]
    expected = {
        context: [int(data.max_tokens * data.test_fraction) // (context + 1) for data in tests]
        for context in _contexts(study)
    }
    return list(_shortages(study, expected, "will contain at most about"))


def actual_test_shortage(prepared: PreparedStudy) -> list[str]:
    """State which test splits have fewer sequences than `evaluation.test_sequences`, and how many are used instead."""
    study, folder = prepared.study, prepared.store.folder.parent
    stores = [*prepared.sources, *(find_store(folder, test.fingerprint) for test in prepared.further_tests)]
    actual = {context: [store.sequences_in("test", context) for store in stores] for context in _contexts(study)}
    return list(_shortages(study, actual, "contains only"))


def _contexts(study: Study) -> list[int]:
    return sorted({run.context for run in study.runs()})


def _test_splits(study: Study) -> list[tuple[str, int]]:
    """The name of every test split, and the number of sequences that runs request from it."""
    requested = study.evaluation.test_sequences
    by_source = study.runs()[0].sequences_by_source(requested)
    mixed = [(f"test split of {name}", count) for name, count in by_source.items()]
    return [*(mixed or [("test split", requested)]), *((f"test set {name}", requested) for name in study.test_sets)]


def _shortages(study: Study, sequences: dict[int, list[int]], contains: str) -> Iterator[str]:
    """Yield one warning per short test split and context. sequences: for each context, the number of sequences in each split."""
    total = study.evaluation.test_sequences
    for number, (name, requested) in enumerate(_test_splits(study)):
        for context, counts in sequences.items():
            if not counts[number]:  # an error once the store is built
                yield (
                    f"warning: {study.name}: the {name} will probably be shorter than one sequence of {context + 1} tokens; increase"
                    " its max_tokens or test_fraction"
                )
            elif counts[number] < requested:
                share = f" ({requested:,} of them from this source)" if requested < total else ""
                from_mixture = number < len(study.data.mix)
                tested = f"a mixture of {plural(_mixed(study, counts), 'sequence')}" if from_mixture else "all of it"
                yield (
                    f"warning: {study.name}: evaluation.test_sequences = {total:,}{share}, but the {name} {contains}"
                    f" {plural(counts[number], 'sequence')} of {context + 1} tokens; runs are tested on {tested}"
                )


def _mixed(study: Study, sequences: list[int]) -> int:
    """The number of sequences in the test set of a mixture, given the number in the test split of each source."""
    total, order = study.evaluation.test_sequences, ShareOrder(exact_shares([mixed.share for mixed in study.data.mix]))
    return min(total, *(order.position(n, min(total, sequences[n])) for n in range(len(study.data.mix))))
