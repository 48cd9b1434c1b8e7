"""The probes on a checkpoint, after training: the same measurements as at an evaluation, beside the untrained model's."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_prep.errors import InputError
from data_prep.token_store import TokenStore, find_store
from repeat_study.checkpoints.files import load_weights, read_weights, recorded_run
from repeat_study.config.run import Run
from repeat_study.model.decoder import Decoder
from repeat_study.probes.evaluation import Evaluation, Evaluator, evaluator
from repeat_study.probes.heads import COPIES as HEAD_COPIES
from repeat_study.records.run_directory import RunDirectory


@dataclass(frozen=True)
class Trained:
    """A run's model as it was after `step` steps, and the store it was trained on."""

    run: Run
    store: TokenStore
    step: int
    model: Decoder


def trained(folder: Path, data_dir: Path, step: int | None = None) -> Trained:
    """The model of the run in `folder`, at its last checkpoint or at a `step` whose weights were kept.

    data_dir: where the token store lies. Raises InputError where the run, its weights or its store are not there or not
    its own.
    """
    directory = RunDirectory(folder)
    run = recorded_run(directory)
    store = find_store(data_dir, run.corpus)
    path = directory.checkpoint if step is None else directory.weights_at(step)
    at, weights = read_weights(path, run)
    model = Decoder(run.shape, run.model_vocabulary(store.vocabulary), run.context, [run.seed])
    load_weights(model, weights, path, run.model)
    return Trained(run, store, at, model)


@dataclass(frozen=True)
class Probed:
    """What was found on a run's weights after `step` steps, and on the untrained model they came from, the null."""

    run: Run
    step: int
    evaluator: Evaluator
    found: Evaluation
    untrained: Evaluation

    def record(self) -> dict[str, Any]:
        """Every number, for a file; the forms are those of metrics.jsonl, heads.parquet and paragraph.parquet."""
        copying, heads = self.evaluator.copying, self.evaluator.heads
        lengths = {"copying": [copying.copies, copying.length], "heads": [HEAD_COPIES, heads.length if heads else 0]}
        found = {"copies_and_tokens": lengths, **asdict(self.found), "untrained": asdict(self.untrained)}
        return {"run": self.run.name, "step": self.step, **_without_nan(found)}


def _without_nan(value: Any) -> Any:
    """What JSON can hold: None for NaN, an interval that one sequence does not have."""
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def probe(subject: Trained, text: str | None = None) -> Probed:
    """Measure a model; text: paragraphs for the copying loss in place of the study's.

    Raises InputError where the text or the context is too short.
    """
    run, model = subject.run, subject.model
    if run.context < 2 * HEAD_COPIES:
        raise InputError(
            f"{run.name}: a context of {run.context} tokens; the probe of heads needs {2 * HEAD_COPIES} or more"
        )
    if text is not None:
        run = run.model_copy(update={"evaluation": run.evaluation.model_copy(update={"copying_text": text})})
    evaluate = evaluator(run, subject.store)
    untrained = Decoder(run.shape, model.vocabulary, run.context, [run.seed])
    return Probed(subject.run, subject.step, evaluate, evaluate(model, subject.step), evaluate(untrained, 0))
