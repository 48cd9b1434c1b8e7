"""litData's optimized datasets: index.json and chunks of items (litdata/streaming/writer.py)."""

import json
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_prep.errors import CannotResume
from data_prep.files import read_record
from data_prep.permutation import Ints
from data_prep.sources.tokens.runs import TokenFile, TokenFormat, TokenRun, require_dtype
from data_prep.sources.tokens.samples import Bytes, column_ranges, open_shard, read_ranges, sample_offsets

if TYPE_CHECKING:
    from data_prep.sources.tokens.source import Tokens

# litdata/streaming/framed_zstd.py: magic, version, flags and the numbers of items, items per frame and frames; then the start of each
# item; then, for each frame, the index of its first item, its number of items, its first byte, its size and its decompressed size
FRAMED, FRAME = struct.Struct("<8sHHIII"), struct.Struct("<IIQII")
FRAMED_MAGIC, FRAMED_VERSION = b"LDFZ01\0\0", 1
PLAIN = {"no_header_tensor", "no_header_numpy"}  # one-dimensional arrays
TORCH = {
    11: "uint8",
    12: "int8",
    13: "int16",
    14: "int16",
    15: "int32",
    16: "int32",
    17: "int64",
    18: "int64",
    20: "uint16",
}
NUMPY = dict(enumerate(("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")))


class LitData(TokenFormat):
    """Each item is an array of tokens, or a dictionary that contains one."""

    suffixes = ("index.json",)
    options = frozenset({"tokens_field"})
    rows = True

    def files_of(self, path: Path) -> list[Path]:
        """The index and its chunks."""
        return [path, *(path.with_name(chunk["filename"]) for chunk in _index(path)[0])]

    def read(self, file: TokenFile, source: "Tokens") -> Iterator[TokenRun]:
        """Yield the items of all chunks in an index."""
        chunks, config = _index(file.path)
        kinds = config["data_format"]
        column = _column(file.path, config, source.tokens_field)
        kind, _, code = kinds[column].partition(":")
        names = TORCH if kind == "no_header_tensor" else NUMPY
        if kind not in PLAIN or int(code) not in names:
            raise CannotResume(
                f"{file.path}: its items have the type {kinds[column]}; expected one-dimensional arrays of integers"
            )
        dtype = require_dtype(file.path, np.dtype(names[int(code)]), source)
        level = config.get("compression_level")
        if config.get("encryption") or level not in (None, "batch"):
            raise CannotResume(
                f"{file.path}: encrypted, or compressed with compression_level {level!r}; accepted: 'chunk' and 'batch'"
            )
        for chunk in chunks:
            path = file.path.with_name(chunk["filename"])
            data = open_shard(path, None if level else config.get("compression"), chunk["chunk_bytes"])
            data, offsets = _frames(path, data) if level else (data, sample_offsets(path, data, chunk["chunk_size"]))
            # Items for TokensLoader are written without the sizes of their columns. Only their chunks record the number of tokens (dim).
            starts, ends = offsets[:-1], offsets[1:]
            if chunk.get("dim") is None:
                starts, ends = column_ranges(path, data, offsets, [None] * len(kinds), column)
            yield from read_ranges(path, f"{file.name}/{path.name}", data, starts, ends, dtype)


def _frames(path: Path, data: Bytes) -> tuple[Bytes, Ints]:
    """Decompress a chunk that is compressed in frames. Returns the items, and the start of each, followed by the end of the last."""
    import pyarrow as pa

    from data_prep.sources.record_files import read_errors

    magic, version, _, items, _, frames = FRAMED.unpack(data[: FRAMED.size].tobytes())
    if magic != FRAMED_MAGIC or version != FRAMED_VERSION:
        raise CannotResume(f"{path}: not a compressed chunk of version {FRAMED_VERSION}")
    table = FRAMED.size + 4 * (items + 1)
    offsets: Ints = data[FRAMED.size : table].view("<u4").astype(np.int64)
    codec = pa.Codec("zstd")
    pieces = []
    for number in range(frames):
        start = table + number * FRAME.size
        _, _, first, size, raw_size = FRAME.unpack(data[start : start + FRAME.size].tobytes())
        with read_errors(path):
            pieces.append(np.frombuffer(codec.decompress(data[first : first + size].tobytes(), raw_size), np.uint8))
    content = np.concatenate(pieces)
    if len(content) != offsets[-1]:
        raise CannotResume(f"{path}: its frames do not contain its {items} items")
    return content, offsets


def _index(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The list of chunks and the configuration in an index."""
    record = read_record(path)
    chunks, config = record.get("chunks"), record.get("config")
    if not isinstance(chunks, list) or not isinstance(config, dict) or not config.get("data_format"):
        raise CannotResume(f"{path}: not a litData index (no chunks or no data_format)")
    for chunk in chunks:
        if missing := [key for key in ("filename", "chunk_bytes", "chunk_size") if key not in chunk]:
            raise CannotResume(f"{path}: a chunk lacks the key {missing[0]!r}")
    if not chunks:
        raise CannotResume(f"{path}: lists no chunks")
    return chunks, config


def _column(path: Path, config: dict[str, Any], field: str | None) -> int:
    """Index of the column with tokens."""
    keys: list[str] = []
    with suppress(KeyError, IndexError, TypeError, ValueError):  # the items are not dictionaries
        keys = json.loads(json.loads(config["data_spec"])[1]["context"] or "[]")
    if field is None and len(config["data_format"]) == 1:
        return 0
    if field not in keys:
        problem = f"no field {field!r}" if field else "its items have several fields"
        raise CannotResume(
            f"{path}: {problem} (data.source.tokens_field); fields: {', '.join(map(str, keys)) or 'none'}"
        )
    return keys.index(field)
