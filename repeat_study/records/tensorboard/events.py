"""Event files in the format that TensorBoard reads, written without TensorFlow."""

import hashlib
import io
import os
import struct
import time
from collections.abc import Sequence
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.plugins.image import metadata as images
from tensorboard.summary.writer.record_writer import RecordWriter

from data_prep.files import write_atomically

PREFIX = "events.out.tfevents"


def event_files(folder: Path) -> list[Path]:
    """The event files directly in `folder`."""
    return sorted(folder.glob(f"{PREFIX}*"))


def file_header(wall_time: float) -> Event:
    """The first event of every file."""
    return Event(wall_time=wall_time, file_version="brain.Event:2")


def event(wall_time: float, step: int, values: Sequence[Summary.Value]) -> Event:
    """One event with all `values` of a step."""
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
    """A value for the HParams plugin, which keeps its data in the metadata."""
    metadata: SummaryMetadata = hparams.create_summary_metadata(plugin_data)
    return Summary.Value(tag=tag, metadata=metadata, tensor=hparams.NULL_TENSOR)


def write_events(folder: Path, values: Sequence[Summary.Value]) -> None:
    """Replace the event files in `folder` with one that holds `values` at step 0; if it already exists, keep it.

    The file name is a hash of the content, so processes that write the same values write the same file.
    Raises InputError if the file cannot be written.
    """
    content = b"".join(value.SerializeToString(deterministic=True) for value in values)
    path = folder / f"{PREFIX}.{hashlib.sha256(content).hexdigest()[:16]}"
    if values and not path.is_file():
        now = time.time()
        records = io.BytesIO()
        writer = RecordWriter(records)
        writer.write(file_header(now).SerializeToString())
        writer.write(event(now, 0, values).SerializeToString())
        scratch = folder / f".tensorboard.{os.getpid()}"  # TensorBoard reads every file whose name contains "tfevents"
        write_atomically(scratch, records.getvalue())
        scratch.replace(path)
    for old in event_files(folder):
        if old != path:
            old.unlink(missing_ok=True)
