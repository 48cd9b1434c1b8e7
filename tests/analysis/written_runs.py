"""Write run directories with chosen metrics, using the same code as training."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.token_store import TokenStore
from repeat_study.config.run import Run
from repeat_study.probes.positions import position_bands
from repeat_study.records.evaluations import append_evaluation
from repeat_study.records.run_directory import RunDirectory
from repeat_study.records.spec_record import spec_record

NULL, HALF = 0.03125, 0.0078125  # null and interval half-width of all head scores; exact in binary
TOKENS = ["Alice", " was", "\n", "\t<b>", " &", "tired"]


def write_run(
    folder: Path,
    template: Run,
    store: TokenStore,
    losses: Sequence[float],
    heads: Sequence[Any] | None = None,
    paragraph: Sequence[Sequence[float]] | None = None,
    metrics: dict[str, Any] | None = None,
    of_parent: Sequence[Sequence[float]] | None = None,
    of_test: Sequence[Sequence[float]] | None = None,
    of_pool: Sequence[Sequence[float]] | None = None,
    **fields: Any,
) -> str:
    """Write the directory of a run with one evaluation per test loss, and return its name.

    losses: test loss at every evaluation; the copying loss is set to the same values.
    heads: prefix matching of every head, [evaluations, layers, heads]. Ablating a head lowers the copying gain by twice its score.
    paragraph: probability of every token in every copy at the last evaluation, [copies, tokens].
    metrics: metrics to replace at the last evaluation.
    of_parent: losses on the parent's test text, pool and unique text, [evaluations, 3].
    of_test, of_pool: losses of the test and the pool sequences, [evaluations, sequences].
    fields: fields of the run that differ from `template`.

    Without heads, paragraph, of_test and of_pool, the directory looks like one from an old version.
    """
    run = Run.model_validate(template.model_dump() | {"evaluation": template.evaluation} | fields)
    directory = RunDirectory(folder / run.name)
    directory.make()
    directory.spec.write_text(json.dumps(spec_record(run, store)))
    steps = [round(run.steps * place / (len(losses) - 1)) for place in range(len(losses))]
    for place, (step, loss) in enumerate(zip(steps, losses, strict=True)):
        row = {"step": step, "tokens": step * 256, "train_loss": loss, "test_loss": loss, "pool_loss": loss / 2}
        row |= {"seen_unique_loss": loss, "copying_loss": loss, "copying_gain": 0.1, "copying_gain_null": 0.0}
        row |= {"copying_loss_per_copy": [loss] * 4}
        scores, tokens = {}, {}
        if heads is not None:
            row |= {"prefix_matching": float(np.max(heads[place])), "prefix_matching_ci": HALF}
            row |= {"prefix_matching_null": NULL, "in_context_score": -0.25, "random_copying_loss": loss}
            row |= {"random_copying_gain_null": 0.0, "copying_score": -0.5, "copying_score_null": -0.75}
            row |= {"random_copying_gain": 0.5, "loss_by_position": falling(loss, run.context)}
            scores = head_columns(np.asarray(heads[place], float))
        if paragraph is not None:
            final = np.asarray(paragraph, float)
            probabilities = final if place == len(losses) - 1 else np.full_like(final, 0.01)
            tokens = {
                "copy": np.repeat(np.arange(1, len(final) + 1), len(TOKENS)).tolist(),
                "token": TOKENS * len(final),
                "loss": (-np.log(probabilities)).flatten().tolist(),
            }
        if of_parent is not None:
            texts = ("test", "pool", "seen_unique")
            row |= {
                f"parent_{text}_loss": parent_loss for text, parent_loss in zip(texts, of_parent[place], strict=True)
            }
        if place == len(losses) - 1:
            row |= metrics or {}
        timing = {"step": step, "time": 0.0, "train_seconds": 1.0, "evaluation_seconds": 0.1, "saving_seconds": 0.0}
        sequences = (
            {} if of_test is None else {"sequence": list(range(len(of_test[place]))), "loss": list(of_test[place])}
        )
        tables = {"heads": scores, "paragraph": tokens, "test_sequences": sequences}
        if of_pool is not None:
            tables["pool_sequences"] = {"sequence": list(range(len(of_pool[place]))), "loss": list(of_pool[place])}
        append_evaluation(directory, row, timing, tables)
    directory.finish(steps)
    return run.name


def falling(loss: float, context: int) -> list[float]:
    """Loss by position, falling by an eighth of a nat per band."""
    return [loss + 1 - band / 8 for band in range(len(position_bands(context)))]


def head_columns(scores: np.ndarray) -> dict[str, list[Any]]:
    """The columns of heads.parquet that figures use, for scores of shape [layers, heads]."""
    layer, head = np.indices(scores.shape)
    flat = scores.flatten()
    columns = {"layer": layer.flatten(), "head": head.flatten(), "prefix_matching": flat}
    columns |= {"prefix_matching_ci": np.full_like(flat, HALF), "prefix_matching_null": np.full_like(flat, NULL)}
    columns |= {"ablation_copying_gain": 2 * flat, "ablation_copying_gain_ci": np.full_like(flat, HALF)}
    columns |= {"ablation_copying_gain_null": np.zeros_like(flat)}
    return {name: values.tolist() for name, values in columns.items()}
