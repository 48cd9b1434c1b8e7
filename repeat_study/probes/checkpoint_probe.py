"""Run an evaluation's probes on a saved checkpoint, and on an untrained model as the null."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.errors import InputError
from data_prep.token_store import TokenStore, find_store
from repeat_study.checkpoints.files import load_weights, read_weights
from repeat_study.config.run import Run
from repeat_study.model.decoder import Decoder
from repeat_study.probes.evaluation import Evaluator, evaluator
from repeat_study.probes.heads import COPIES as HEAD_COPIES
from repeat_study.probes.probe import Evaluation
from repeat_study.records.recorded_run import recorded_run
from repeat_study.records.run_directory import RunDirectory

BYTES_PER_WEIGHT = 4  # float32, for position embeddings too


@dataclass(frozen=True)
class TrainedModel:
    """A run's model after `step` steps, and the token store that it was trained on."""

    run: Run
    store: TokenStore
    step: int
    model: Decoder


def load_trained(folder: Path, data_dir: Path, step: int | None = None) -> TrainedModel:
    """Load a run's model from the last checkpoint in `folder`, or from the weights kept at `step`.

    data_dir: the folder that contains the token store. Raises InputError if the run, its weights or its store are missing, if the
    weights belong to another run, or if the model does not fit into this machine's memory.
    """
    directory = RunDirectory(folder)
    run = recorded_run(directory)
    store = find_store(data_dir, run.corpus)
    path = directory.checkpoint if step is None else directory.weights_at(step)
    _check_size(run, run.model_vocabulary(store.vocabulary), path)
    saved_step, weights = read_weights(path, run)
    model = Decoder(run.shape, run.model_vocabulary(store.vocabulary), run.context, [run.seed])
    load_weights(model, weights, path, run.model)
    return TrainedModel(run, store, saved_step, model)


def _check_size(run: Run, vocabulary: int, path: Path) -> None:
    """Check the size of a declared model before allocating memory for it.

    Raises an InputError that names the checkpoint's `path` if the trained and untrained models do not fit into this machine's
    memory.
    """
    weights = BYTES_PER_WEIGHT * run.shape.parameters_total(vocabulary)
    positions = BYTES_PER_WEIGHT * run.shape.layers * run.context * run.shape.d_model
    needed = 2 * (weights + positions)
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > available:
        raise InputError(
            f"{path}: a trained and an untrained {run.model} with a context of {run.context} need {needed / 1e9:,.1f} GB; this"
            f" machine has {available / 1e9:,.1f} GB"
        )


@dataclass(frozen=True)
class ProbedCheckpoint:
    """Evaluations of a run's model after `step` steps and of its null, an untrained model with the same shape and seed."""

    run: Run
    step: int
    evaluator: Evaluator
    trained: Evaluation
    untrained: Evaluation

    def record(self) -> dict[str, Any]:
        """All numbers for a JSON file, with the same keys and columns as a run's metrics.jsonl and tables."""
        copying, heads = self.evaluator.copying, self.evaluator.heads
        lengths = {"copying": [copying.copies, copying.length], "heads": [HEAD_COPIES, heads.length if heads else 0]}
        numbers = {"copies_and_tokens": lengths, **self.trained.record(), "untrained": self.untrained.record()}
        return {"run": self.run.name, "step": self.step, **_without_nan(numbers)}


def _without_nan(value: Any) -> Any:
    """Replace NaN with None, because JSON has no NaN. Intervals over a single sequence are NaN."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def probe(trained: TrainedModel, text: str | None = None) -> ProbedCheckpoint:
    """Run all probes on a trained model and on its untrained null.

    text: paragraphs to copy instead of the study's own. Raises InputError if the context is too short or the text cannot be used.
    """
    run, model = trained.run, trained.model
    if run.context < 2 * HEAD_COPIES:
        raise InputError(
            f"{run.name}: a context of {run.context} tokens is too short; the heads probe needs {2 * HEAD_COPIES} or more"
        )
    if text is not None:
        run = run.model_copy(update={"evaluation": run.evaluation.model_copy(update={"copying_text": text})})
    evaluate = evaluator(run, trained.store)
    untrained = Decoder(run.shape, model.vocabulary, run.context, [run.seed])
    return ProbedCheckpoint(trained.run, trained.step, evaluate, evaluate(model, trained.step), evaluate(untrained, 0))
