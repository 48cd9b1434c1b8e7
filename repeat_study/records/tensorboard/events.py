"""Event files in the format that TensorBoard reads, written without TensorFlow.

A running TensorBoard must notice every new file in a folder. TensorBoard's slow loader keeps reading one file until it finds
another whose name sorts later, and it waits forever if the file it is reading is deleted. For this reason, the name of a new file
sorts after all others, and older files are truncated rather than deleted.
"""

import hashlib
import io
import os
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.compat.tensorflow_stub.errors import DataLossError, OutOfRangeError
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.plugins.image import metadata as images
from tensorboard.summary.writer.record_writer import RecordWriter

from data_prep.errors import InputError
from data_prep.files import write_atomically

PREFIX = "events.out.tfevents"
KEPT_EMPTY_SECONDS = 86_400  # much longer than TensorBoard takes to notice a new file, unless its machine is suspended


def event_files(folder: Path) -> list[Path]:
    """The event files directly in `folder`."""
    return sorted(folder.glob(f"{PREFIX}*"))


def read_events(path: Path) -> list[Event]:
    """The events in a file up to the first truncated or damaged record, which is also where TensorBoard stops reading."""
    reader = PyRecordReader_New(str(path))
    events = []
    with suppress(OutOfRangeError, DataLossError, DecodeError):
        while True:
            reader.GetNext()
            events.append(Event.FromString(reader.record()))
    return events


def record_bytes(event: Event) -> int:
    """Size in bytes of an event in a file, including the length field and two checksums."""
    return event.ByteSize() + 16


def later_path(folder: Path, label: str = "") -> Path:
    """The path for a new event file. Its name sorts after all other event files in `folder` and ends with `label`."""
    numbers = (path.name.removeprefix(f"{PREFIX}.").partition(".")[0] for path in event_files(folder))
    number = max(time.time_ns(), *(int(number) + 1 for number in numbers if number.isdecimal()), 0)
    return folder / f"{PREFIX}.{number}{label}"


def file_header(wall_time: float) -> Event:
    """The first event of every file."""
    return Event(wall_time=wall_time, file_version="brain.Event:2")


def restart(step: int) -> list[Event]:
    """Events that make TensorBoard discard all earlier points from `step` on.

    There are two, because TensorBoard interprets the first START that it reads as the beginning of the run.
    """
    return [Event(wall_time=time.time(), step=step, session_log=SessionLog(status=SessionLog.START))] * 2


def event(wall_time: float, step: int, values: Sequence[Summary.Value]) -> Event:
    """An event with all values of one step."""
    return Event(wall_time=wall_time, step=step, summary=Summary(value=values))


def image(tag: str, title: str, caption: str, png: bytes) -> Summary.Value:
    """An image for TensorBoard's Images tab."""
    width, height = struct.unpack(">II", png[16:24])  # from the PNG header
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


def hparams_value(tag: str, plugin_data: HParamsPluginData) -> Summary.Value:
    """A value for the HParams plugin, which stores its data in the metadata."""
    metadata: SummaryMetadata = hparams.create_summary_metadata(plugin_data)
    return Summary.Value(tag=tag, metadata=metadata, tensor=hparams.NULL_TENSOR)


Point = tuple[float, int, Sequence[Summary.Value]]  # wall time, step and values of one event


def write_events(folder: Path, values: Sequence[Summary.Value]) -> None:
    """Replace the events in `folder` with `values` at step 0, unless the folder already contains these values.

    Raises InputError if the file cannot be written.
    """
    content = b"".join(value.SerializeToString(deterministic=True) for value in values)
    write_labeled_events(folder, hashlib.sha256(content).hexdigest()[:16], lambda: [(time.time(), 0, values)])


def write_labeled_events(folder: Path, label: str, points: Callable[[], Sequence[Point]]) -> None:
    """Replace the events in `folder` with `points`, unless the folder already contains a file with this label.

    label: a hash of the content or of its inputs, which ends the name of the file. Raises InputError if the file cannot be written.
    """
    try:
        old_files = event_files(folder)
        if any(path.name.endswith(f".{label}") and path.stat().st_size for path in old_files):
            return
        records = io.BytesIO()
        writer = RecordWriter(records)
        written = points()
        first = min((step for _, step, _ in written), default=0)
        for record in (file_header(time.time()), *restart(first), *(event(*point) for point in written)):
            writer.write(record.SerializeToString())
        path, scratch = later_path(folder, f".{label}"), folder / f".tensorboard.{os.getpid()}"
        write_atomically(scratch, records.getvalue())  # TensorBoard reads every file whose name contains "tfevents"
        for old_file in old_files:
            _empty(old_file)
        scratch.replace(path)
    except OSError as error:
        raise InputError(f"{folder}: TensorBoard events cannot be written: {error.strerror}") from error


def clear_events(folder: Path) -> None:
    """Empty all event files in `folder`. Raises InputError if one cannot be written."""
    try:
        for path in event_files(folder):
            _empty(path)
    except OSError as error:
        raise InputError(f"{folder}: TensorBoard events cannot be written: {error.strerror}") from error


def _empty(path: Path) -> None:
    """Empty an event file, or delete one that has been empty for a day."""
    if path.stat().st_size:
        os.truncate(path, 0)
    elif time.time() - path.stat().st_mtime > KEPT_EMPTY_SECONDS:
        path.unlink()
