"""The probes on a checkpoint, after training: the same measurements as at an evaluation, beside the untrained model's."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from data_prep.errors import InputError
from data_prep.files import read_record
from data_prep.token_store import MANIFEST, TokenStore
from repeat_study.evaluation import Evaluation, Evaluator, evaluator
from repeat_study.model import Decoder
from repeat_study.plan import plain_table
from repeat_study.probes.copying import COPIES
from repeat_study.probes.head_table import ABLATIONS
from repeat_study.probes.heads import COPIES as HEAD_COPIES
from repeat_study.records import RunDirectory
from repeat_study.run import RESULT_FORMAT, Run, run_of


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
    run = _run_of(directory)
    store = _store_of(run, data_dir)
    path = directory.checkpoint if step is None else directory.weights_at(step)
    at, weights = _read_weights(path, run)
    model = Decoder(run.shape, run.model_vocabulary(store.vocabulary), run.context, [run.seed])
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{path}: not weights of a {run.model} with a vocabulary of {model.vocabulary}") from error
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


def tables_of(probed: Probed) -> Iterator[Table | str]:
    """What people read: what was measured, a table of numbers, a table of heads."""
    run, copying = probed.run, probed.evaluator.copying
    assert probed.evaluator.heads
    yield f"{run.name}, step {probed.step} of {run.steps}, {probed.step * run.tokens_per_step:,} tokens"
    said = f"copying: {copying.copies} copies of {len(copying.copied)} paragraphs, {copying.length} tokens each"
    fewer = f"; the {COPIES} of the paper do not fit a context of {run.context}" if copying.copies < COPIES else ""
    yield f"{said}{fewer}"
    yield f"heads: {HEAD_COPIES} copies of {probed.evaluator.heads.length} random tokens\n"
    numbers = plain_table("nats, or 0 to 1", "value", "± 95%", "null", "untrained")
    row, untrained = probed.found.row, probed.untrained.row
    for name, value in row.items():
        if isinstance(value, float) and not name.endswith(("_ci", "_null")):
            beside = (row.get(f"{name}_ci"), row.get(f"{name}_null"), untrained.get(name))
            numbers.add_row(name.replace("_", " "), *map(_cell, (value, *beside)))
    yield numbers
    yield "\neach head ± 95% over sequences, its null in brackets"
    names = ("prefix_matching", "previous_token", "copying", "ov_copying", "attribution", *ABLATIONS)
    heads = probed.found.heads
    table = plain_table("head", *(name.replace("_", " ") for name in names))
    for place, (layer, head) in enumerate(zip(heads["layer"], heads["head"], strict=True)):
        cells = []
        for name in names:
            half, null = (heads.get(f"{name}_{kind}") for kind in ("ci", "null"))
            cells.append(
                _cell(heads[name][place])
                + (f"±{_cell(half[place])}" if half else "")
                + (f" ({_cell(null[place])})" if null else "")
            )
        table.add_row(f"L{layer}H{head}", *cells)
    yield table


def _cell(value: float | None) -> str:
    return "" if value is None or value != value else f"{value:.3f}"


def _read_weights(path: Path, run: Run) -> tuple[int, dict[str, torch.Tensor]]:
    """Step and decoder's state_dict of last.ckpt or of weights that were kept."""
    if not path.is_file():
        kept = sorted(int(other.stem.removeprefix("step-")) for other in path.parent.glob("step-*.pt"))
        known = f"kept are the steps {', '.join(map(str, kept))}" if kept else "no step's weights were kept"
        raise InputError(f"{path}: no such checkpoint; {known}, `run --keep-checkpoints` keeps them")
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        step = int(content["step"] if "step" in content else content["global_step"])
        weights = (
            content["model"]
            if "model" in content
            else {
                key.removeprefix("model."): value
                for key, value in content["state_dict"].items()
                if key.startswith("model.")
            }
        )
        identity = content["run"]
    except Exception as error:  # torch raises almost anything on a damaged file
        raise InputError(f"{path}: damaged ({type(error).__name__}), or not a checkpoint of this version") from error
    if identity != run.identity:
        raise InputError(f"{path}: a checkpoint of another spec ({identity[:8]}) than the spec.json beside it")
    return step, weights


def _run_of(directory: RunDirectory) -> Run:
    if not directory.spec.is_file():
        raise InputError(f"{directory.path}: no run here (no spec.json); accepted is a run's folder, runs/STUDY/RUN")
    record = read_record(directory.spec, "format", "identity")
    if record["format"] != RESULT_FORMAT:
        raise InputError(f"{directory.spec}: of format {record['format']}; this version reads {RESULT_FORMAT}")
    run = run_of(record, directory.spec)
    if run.identity != record["identity"]:
        raise InputError(
            f"{directory.spec}: altered since it was written; its fields are not those of {record['identity'][:8]}"
        )
    return run


def _store_of(run: Run, data_dir: Path) -> TokenStore:
    stores = {path.parent: read_record(path).get("fingerprint") for path in sorted(data_dir.glob(f"*/{MANIFEST}"))}
    for folder, fingerprint in stores.items():
        if fingerprint == run.corpus:
            return TokenStore(folder)
    found = ", ".join(f"{folder.name} ({fingerprint})" for folder, fingerprint in stores.items()) or "none"
    raise InputError(f"{data_dir}: no token store {run.corpus}, which the run was trained on; there are: {found}")
