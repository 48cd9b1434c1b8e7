"""The events of one run, in its own directory.

They are a view of metrics.jsonl, timing.jsonl and heads.parquet, and a resumed run writes them again from the start.
TensorBoard names a run after its directory.
"""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.plugins.scalar import metadata as scalars
from tensorboard.summary.writer.record_writer import RecordWriter

from repeat_study.config.run import Run
from repeat_study.records.metric import NATS, Metric, Null
from repeat_study.records.metrics import METRICS, further_test_loss
from repeat_study.records.tables import Columns
from repeat_study.records.tensorboard.events import PREFIX, event, event_files, file_header, hparams_value, image
from repeat_study.records.tensorboard.heat_map import heat_map
from repeat_study.records.tensorboard.study_page import run_factors

HEAT_MAP = ("prefix matching of every head", "layers from the bottom up, heads from left to right; 0 to 1")


class Scalar(NamedTuple):
    """One point of one curve."""

    tag: str
    title: str
    description: str
    value: float


class TensorBoardWriter:
    """Writes one run's events; the horizontal axis is trained tokens."""

    def __init__(self, folder: Path, run: Run, evaluations: Iterable[tuple[dict[str, Any], Columns]]) -> None:
        """Replace the event files in the run directory `folder` with one that holds `evaluations`, pairs as `add` takes."""
        evaluations = list(evaluations)
        old_files = event_files(folder)
        self._writer = RecordWriter((folder / f"{PREFIX}.{time.time_ns()}").open("xb"))
        self._described: set[str] = set()
        self._wall_time = _wall_time(evaluations[0][0]) if evaluations else time.time()
        self._write(file_header(self._wall_time))
        self._write(event(self._wall_time, 0, [_session_start(run, self._wall_time)]))
        for row, heads in evaluations:
            self._add(row, heads)
        self._writer.flush()
        for path in old_files:
            path.unlink(missing_ok=True)

    def add(self, row: dict[str, Any], heads: Columns) -> None:
        """Write one evaluation and flush it.

        row: the evaluation's line of metrics.jsonl merged with its line of timing.jsonl; heads: its rows of
        heads.parquet, as columns.
        """
        self._add(row, heads)
        self._writer.flush()

    def finish(self, succeeded: bool = True) -> None:
        """Record in the table of runs how the run ended."""
        end = SessionEndInfo(status=STATUS_SUCCESS if succeeded else STATUS_FAILURE, end_time_secs=self._wall_time)
        plugin_data = HParamsPluginData(session_end_info=end)
        self._write(event(self._wall_time, 0, [hparams_value(hparams.SESSION_END_INFO_TAG, plugin_data)]))
        self._writer.flush()

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._writer.close()

    def _add(self, row: dict[str, Any], heads: Columns) -> None:
        self._wall_time = _wall_time(row)
        values = [self._value(scalar) for scalar in scalars_of(row)]
        if heads:
            png = heat_map(heads["layer"], heads["head"], heads["prefix_matching"])
            values.append(image("heads/prefix_matching", *HEAT_MAP, png))
        self._write(event(self._wall_time, row["tokens"], values))

    def _value(self, scalar: Scalar) -> Summary.Value:
        value = Summary.Value(tag=scalar.tag, tensor=TensorProto(dtype=DT_FLOAT, float_val=[scalar.value]))
        if scalar.tag not in self._described:  # TensorBoard reads only a tag's first description
            description = f"{scalar.title}: {scalar.description}"
            value.metadata.CopyFrom(scalars.create_summary_metadata(scalar.title, description))
            self._described.add(scalar.tag)
        return value

    def _write(self, record: Event) -> None:
        self._writer.write(record.SerializeToString())


def scalars_of(row: dict[str, Any]) -> Iterator[Scalar]:
    """The points of one evaluation: every metric with a tag, the nulls, further test sets and the loss on each copy."""
    for metric in METRICS:
        yield from _scalars(metric, row)
    for key in row:
        if (test_set := key.removeprefix("test_loss_")) != key:
            yield from _scalars(further_test_loss(test_set), row)
    for copy, loss in enumerate(row.get("copying_loss_per_copy") or [], start=1):
        yield Scalar(f"loss_by_copy/{copy:02d}", f"loss on copy {copy}, {NATS}", "of a paragraph", loss)


def _scalars(metric: Metric, row: dict[str, Any]) -> Iterator[Scalar]:
    if metric.tag and row.get(metric.key) is not None:
        yield Scalar(metric.tag, metric.title, metric.guide, row[metric.key] * metric.scale)
    if isinstance(metric.null, Null) and metric.null.name and row.get(metric.null_key) is not None:
        title = f"{metric.null.name}, {metric.unit}"
        yield Scalar(f"{metric.tag}_null", title, metric.null.description, row[metric.null_key])


def _session_start(run: Run, wall_time: float) -> Summary.Value:
    start = SessionStartInfo(start_time_secs=wall_time)
    for name, value in run_factors(run).items():
        if isinstance(value, str):
            start.hparams[name].string_value = value
        else:
            start.hparams[name].number_value = value
    return hparams_value(hparams.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start))


def _wall_time(row: dict[str, Any]) -> float:
    return row.get("time") or time.time()
