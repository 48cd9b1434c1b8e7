"""Combine a table of models with the scores that `probe` saved for them."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.probed_models.listed_models import ListedModel
from repeat_study.records.metrics import METRICS


def score_table(models: Sequence[ListedModel], records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row per model: how it was trained, then every score with its interval, its null and the untrained model's score.

    records: for each model, the content of the JSON file that `probe` writes. A score that a model lacks is NaN.
    """
    rows = []
    for model, record in zip(models, records, strict=True):
        training = {
            "path": model.name,
            "params": model.params,
            "tokens": model.tokens,
            "fraction": model.fraction,
            "repeats": model.repeats,
            "seed": model.seed,
            "clean": model.clean,
        }
        row, untrained = record["row"], record["untrained"]["row"]
        keys = [
            key
            for metric in METRICS
            if metric.probe
            for key in (metric.key, metric.interval_key, metric.null_key)
            if key
        ]
        scores = {key: row.get(key) for key in keys}
        nulls = {f"untrained_{metric.key}": untrained.get(metric.key) for metric in METRICS if metric.key in keys}
        rows.append(training | scores | nulls)
    table = pd.DataFrame(rows)
    numeric = [name for name in table if name not in ("path", "seed", "clean")]
    return table.astype({name: float for name in numeric}).dropna(axis="columns", how="all")


def differing_tokens(records: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the models divide the copied paragraphs into different tokens, so that losses per token cannot be compared."""
    paragraphs = {tuple(record["paragraph"]["token"]) for record in records if record.get("paragraph")}
    return len(paragraphs) > 1
