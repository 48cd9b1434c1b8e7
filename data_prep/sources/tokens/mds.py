"""MDS, the format of mosaicml-streaming: index.json and shards of samples (streaming/base/format/mds)."""

from collections.abc import Iterator
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

VERSION = 2
FIELD = "tokens"
DTYPES = {8: "uint8", 9: "int8", 16: "uint16", 17: "int16", 32: "uint32", 33: "int32", 64: "uint64", 65: "int64"}
SHAPE_ITEM = (1, 2, 4, 8)  # bytes per dimension


class Mds(TokenFormat):
    """Each sample contains one row of tokens in a column of type `ndarray` or `bytes`."""

    suffixes = ("index.json",)
    options = frozenset({"tokens_field"})
    rows = True

    def files_of(self, path: Path) -> list[Path]:
        """The index and its shards."""
        return [path, *(_shard_file(path, shard)[0] for shard in _shards(path))]

    def read(self, file: TokenFile, source: "Tokens") -> Iterator[TokenRun]:
        """Yield the samples of all shards in an index."""
        field = source.tokens_field or FIELD
        for shard in _shards(file.path):
            path, compression = _shard_file(file.path, shard)
            names, encodings = shard["column_names"], shard["column_encodings"]
            if field not in names:
                raise CannotResume(
                    f"{file.path}: no column {field!r} (data.source.tokens_field); columns: {', '.join(names)}"
                )
            column = names.index(field)
            data = open_shard(path, compression, shard["raw_data"]["bytes"])
            offsets = sample_offsets(path, data, shard["samples"])
            starts, ends = column_ranges(path, data, offsets, shard["column_sizes"], column)
            if not len(starts):
                continue
            dtype, starts = _values(path, data, starts, encodings[column], source)
            if bool((starts > ends).any()):
                raise CannotResume(f"{path}: an array is shorter than its shape")
            yield from read_ranges(path, f"{file.name}/{path.name}", data, starts, ends, dtype)


def _shards(index: Path) -> list[dict[str, Any]]:
    record = read_record(index, "shards")
    if record.get("version") != VERSION:
        raise CannotResume(f"{index}: MDS version {record.get('version')}, expected {VERSION}; is it a litData index?")
    keys = ("column_names", "column_encodings", "column_sizes", "raw_data", "samples")
    for number, shard in enumerate(record["shards"]):
        if missing := [key for key in keys if key not in shard]:
            raise CannotResume(f"{index}: shard {number}: the key {missing[0]!r} is missing; is it an MDS index?")
    if not record["shards"]:
        raise CannotResume(f"{index}: lists no shards")
    shards: list[dict[str, Any]] = record["shards"]
    return shards


def _shard_file(index: Path, shard: dict[str, Any]) -> tuple[Path, str | None]:
    """The file of a shard and its compression. A decompressed file is preferred, if there is one."""
    raw = index.with_name(shard["raw_data"]["basename"])
    if raw.is_file() or not shard.get("zip_data"):
        return raw, None
    return index.with_name(shard["zip_data"]["basename"]), shard["compression"]


def _values(path: Path, data: Bytes, starts: Ints, encoding: str, source: "Tokens") -> tuple[np.dtype[Any], Ints]:
    """The data type of the arrays that begin at `starts`, and the starts of their values."""
    kind, _, rest = encoding.partition(":")
    if kind == "bytes":
        if source.dtype is None:
            raise CannotResume(
                f'{path}: its column has the type bytes; set data.source.dtype to the type of the ids, e.g. "int64"'
            )
        return np.dtype(source.dtype), starts
    if kind != "ndarray":
        raise CannotResume(f"{path}: its column has the type {encoding}; token ids must have the type ndarray or bytes")
    dtype, _, shape = rest.partition(":")
    if not dtype:
        codes = np.unique(data[starts]).tolist()
        if len(codes) > 1 or codes[0] not in DTYPES:
            raise CannotResume(f"{path}: arrays with the data types {codes}; expected one integer type")
        dtype, starts = DTYPES[codes[0]], starts + 1
    if not shape:
        dimensions, item = data[starts] >> 2, data[starts] & 3
        if bool((dimensions != 1).any()):
            raise CannotResume(f"{path}: an array has {int(dimensions[dimensions != 1][0])} dimensions, expected 1")
        starts = starts + 1 + np.array(SHAPE_ITEM)[item]
    return require_dtype(path, np.dtype(dtype), source), starts
