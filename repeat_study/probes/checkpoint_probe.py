"""Run an evaluation's probes on a saved checkpoint, and on an untrained model as the null."""

import os
from dataclasses import dataclass
from pathlib import Path

from data_prep.errors import InputError
from data_prep.token_store import NO_TOKENIZER, TokenStore, find_store
from repeat_study.checkpoints.files import load_weights, read_weights
from repeat_study.config.run import Run
from repeat_study.model.decoder import Decoder
from repeat_study.probes.evaluation import evaluator
from repeat_study.probes.heads import COPIES as HEAD_COPIES
from repeat_study.probes.probed_model import ProbedModel
from repeat_study.probes.reports import Report, ignore
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
    weights = run.shape.parameters_total(vocabulary)
    positions = run.shape.layers * run.context * run.shape.d_model
    check_memory(
        path, f"a trained and an untrained {run.model} with a context of {run.context} need", 2 * (weights + positions)
    )


def check_memory(path: Path, need: str, numbers: int) -> None:
    """Raise an InputError that names `path` if this many float32 numbers do not fit into this machine's memory."""
    needed = BYTES_PER_WEIGHT * numbers
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > available:
        raise InputError(f"{path}: {need} {needed / 1e9:,.1f} GB; this machine has {available / 1e9:,.1f} GB")


def probe(trained: TrainedModel, text: str | None = None, device: str = "cpu", report: Report = ignore) -> ProbedModel:
    """Run all probes on a trained model, and on an untrained model with the same shape and seed, the null.

    text: paragraphs to copy instead of the study's own. device: where the models run. report: called before each model is
    measured. Raises InputError if the context is too short or the text cannot be used.
    """
    run, model = trained.run, trained.model.to(device)
    if text is not None:
        run = run.model_copy(update={"evaluation": run.evaluation.model_copy(update={"copying_text": text})})
    evaluate = evaluator(run, trained.store)
    if evaluate.heads is None:
        raise InputError(
            f"{run.name}: a context of {run.context} tokens is too short; the heads probe needs {2 * HEAD_COPIES} or more"
        )
    untrained = Decoder(run.shape, model.vocabulary, run.context, [run.seed]).to(device)
    title = f"{run.name}, step {trained.step} of {run.steps}, {trained.step * run.tokens_per_step:,} tokens"
    report(title)
    measured = evaluate(model, trained.step)
    report(f"{title}; untrained model")
    null = evaluate(untrained, 0)
    return ProbedModel(
        {"run": trained.run.name, "step": trained.step},
        title,
        run.context,
        evaluate.copying,
        evaluate.heads,
        measured,
        null,
        () if trained.store.has_tokenizer else (NO_TOKENIZER,),
    )
