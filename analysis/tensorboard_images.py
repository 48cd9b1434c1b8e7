"""The report's figures as images in TensorBoard."""

import struct
from collections.abc import Sequence
from pathlib import Path

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.image import metadata as images

from analysis.figures.style import Drawing
from repeat_study.monitoring import write_events


def write_images(folder: Path, drawings: Sequence[Drawing]) -> None:
    """Show figures/<name>.png of these drawings in TensorBoard, in place of what it was shown before.

    Raises InputError when the folder cannot be written.
    """
    figures = folder / "figures"
    write_events(figures, [_image(drawing, (figures / f"{drawing.name}.png").read_bytes()) for drawing in drawings])


def _image(drawing: Drawing, png: bytes) -> Summary.Value:
    width, height = struct.unpack(">II", png[16:24])  # where a PNG's header has them
    content = [str(width).encode(), str(height).encode(), png]
    return Summary.Value(
        tag=f"report/{drawing.name}",
        metadata=images.create_summary_metadata(drawing.title, drawing.caption),
        tensor=TensorProto(dtype=DT_STRING, tensor_shape=_vector(len(content)), string_val=content),
    )


def _vector(length: int) -> TensorShapeProto:
    return TensorShapeProto(dim=[TensorShapeProto.Dim(size=length)])
