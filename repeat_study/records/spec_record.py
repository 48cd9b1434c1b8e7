"""Build the content of spec.json: the fields of a run and the numbers derived from them."""

import json
from typing import Any

from data_prep.token_store import TokenStore
from repeat_study.config.run import RESULT_FORMAT, Run


def spec_record(run: Run, store: TokenStore) -> dict[str, Any]:
    """The content of spec.json for a run on this token store, as it would be read back from JSON."""
    return derived_fields(run, run.model_vocabulary(store.vocabulary))


def derived_fields(run: Run, vocabulary: int) -> dict[str, Any]:
    """The content of spec.json for a run, given the size of its model's vocabulary."""
    shape, mixture = run.shape, run.mixture()
    record = {
        "name": run.name,
        "label": run.label,
        "identity": run.identity,
        "format": RESULT_FORMAT,
        **run.model_dump(),
        "vocabulary": vocabulary,
        "parameters_non_embedding": shape.parameters_non_embedding,
        "parameters_total": shape.parameters_total(vocabulary),
        "steps": run.steps,
        "trained_tokens": run.positions * run.context,
        "pool_sequences": mixture.pool,
        "pool_tokens": mixture.pool * run.context,
        "unique_tokens": mixture.unique_positions * run.context,
        "exact_repeated_fraction": float(mixture.exact_fraction),
        "training_flops_per_token": shape.training_flops_per_token(vocabulary, run.context),
    }
    if run.mix:
        record["unique_sequences_by_source"] = run.sequences_by_source(mixture.unique_positions)
        if not run.pool_corpus:
            record["pool_sequences_by_source"] = run.sequences_by_source(mixture.pool)
    return dict(json.loads(json.dumps(record)))


def first_difference(recorded: dict[str, Any], expected: dict[str, Any]) -> str:
    """Describe the first field that differs between two unequal records."""
    key = next(key for key in (*expected, *recorded) if recorded.get(key) != expected.get(key))
    return f"{key}: found {recorded.get(key)!r}, expected {expected.get(key)!r}"
