"""TensorBoard over a study's folder: a line per run over trained tokens, a table of the runs, charts side by side.

A run's events lie in its own directory, so TensorBoard calls it by that name, and are a view of metrics.jsonl: a run that
goes on writes them anew. What is said of the study as a whole lies once in the study's folder, because TensorBoard takes
the definition of an experiment from whichever run it meets first.
"""

import hashlib
import io
import os
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT, DT_STRING
from tensorboard.plugins.custom_scalar import metadata as custom_scalars
from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MultilineChartContent
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.hparams.api_pb2 import (
    DATA_TYPE_FLOAT64,
    DATA_TYPE_STRING,
    STATUS_FAILURE,
    STATUS_SUCCESS,
    Experiment,
    HParamInfo,
    MetricInfo,
    MetricName,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.plugins.image import metadata as images
from tensorboard.plugins.scalar import metadata as scalars
from tensorboard.summary.writer.record_writer import RecordWriter

from data_prep.errors import InputError
from data_prep.files import write_atomically
from repeat_study.config.run import Run
from repeat_study.records.heat_map import heat_map
from repeat_study.records.run_directory import Columns

PREFIX = "events.out.tfevents"


class Scalar(NamedTuple):
    """How a number of an evaluation is shown."""

    tag: str
    name: str
    unit: str
    meaning: str
    scale: float = 1.0  # from the unit of the record to the one shown

    @property
    def title(self) -> str:
        """Name and unit."""
        return f"{self.name}, {self.unit}" if self.unit else self.name


NATS = "nats per token"
SCALARS = {
    "test_loss": Scalar("loss/test", "test loss", NATS, "on held-out text"),
    "pool_loss": Scalar(
        "loss/pool",
        "pool loss",
        NATS,
        "on the repeated pool; in a clean run on text drawn the same way that it never trains on",
    ),
    "seen_unique_loss": Scalar("loss/seen_unique", "loss on unique text seen", NATS, "on text trained on exactly once"),
    "parent_test_loss": Scalar("loss/parent_test", "loss on the parent's test text", NATS, "of a fine-tuned run"),
    "parent_pool_loss": Scalar(
        "loss/parent_pool", "loss on the parent's pool", NATS, "which a fine-tuned run may forget"
    ),
    "parent_seen_unique_loss": Scalar(
        "loss/parent_seen_unique", "loss on unique text the parent saw", NATS, "which a fine-tuned run may forget"
    ),
    "train_loss": Scalar("loss/train", "training loss", NATS, "mean over the steps since the evaluation before"),
    "copying_loss": Scalar("copying/loss", "copying loss", NATS, "on copies 2 onwards of a paragraph"),
    "copying_gain": Scalar("copying/gain", "copying gain", NATS, "by which copies 2 onwards cost less than copy 1"),
    "copying_gain_null": Scalar("copying/gain_null", "null of the copying gain", NATS, "with every copy shuffled anew"),
    "random_copying_gain": Scalar(
        "copying/random_gain", "copying gain on random tokens", NATS, "by which copies 2 onwards cost less than copy 1"
    ),
    "random_copying_gain_null": Scalar(
        "copying/random_gain_null", "its null", NATS, "the same where every copy has fresh tokens"
    ),
    "in_context_score": Scalar(
        "induction/in_context_score",
        "in-context score",
        NATS,
        "loss late in the context minus loss early in it; negative is better",
    ),
    "prefix_matching": Scalar(
        "induction/prefix_matching",
        "prefix matching",
        "0 to 1",
        "attention of the best head to the token that came after the present one when it occurred before",
    ),
    "prefix_matching_null": Scalar(
        "induction/prefix_matching_null",
        "null of prefix matching",
        "0 to 1",
        "the same where there is nothing to match",
    ),
    "previous_token": Scalar(
        "induction/previous_token", "attention to the token before", "0 to 1", "of the head that does it most"
    ),
    "copying_score": Scalar(
        "induction/copying_score",
        "copying score",
        "-1 to 1",
        "of the best head: how far attending to a token raises that token's logit among others",
    ),
    "ablation_copying_gain": Scalar(
        "induction/ablation_copying_gain",
        "copying gain lost by ablation",
        NATS,
        "of the head without which most is lost",
    ),
    "ablation_copying_gain_null": Scalar(
        "induction/ablation_copying_gain_null",
        "null of the gain lost by ablation",
        NATS,
        "the same on shuffled copies",
    ),
    "learning_rate": Scalar("training/learning_rate", "learning rate", "", "of the next step"),
    "gradient_norm": Scalar(
        "training/gradient_norm",
        "gradient norm",
        "",
        "before clipping, mean over the steps since the evaluation before",
    ),
    "tokens_per_second": Scalar("machine/tokens_per_second", "speed", "tokens per second", "evaluations left out"),
    "utilisation": Scalar("machine/utilisation", "utilisation", "0 to 1", "of the FLOPs that the machine could do"),
    "memory_bytes": Scalar("machine/memory_gib", "memory", "GiB", "the most that was in use", 2.0**-30),
    "evaluation_seconds": Scalar("machine/evaluation_seconds", "evaluations", "seconds", "spent on all of them so far"),
}
FACTORS = {"model", "parameters_non_embedding", "repeats", "repeated_fraction"}  # in the table even when all runs agree
SHORT = {"parameters_non_embedding": "parameters"}  # the table's columns are narrow
LABELS = {"seed", "pool_seed"}  # numbers that only tell one run from another
RESULTS = ("test_loss", "pool_loss", "copying_gain", "prefix_matching")
CHARTS = ("test_loss", "pool_loss", "in_context_score", "copying_loss", "copying_gain", "prefix_matching")


HEAT_MAP = ("prefix matching of every head", "layers from the bottom up, heads from left to right; 0 to 1")


class Monitor:
    """Writes one run's events; the horizontal axis is trained tokens."""

    def __init__(self, folder: Path, run: Run, evaluations: Iterable[tuple[dict[str, Any], Columns]]) -> None:
        """Start the events of the run directory `folder` anew with the evaluations that stand, as `add` takes them."""
        evaluations = list(evaluations)
        older = event_files(folder)
        self._writer = RecordWriter((folder / f"{PREFIX}.{time.time_ns()}").open("xb"))
        self._described: set[str] = set()
        self._now = _wall_time(evaluations[0][0]) if evaluations else time.time()
        self._write(Event(wall_time=self._now, file_version="brain.Event:2"))
        self._write(_event(self._now, 0, [_session_start(run, self._now)]))
        for row, heads in evaluations:
            self._add(row, heads)
        self._writer.flush()
        for path in older:
            path.unlink(missing_ok=True)

    def add(self, row: dict[str, Any], heads: Columns) -> None:
        """One evaluation, a line of metrics.jsonl and of timing.jsonl in one, and its rows of heads.parquet; on view when
        this returns."""
        self._add(row, heads)
        self._writer.flush()

    def finish(self, succeeded: bool = True) -> None:
        """Say in the table of runs how the run ended."""
        end = SessionEndInfo(status=STATUS_SUCCESS if succeeded else STATUS_FAILURE, end_time_secs=self._now)
        plugin_data = HParamsPluginData(session_end_info=end)
        self._write(_event(self._now, 0, [_hparams_value(hparams.SESSION_END_INFO_TAG, plugin_data)]))
        self._writer.flush()

    def close(self) -> None:
        """Release the file; may be called again."""
        self._writer.close()

    def _add(self, row: dict[str, Any], heads: Columns) -> None:
        self._now = _wall_time(row)
        values = [self._value(scalar, number * scalar.scale) for scalar, number in _numbers(row)]
        if heads:
            picture = heat_map(heads["layer"], heads["head"], heads["prefix_matching"])
            values.append(image("heads/prefix_matching", *HEAT_MAP, picture))
        self._write(_event(self._now, row["tokens"], values))

    def _value(self, scalar: Scalar, number: float) -> Summary.Value:
        value = Summary.Value(tag=scalar.tag, tensor=TensorProto(dtype=DT_FLOAT, float_val=[number]))
        if scalar.tag not in self._described:  # TensorBoard reads a tag's first description only
            value.metadata.CopyFrom(scalars.create_summary_metadata(scalar.title, f"{scalar.title}: {scalar.meaning}"))
            self._described.add(scalar.tag)
        return value

    def _write(self, event: Event) -> None:
        self._writer.write(event.SerializeToString())


def write_study_page(study_dir: Path, runs: Sequence[Run]) -> None:
    """Write what TensorBoard shows of the study as a whole: which factors and results its table of runs has, and which
    charts stand side by side. Writing the same again changes nothing.

    Raises InputError when the folder cannot be written.
    """
    try:
        study_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{study_dir}: cannot be written: {error.strerror}") from error
    experiment = HParamsPluginData(experiment=_experiment(runs))
    layout = TensorProto(dtype=DT_STRING, string_val=[_layout().SerializeToString()])
    write_events(
        study_dir,
        [
            _hparams_value(hparams.EXPERIMENT_TAG, experiment),
            Summary.Value(
                tag=custom_scalars.CONFIG_SUMMARY_TAG,
                metadata=custom_scalars.create_summary_metadata(),
                tensor=layout,
            ),
        ],
    )


def image(tag: str, title: str, caption: str, png: bytes) -> Summary.Value:
    """A picture for TensorBoard's Images tab."""
    width, height = struct.unpack(">II", png[16:24])  # where a PNG's header has them
    content = [str(width).encode(), str(height).encode(), png]
    return Summary.Value(
        tag=tag,
        metadata=images.create_summary_metadata(title, caption),
        tensor=TensorProto(
            dtype=DT_STRING,
            tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=len(content))]),
            string_val=content,
        ),
    )


def write_events(folder: Path, values: Sequence[Summary.Value]) -> None:
    """Replace the event files in `folder` by one with `values` at step 0; nothing is touched where it stands already.

    The file is named after its content, so that processes that write the same do not double it.
    Raises InputError when it cannot be written.
    """
    content = b"".join(value.SerializeToString(deterministic=True) for value in values)
    path = folder / f"{PREFIX}.{hashlib.sha256(content).hexdigest()[:16]}"
    if values and not path.is_file():
        now = time.time()
        records = io.BytesIO()
        writer = RecordWriter(records)
        writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        writer.write(_event(now, 0, values).SerializeToString())
        scratch = folder / f".tensorboard.{os.getpid()}"  # a name that TensorBoard does not take for events
        write_atomically(scratch, records.getvalue())
        scratch.replace(path)
    for other in event_files(folder):
        if other != path:
            other.unlink(missing_ok=True)


def event_files(folder: Path) -> list[Path]:
    """The event files that lie in `folder` itself."""
    return sorted(folder.glob(f"{PREFIX}*"))


def _numbers(row: dict[str, Any]) -> Iterator[tuple[Scalar, float]]:
    for key, scalar in SCALARS.items():
        if row.get(key) is not None:
            yield scalar, row[key]
    for key in row:
        if (name := key.removeprefix("test_loss_")) != key:
            yield Scalar(f"loss/test_{name}", f"test loss, {name}", NATS, "on further held-out text"), row[key]
    for copy, loss in enumerate(row.get("copying_loss_per_copy") or [], start=1):
        yield Scalar(f"loss_by_copy/{copy:02d}", f"loss on copy {copy}", NATS, "of a paragraph"), loss


def _factors(run: Run) -> dict[str, str | float]:
    """What can differ from run to run, by name."""
    fields = run.model_dump(mode="json", exclude={"evaluation", "corpus"})
    known = {key: value for key, value in fields.items() if isinstance(value, str | int | float)}
    known |= {key: str(known[key]) for key in LABELS}
    if run.parent:
        known["parent"] = run.parent.label
    return known | {"parameters_non_embedding": run.shape.parameters_non_embedding}


def _session_start(run: Run, began: float) -> Summary.Value:
    start = SessionStartInfo(start_time_secs=began)
    for name, value in _factors(run).items():
        if isinstance(value, str):
            start.hparams[name].string_value = value
        else:
            start.hparams[name].number_value = value
    return _hparams_value(hparams.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start))


def _experiment(runs: Sequence[Run]) -> Experiment:
    factors = [_factors(run) for run in runs]
    names = {name: None for factor in factors for name in factor}
    values = {name: sorted({factor[name] for factor in factors if name in factor}) for name in names}
    return Experiment(
        hparam_infos=[_column(name, values[name]) for name in names if name in FACTORS or len(values[name]) > 1],
        metric_infos=[
            MetricInfo(name=MetricName(tag=SCALARS[key].tag), display_name=SCALARS[key].name) for key in RESULTS
        ],
    )


def _column(factor: str, values: Sequence[str | float]) -> HParamInfo:
    kind = DATA_TYPE_STRING if isinstance(values[0], str) else DATA_TYPE_FLOAT64
    name = SHORT.get(factor, factor.replace("_", " "))
    info = HParamInfo(name=factor, display_name=name, type=kind, differs=len(values) > 1)
    info.domain_discrete.extend(values)
    return info


def _layout() -> Layout:
    # Tags are regular expressions there, matched from the start of a tag.
    charts = [
        Chart(title=scalar.title, multiline=MultilineChartContent(tag=[f"^{scalar.tag}$"]))
        for scalar in (SCALARS[key] for key in CHARTS)
    ]
    return Layout(category=[Category(title="Over trained tokens", chart=charts)])


def _hparams_value(tag: str, plugin_data: HParamsPluginData) -> Summary.Value:
    metadata: SummaryMetadata = hparams.create_summary_metadata(plugin_data)
    return Summary.Value(tag=tag, metadata=metadata, tensor=hparams.NULL_TENSOR)


def _event(now: float, step: int, values: Sequence[Summary.Value]) -> Event:
    return Event(wall_time=now, step=step, summary=Summary(value=values))


def _wall_time(row: dict[str, Any]) -> float:
    return row.get("time") or time.time()
