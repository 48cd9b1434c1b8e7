"""Shards of samples, the layout that MDS and litData share.

A shard contains the number of samples N, then N + 1 offsets of samples in bytes, then the samples. A sample contains the sizes of its
variable-size columns, then all columns. These numbers are u32.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.errors import CannotResume
from data_prep.permutation import Ints
from data_prep.sources.tokens.runs import BLOCK_BYTES, TokenRun, require_length

Bytes = npt.NDArray[np.uint8]
LONG = 512  # bytes; joining longer pieces one by one is faster than selecting their bytes with a mask
CODECS = {"zstd": "zstd", "gz": "gzip", "br": "brotli", "bz2": "bz2"}


def open_shard(path: Path, compression: str | None, size: int) -> Bytes:
    """The bytes of a shard. compression: "zstd:7", "gz", ...; size: the uncompressed size in bytes, from the index.

    Raises CannotResume if the file is missing, compressed in an unknown way or of another size.
    """
    if not path.is_file():
        raise CannotResume(f"{path}: missing, but the index lists it")
    if not path.stat().st_size:
        raise CannotResume(f"{path}: empty")
    if compression:
        from data_prep.sources.record_files import read_errors

        name = compression.split(":")[0]
        if name not in CODECS:
            raise CannotResume(
                f"{path}: compressed with {compression}; accepted: {', '.join(CODECS)} or no compression"
            )
        import pyarrow as pa

        with read_errors(path), pa.input_stream(str(path), CODECS[name]) as stream:
            data: Bytes = np.frombuffer(stream.read(), np.uint8)
    else:
        data = np.asarray(np.memmap(path, np.uint8, "r"))
    if len(data) != size:
        raise CannotResume(f"{path}: {len(data)} bytes, but {size} in the index; is it truncated?")
    return data


def sample_offsets(path: Path, data: Bytes, samples: int) -> Ints:
    """The start of each sample in bytes, then the end of the last one. Raises CannotResume if the shard does not have `samples` samples."""
    header = 4 * (samples + 2)
    if len(data) < header or int(data[:4].view("<u4")[0]) != samples:
        raise CannotResume(f"{path}: not a shard with the {samples} samples that the index lists")
    offsets: Ints = data[4:header].view("<u4").astype(np.int64)
    if offsets[0] < header or offsets[-1] != len(data) or bool((np.diff(offsets) < 0).any()):
        raise CannotResume(f"{path}: its sample offsets are damaged, or its samples are not plain arrays")
    return offsets


def column_ranges(
    path: Path, data: Bytes, offsets: Ints, sizes: Sequence[int | None], column: int
) -> tuple[Ints, Ints]:
    """First and last byte (exclusive) of one column in each sample. sizes: the size of each column in bytes, None if it varies."""
    varying = [number for number, size in enumerate(sizes) if size is None]
    starts = offsets[:-1] + 4 * len(varying)
    if bool((starts > offsets[1:]).any()):
        raise CannotResume(f"{path}: a sample is shorter than the sizes of its columns")
    ends = starts
    for number, size in enumerate(sizes[: column + 1]):
        starts = ends
        ends = starts + (size if size is not None else _u32(data, offsets[:-1] + 4 * varying.index(number)))
    if bool((ends > offsets[1:]).any()):
        raise CannotResume(f"{path}: a column is longer than its sample")
    return starts, ends


def read_ranges(
    path: Path, name: str, data: Bytes, starts: Ints, ends: Ints, dtype: np.dtype[Any]
) -> Iterator[TokenRun]:
    """Yield the bytes in each range as one document of tokens."""
    sizes = ends - starts
    if bool((sizes % dtype.itemsize).any()):
        raise CannotResume(
            f"{path}: a sample is {int(sizes[sizes % dtype.itemsize > 0][0])} bytes long, which is not a multiple of"
            f" {dtype.itemsize} ({dtype})"
        )
    total = np.cumsum(sizes)
    first = done = 0
    while first < len(sizes):
        last = max(first + 1, int(np.searchsorted(total, done + BLOCK_BYTES, side="right")))
        require_length(path, int(sizes[first]) // dtype.itemsize)
        content = _joined(data, starts[first:last], ends[first:last]).view(dtype)
        yield TokenRun(name, done // dtype.itemsize, content, (total[first:last] - done) // dtype.itemsize)
        first, done = last, int(total[last - 1])


def _u32(data: Bytes, positions: Ints) -> Ints:
    return data[positions[:, None] + np.arange(4)].view("<u4")[:, 0].astype(np.int64)


def _joined(data: Bytes, starts: Ints, ends: Ints) -> Bytes:
    if int((ends - starts).sum()) >= LONG * len(starts):
        pieces = zip(starts.tolist(), ends.tolist(), strict=True)
        return np.concatenate([data[start:end] for start, end in pieces])
    first, last = int(starts[0]), int(ends[-1])
    inside = np.zeros(last - first + 1, np.int8)
    np.add.at(inside, starts - first, 1)
    np.add.at(inside, ends - first, -1)
    return data[first:last][np.cumsum(inside[:-1], dtype=np.int8).astype(bool)]
