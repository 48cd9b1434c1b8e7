"""Write one run's TensorBoard events to its run directory, based on metrics.jsonl, timing.jsonl and heads.parquet.

When a run resumes, the new session adds a file with the events that the older files lack. If the last session was killed between
an evaluation and its checkpoint, the new session repeats that evaluation. The repeated evaluation is written only if its results
differ. In this case, a restart event is written first, which makes TensorBoard discard all older points from that step on.
TensorBoard names a run after its directory.
"""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT
from tensorboard.compat.tensorflow_stub.errors import OpError
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.plugins.scalar import metadata as scalars
from tensorboard.summary.writer.record_writer import RecordWriter

from data_prep.errors import InputError
from repeat_study.config.run import Run
from repeat_study.records.metric import NATS, Null
from repeat_study.records.metrics import METRICS, further_test_loss
from repeat_study.records.tables import Columns
from repeat_study.records.tensorboard.events import (
    event,
    event_files,
    file_header,
    hparams_value,
    image,
    later_path,
    read_events,
    record_bytes,
    restart,
)
from repeat_study.records.tensorboard.heat_map import heat_map
from repeat_study.records.tensorboard.study_page import run_factors

COPY_TAG = "loss_by_copy/"
HEAT_MAP = ("prefix matching of every head", "layers from bottom to top, heads from left to right; 0 to 1")


class Scalar(NamedTuple):
    """One point on one curve."""

    tag: str
    title: str
    description: str
    value: float


class TensorBoardWriter:
    """Writes one run's events, with trained tokens on the horizontal axis."""

    def __init__(self, folder: Path, run: Run, evaluations: Iterable[tuple[dict[str, Any], Columns]]) -> None:
        """Write the evaluations that the existing event files lack.

        folder: the run directory. evaluations: pairs of arguments for `add`.
        Raises InputError if the event files cannot be read or written.
        """
        evaluations = list(evaluations)
        self._folder, self._run = folder, run
        self._writer: RecordWriter | None = None  # opened when this session writes its first event
        self._described: set[str] = set()
        self._wall_time = _wall_time(evaluations[0][0]) if evaluations else time.time()
        with self._naming_folder():
            self._older = _older_events(folder)
        if not self._older.has_session_start:
            self._write_session_start()
        for row, heads in evaluations:
            self.add(row, heads)
        resumed_at = evaluations[-1][0]["tokens"] if evaluations else -1
        later = [step for step in self._older.results if step > resumed_at]
        # A checkpoint follows every evaluation but the one before training. With more evaluations, a checkpoint was removed.
        if len(later) > (1 if evaluations else 2):
            self._restart(min(later))

    def add(self, row: dict[str, Any], heads: Columns) -> None:
        """Write one evaluation, unless an older file contains it. TensorBoard can read it when this method returns.

        row: the evaluation's line of metrics.jsonl merged with its line of timing.jsonl; heads: the
        evaluation's rows of heads.parquet, as columns.
        """
        self._wall_time = _wall_time(row)
        values = [_scalar_value(scalar) for scalar in scalars_of(row)]
        if heads:
            png = heat_map(heads["layer"], heads["head"], heads["prefix_matching"])
            values.append(image("heads/prefix_matching", *HEAT_MAP, png))
        evaluation = event(self._wall_time, row["tokens"], values)
        if self._older.results.get(evaluation.step) == _results(evaluation):
            return
        if max(self._older.results, default=-1) >= evaluation.step:
            self._restart(evaluation.step)
        self._write(evaluation)

    def finish(self, succeeded: bool = True) -> None:
        """Record how the run ended, for TensorBoard's table of runs."""
        end = SessionEndInfo(status=STATUS_SUCCESS if succeeded else STATUS_FAILURE, end_time_secs=self._wall_time)
        plugin_data = HParamsPluginData(session_end_info=end)
        self._write(event(self._wall_time, 0, [hparams_value(hparams.SESSION_END_INFO_TAG, plugin_data)]))

    def close(self) -> None:
        """Close the file. Can be called more than once."""
        if self._writer:
            self._writer.close()

    def _write_session_start(self) -> None:
        self._write(event(self._wall_time, 0, [_session_start(self._run, self._wall_time)]))

    def _restart(self, step: int) -> None:
        """Make TensorBoard discard the older files' points from `step` on."""
        self._write(*restart(step))
        self._older.discard(step)
        if not self._older.has_session_start:
            self._write_session_start()

    def _write(self, *events: Event) -> None:
        """Write and flush events. A tag is described only once per file, because TensorBoard ignores later descriptions."""
        with self._naming_folder():
            if not self._writer:
                self._writer = RecordWriter(later_path(self._folder).open("xb"))
                self._writer.write(file_header(self._wall_time).SerializeToString())
            for record in events:
                for value in record.summary.value:
                    if value.tag in self._described:
                        value.ClearField("metadata")
                    self._described.add(value.tag)
                self._writer.write(record.SerializeToString())
            self._writer.flush()

    @contextmanager
    def _naming_folder(self) -> Iterator[None]:
        try:
            yield
        except (OSError, OpError) as error:
            reason = error.strerror if isinstance(error, OSError) else error.message
            raise InputError(f"{self._folder}: TensorBoard events cannot be read or written: {reason}") from error


Results = dict[str, bytes]  # values by tag, without their descriptions and without the machine/ tags


@dataclass
class OlderEvents:
    """The content of earlier sessions' event files, as TensorBoard displays it."""

    has_session_start: bool = False
    results: dict[int, Results] = field(default_factory=dict)  # by trained tokens

    def discard(self, step: int) -> None:
        """Forget everything from `step` on, as TensorBoard does at a restart."""
        self.results = {older: results for older, results in self.results.items() if older < step}
        self.has_session_start &= step > 0


def _older_events(folder: Path) -> OlderEvents:
    """Read all event files in `folder`. If a file ends with a session end, remove that event, because the run continues.

    A later session end could not replace it, because TensorBoard's table of runs uses only the first session end of a run.
    """
    older = OlderEvents()
    for path in event_files(folder):
        events = read_events(path)
        if events and _has(events[-1], hparams.SESSION_END_INFO_TAG):
            os.truncate(path, sum(map(record_bytes, events[:-1])))
        for record in events:
            if record.session_log.status == SessionLog.START:
                older.discard(record.step)
            older.has_session_start |= _has(record, hparams.SESSION_START_INFO_TAG)
            if results := _results(record):
                older.results[record.step] = results
    return older


def _has(record: Event, tag: str) -> bool:
    return any(value.tag == tag for value in record.summary.value)


def _results(record: Event) -> Results:
    values = {value.tag: value for value in record.summary.value}
    return {
        tag: value.tensor.SerializeToString(deterministic=True)
        for tag, value in values.items()
        if not tag.startswith(("machine/", "_hparams_/"))
    }


def _scalar_value(scalar: Scalar) -> Summary.Value:
    value = point_value(scalar.tag, scalar.value)
    value.metadata.CopyFrom(scalar_metadata(scalar.title, scalar.description))
    return value


def point_value(tag: str, number: float) -> Summary.Value:
    """A point for TensorBoard's Scalars tab, without the description of its tag."""
    return Summary.Value(tag=tag, tensor=TensorProto(dtype=DT_FLOAT, float_val=[number]))


def scalar_metadata(title: str, description: str) -> SummaryMetadata:
    """The description of a tag."""
    return scalars.create_summary_metadata(title, f"{title}: {description}")


class _Curve(NamedTuple):
    """A tag, the key of its values in a row, and its description."""

    tag: str
    key: str
    scale: float
    title: str
    description: str


@lru_cache(maxsize=64)  # all rows of a run have the same keys, and a large study has 100,000 rows
def _curves(keys: tuple[str, ...]) -> tuple[_Curve, ...]:
    """The curves that a row with these keys has points on."""
    test_sets = [test_set for key in keys if (test_set := key.removeprefix("test_loss_")) != key]
    curves = []
    for metric in (*METRICS, *map(further_test_loss, test_sets)):
        if metric.tag and metric.key in keys:
            curves.append(_Curve(metric.tag, metric.key, metric.scale, metric.title, metric.guide))
        if isinstance(metric.null, Null) and metric.null.name and metric.null_key in keys:
            title = f"{metric.null.name}, {metric.unit}"
            curves.append(_Curve(f"{metric.tag}_null", metric.null_key, 1.0, title, metric.null.description))
    return tuple(curves)


def values_of(row: dict[str, Any]) -> dict[str, float]:
    """The values of `scalars_of` by tag."""
    values = {curve.tag: row[curve.key] * curve.scale for curve in _curves(tuple(row)) if row[curve.key] is not None}
    return values | {
        f"{COPY_TAG}{copy:02d}": loss for copy, loss in enumerate(row.get("copying_loss_per_copy") or [], start=1)
    }


def scalars_of(row: dict[str, Any]) -> Iterator[Scalar]:
    """The points of one evaluation: all metrics that have a tag, nulls, additional test losses, and the loss on each copy."""
    described = {curve.tag: (curve.title, curve.description) for curve in _curves(tuple(row))}
    for tag, value in values_of(row).items():
        if tag in described:
            yield Scalar(tag, *described[tag], value)
        else:
            copy = int(tag.removeprefix(COPY_TAG))
            yield Scalar(tag, f"loss on copy {copy}, {NATS}", "averaged over paragraphs", value)


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
