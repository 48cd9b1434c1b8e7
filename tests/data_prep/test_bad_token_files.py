"""Damaged, truncated and mismatched token files."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep import InputError, build_store
from tests.data_prep.token_files import (
    Documents,
    Fields,
    datasets_rows,
    datatrove,
    litdata,
    llm_c,
    llm_c_files,
    mds,
    mds_bytes,
    megatron,
    nanogpt,
    olmo,
    olmo_with_header,
)

SMALL: Documents = [[5, 6, 7], [8, 9], [1] * 40, [2, 3]]


def cut(name: str, size: int) -> Callable[[Path], None]:
    """Keep only the first bytes of a file."""
    return lambda folder: os.truncate(folder / name, size)


def patch(name: str, position: int, content: bytes) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[position : position + len(content)] = content
        (folder / name).write_bytes(data)

    return apply


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def edit(key: str, value: Any, item: str = "shards") -> Callable[[Path], None]:
    """Change an entry of the first item in index.json."""

    def apply(folder: Path) -> None:
        index = json.loads((folder / "index.json").read_text())
        (index[item][0] if isinstance(index[item], list) else index[item])[key] = value
        (folder / "index.json").write_text(json.dumps(index))

    return apply


BAD: list[tuple[Callable[[Path, Documents], Fields], Callable[[Path], Any], Fields, str]] = [
    (nanogpt, cut("train.bin", 101), {}, r"train.bin: 101 bytes of tokens, which is not a multiple of 2 \(uint16\)"),
    (nanogpt, cut("train.bin", 0), {}, r"train.bin: contains no tokens"),
    (nanogpt, llm_c_files, {}, r'begins with the header of an llm.c file; use format = "llm.c"'),
    (nanogpt, patch("train.bin", 4, b"\x40\x01"), {}, r"train.bin: token 2 is 320, but the vocabulary has 320 tokens"),
    (nanogpt, patch("train.bin", 4, b"\xff\xff"), {"dtype": "int16"}, r"train.bin: token 2 is -1, but"),
    (nanogpt, remove("train.bin"), {}, r"data.source.paths matches no file with one of the suffixes .bin"),
    (nanogpt, lambda folder: None, {"end_of_text": None}, r"data.source.end_of_text: missing; set it to the token"),
    (nanogpt, lambda folder: None, {"end_of_text": 400}, r"data.vocabulary: 320 tokens, but the end-of-text token is 400"),
    (nanogpt, lambda folder: None, {"end_of_text": 300}, r"single document.* data.source.end_of_text the token"),
    (nanogpt, lambda folder: None, {"tokens_field": "x"}, r"tokens_field is accepted only for the formats litdata, mds, datasets"),
    (llm_c, cut("train_000001.bin", 1030), {}, r"train_000001.bin: contains 3 tokens, but 17 according to its header; is it tr"),
    (llm_c, cut("train_000001.bin", 1000), {}, r"1000 bytes, shorter than the header of an llm.c file"),
    (llm_c, patch("train_000000.bin", 0, (20240522).to_bytes(4, "little")), {}, r"an llm.c evaluation file"),
    (llm_c, patch("train_000000.bin", 4, b"\x07"), {}, r"its header is 20240520 version 7, expected 20240520 version 1 or"),
    (llm_c, lambda folder: None, {"dtype": "uint32"}, r"its data type is uint16, but data.source.dtype is uint32"),
    (olmo, lambda folder: None, {"dtype": None}, r"part-0.npy: no NumPy header; set data.source.dtype to its data type"),
    (olmo_with_header, cut("part-0.npy", 40), {}, r"part-0.npy: its NumPy header is damaged"),
    (olmo_with_header, cut("part-0.npy", 150), {}, r"contains 11 tokens, but 51 according to its header"),
    (olmo_with_header, lambda folder: np.save(folder / "part-0.npy", np.ones(9)), {}, r"its data type is float64; token ids"),
    (megatron, remove("corpus.idx"), {}, r"corpus.idx: missing; it belongs to corpus.bin"),
    (megatron, cut("corpus.bin", 60), {}, r"corpus.bin: 60 bytes, but corpus.idx lists 47 tokens of 2 bytes"),
    (megatron, cut("corpus.idx", 90), {}, r"corpus.idx: 90 bytes, but 6 sequences need 146 bytes; is it truncated"),
    (megatron, cut("corpus.idx", 9), {}, r"corpus.idx: not a Megatron-LM index"),
    (megatron, patch("corpus.idx", 17, b"\x07"), {}, r"corpus.idx: its data type is float32; token ids must be integers"),
    (megatron, patch("corpus.idx", 9, b"\x02"), {}, r"version 2, data type 8; expected version 1"),
    (megatron, patch("corpus.idx", 34 + 24, b"\x08"), {}, r"its sequences are not stored one after another"),
    (megatron, patch("corpus.idx", 34 + 72, b"\x01"), {}, r"its documents do not cover its 6 sequences"),
    (datatrove, remove("00000.ds.index"), {}, r"00000.ds.index: missing; it lists the documents in 00000.ds"),
    (datatrove, cut("00000.ds", 100), {}, r"00000.ds: 100 bytes, but 00000.ds.index lists 51 tokens"),
    (datatrove, cut("00000.ds.index", 30), {}, r"30 bytes, which is not a multiple of 8"),
    (datatrove, patch("00000.ds.index", 8, b"\xf0"), {}, r"its document ends are not in ascending order"),
    (datatrove, cut("00000.ds.index", 0), {}, r"contains no documents"),
    (datatrove, patch("00000.ds.metadata", 5, b"4"), {}, r"00000.ds.metadata: 4 bytes per token, but 00000.ds has 2"),
    (litdata, cut("chunk-0-1.bin", 30), {}, r"chunk-0-1.bin: 30 bytes, but 192 in the index; is it truncated"),
    (litdata, remove("chunk-0-1.bin"), {}, r"chunk-0-1.bin: missing, but the index lists it"),
    (litdata, cut("chunk-0-1.bin", 0), {}, r"chunk-0-1.bin: empty"),
    (litdata, patch("chunk-0-1.bin", 0, b"\x03"), {}, r"not a shard with the 2 samples that the index lists"),
    (litdata, patch("chunk-0-1.bin", 8, b"\xff"), {}, r"its sample offsets are damaged"),
    (litdata, edit("data_format", ["jpeg"], "config"), {}, r"its items have the type jpeg; expected one-dimensional arrays"),
    (litdata, edit("compression", "lz", "config"), {}, r"compressed with lz; accepted: zstd, gz, br, bz2"),
    (litdata, edit("chunk_size", None, "chunks"), {}, r"index.json: damaged \(TypeError"),
    (mds, lambda folder: None, {"format": "litdata"}, r"index.json: not a litData index"),
    (litdata, lambda folder: None, {"format": "mds"}, r"index.json: the key 'shards' is missing"),
    (mds, edit("column_encodings", ["str", "jpeg"]), {}, r"its column has the type jpeg; token ids must"),
    (mds, lambda folder: None, {"tokens_field": "ids"}, r"no column 'ids' \(data.source.tokens_field\); columns: id, tokens"),
    (mds, patch("shard.00001.mds", 20, b"\xff\xff"), {}, r"shard.00001.mds: a column is longer than its sample"),
    (mds, edit("zip_data", {"basename": "a.zst"}), {"dtype": "int64"}, r"data type is uint16, but data.source.dtype is int64"),
    (mds_bytes, lambda folder: None, {"dtype": None}, r"its column has the type bytes; set data.source.dtype to the type of the ids"),
    (datasets_rows, lambda folder: None, {"tokens_field": "x"}, r"no column 'x' .*; columns: input_ids, id"),
    (datasets_rows, lambda folder: None, {"tokens_field": "id"}, r"column 'id' has type int64, expected lists of integers"),
]  # fmt: skip


@pytest.mark.parametrize(("write", "damage", "fields", "message"), BAD)
def test_bad_token_files_are_refused_in_one_line(
    write: Callable[[Path, Documents], Fields],
    damage: Callable[[Path], Any],
    fields: Fields,
    message: str,
    tmp_path: Path,
) -> None:
    corpus, data = tmp_path / "corpus", tmp_path / "data"
    corpus.mkdir()
    source = {"kind": "tokens", "paths": [str(corpus)], **write(corpus, SMALL), **fields}
    damage(corpus)
    with pytest.raises(InputError, match=message) as caught:
        build_store({"source": source, "vocabulary": 320, "max_tokens": 10**9, "test_fraction": 0.3}, data)
    assert "\n" not in str(caught.value)
    assert not list(data.glob("*tokens*/")), "nothing is half-written"
