"""Warn about a study whose text is probably too short for its grid, or whose test sets have fewer sequences than requested."""

import math

from data_prep.data_spec import DataSpec
from data_prep.draw import Unit
from data_prep.token_store import find_store
from repeat_study.config.run import Run
from repeat_study.config.study import Study
from repeat_study.preparation import PreparedStudy


def expected_train_shortage(study: Study) -> list[str]:
    """Warn if `data.max_tokens` is probably too small for a run. Reads no text, so the warning comes before a long build.

    At most one sentence. It is not an error, because the store can have more tokens than `max_tokens` (the last document is not
    cut), and the share of documents in the test split is only approximately `test_fraction`.
    """
    data, runs = study.data, study.runs()
    largest = max(runs, key=_train_tokens)
    train_fraction = 1 - data.test_fraction
    needed, expected = _train_tokens(largest), int(data.max_tokens * train_fraction)
    if needed <= expected:
        return []
    return [
        f"warning: {study.name}: data.max_tokens = {data.max_tokens:,} is probably too small: {largest.label} needs {needed:,}"
        f" training tokens, but the training split will contain about {expected:,}; increase data.max_tokens to"
        f" {math.ceil(needed / train_fraction):,}"
    ]


def _train_tokens(run: Run) -> int:
    """Number of tokens that the training split must contain: a clean run's sequences, and the pool."""
    sequences = run.positions + run.pool
    if run.unit is Unit.DOCUMENT:  # half of the split is reserved for the unique stream
        sequences = max(sequences, 2 * run.pool)
    return sequences * (run.context + 1)


def expected_test_shortage(study: Study) -> list[str]:
    """Warn if a test split will probably have fewer sequences than `evaluation.test_sequences`. Reads no text."""
    tests = {"test split": study.data} | {f"test set {test.name}": test.data(study.data) for test in study.evaluate}
    return [
        sentence
        for name, data in tests.items()
        for context in _contexts(study.runs())
        for sentence in _shortage(
            study, name, context, _expected_sequences(data, context), "will contain at most about"
        )
    ]


def _expected_sequences(data: DataSpec, context: int) -> int:
    return int(data.max_tokens * data.test_fraction) // (context + 1)


def actual_test_shortage(prepared: PreparedStudy) -> list[str]:
    """State which test splits have fewer sequences than `evaluation.test_sequences`, and how many are used instead."""
    study, folder = prepared.study, prepared.store.folder.parent
    stores = {"test split": prepared.store}
    stores |= {f"test set {test.name}": find_store(folder, test.fingerprint) for test in prepared.further_tests}
    return [
        sentence
        for name, store in stores.items()
        for context in _contexts(study.runs())
        for sentence in _shortage(study, name, context, store.sequences_in("test", context), "contains only")
    ]


def _contexts(runs: list[Run]) -> list[int]:
    return sorted({run.context for run in runs})


def _shortage(study: Study, name: str, context: int, sequences: int, contains: str) -> list[str]:
    requested = study.evaluation.test_sequences
    if sequences >= requested:
        return []
    if not sequences:  # an error once the store is built
        return [
            f"warning: {study.name}: the {name} will probably be shorter than one sequence of {context + 1} tokens; increase its"
            " max_tokens or test_fraction"
        ]
    return [
        f"warning: {study.name}: evaluation.test_sequences = {requested:,}, but the {name} {contains} {sequences:,} sequences of"
        f" {context + 1} tokens; runs are tested on all of them"
    ]
