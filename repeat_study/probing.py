"""The probes on a checkpoint, after training: the same measurements as at an evaluation, beside the untrained model's."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from data_prep.errors import InputError
from data_prep.token_store import TokenStore, find_store
from repeat_study.evaluation import Evaluation, Evaluator, evaluator
from repeat_study.model import Decoder
from repeat_study.plan import plain_table
from repeat_study.probes.copying import COPIES
from repeat_study.probes.head_table import ABLATIONS
from repeat_study.probes.heads import COPIES as HEAD_COPIES
from repeat_study.records import RunDirectory
from repeat_study.run import Run
from repeat_study.weights import load_weights, read_weights, recorded_run


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
