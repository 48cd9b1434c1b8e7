"""Write documents in every format of tokenized data, without the formats' own libraries."""

import json
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

Documents = list[list[int]]
Fields = dict[str, Any]  # keys of the source
END = 0  # the end-of-text token


def stream(documents: Documents, end: str = "after") -> list[int]:
    return [token for document in documents for token in ([END, *document] if end == "before" else [*document, END])]


def nanogpt(folder: Path, documents: Documents) -> Fields:
    np.array(stream(documents), np.uint16).tofile(folder / "train.bin")
    return {"format": "nanogpt", "end_of_text": END}


def nanogpt_in_shards(folder: Path, documents: Documents) -> Fields:
    """Three shards of a wider type; documents continue in the next shard."""
    for number, part in enumerate(np.array_split(np.array(stream(documents), np.uint32), 3)):
        part.tofile(folder / f"{number}.bin")
    return {"format": "nanogpt", "end_of_text": END, "dtype": "uint32"}


def llm_c(
    folder: Path, documents: Documents, magic: int = 20240520, version: int = 1, dtype: Any = np.uint16
) -> Fields:
    for number, part in enumerate(np.array_split(np.array(stream(documents, "before"), dtype), 3)):
        header = np.zeros(256, np.int32)
        header[:3] = magic, version, len(part)
        (folder / f"train_{number:06}.bin").write_bytes(header.tobytes() + part.tobytes())
    return {"format": "llm.c", "end_of_text": END}


def llm_c_files(folder: Path) -> Fields:
    return llm_c(folder, [[1, 2]])


def llm_c_llama(folder: Path, documents: Documents) -> Fields:
    return llm_c(folder, documents, 20240801, 7, np.uint32)


def olmo(folder: Path, documents: Documents) -> Fields:
    np.array(stream(documents), np.uint32).tofile(folder / "part-0.npy")
    return {"format": "olmo", "end_of_text": END, "dtype": "uint32"}


def olmo_with_header(folder: Path, documents: Documents) -> Fields:
    np.save(folder / "part-0.npy", np.array(stream(documents), np.uint16))
    return {"format": "olmo", "end_of_text": END}


def megatron(folder: Path, documents: Documents, code: int = 8, dtype: Any = np.uint16, append: bool = False) -> Fields:
    """Every third document consists of two sequences."""
    rows = [[*document, END] for document in documents] if append else documents
    sequences: Documents = []
    boundaries = [0]
    for number, row in enumerate(rows):
        half = len(row) // 2
        sequences += [row[:half], row[half:]] if number % 3 == 0 else [row]
        boundaries.append(len(sequences))
    lengths = np.array([len(row) for row in sequences], np.int32)
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    index = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, code, len(sequences), len(boundaries)) + lengths.tobytes()
    index += (starts * np.dtype(dtype).itemsize).tobytes() + np.array(boundaries, np.int64).tobytes()
    (folder / "corpus.idx").write_bytes(index)
    np.array([token for row in rows for token in row], dtype).tofile(folder / "corpus.bin")
    return {"format": "megatron", "end_of_text": END}


def megatron_with_end(folder: Path, documents: Documents) -> Fields:
    return megatron(folder, documents, 4, np.int32, append=True)


def datatrove(folder: Path, documents: Documents) -> Fields:
    rows = [[*document, END] for document in documents]
    np.array([token for row in rows for token in row], np.uint16).tofile(folder / "00000.ds")
    np.cumsum([len(row) for row in rows]).astype(np.uint64).tofile(folder / "00000.ds.index")
    (folder / "00000.ds.metadata").write_text(f"gpt2|2\n{sum(map(len, rows))}\n1 T")
    return {"format": "datatrove", "end_of_text": END}


def shard(samples: list[bytes]) -> bytes:
    header = 4 * (len(samples) + 2)
    offsets = np.cumsum([header, *map(len, samples)]).astype(np.uint32)
    return struct.pack("<I", len(samples)) + offsets.tobytes() + b"".join(samples)


def litdata(folder: Path, documents: Documents, loader: bool = True) -> Fields:
    """Two chunks, written for TokensLoader, or else with the size of each item as PyTreeLoader expects it."""
    half = len(documents) // 2
    chunks = []
    for number, part in enumerate((documents[:half], documents[half:])):
        items = [np.array([*document, END], np.int32).tobytes() for document in part]
        data = shard(items if loader else [struct.pack("<I", len(item)) + item for item in items])
        (folder / f"chunk-0-{number}.bin").write_bytes(data)
        tokens = sum(len(item) // 4 for item in items) if loader else None
        chunk = {"chunk_bytes": len(data), "chunk_size": len(part), "dim": tokens, "filename": f"chunk-0-{number}.bin"}
        chunks.append(chunk)
    config = {"data_format": ["no_header_tensor:16"], "data_spec": None, "compression": None}
    (folder / "index.json").write_text(json.dumps({"chunks": chunks, "config": config}))
    return {"format": "litdata", "end_of_text": END}


def litdata_with_sizes(folder: Path, documents: Documents) -> Fields:
    return litdata(folder, documents, loader=False)


def litdata_compressed(folder: Path, documents: Documents) -> Fields:
    """Two items per compressed frame."""
    items = [struct.pack("<I", 2 * len(row)) + np.array(row, np.uint16).tobytes() for row in documents]
    offsets = np.cumsum([0, *map(len, items)]).astype(np.uint32).tobytes()
    frames = [b"".join(items[start : start + 2]) for start in range(0, len(items), 2)]
    packed = [pa.Codec("zstd").compress(frame, asbytes=True) for frame in frames]
    first = 24 + len(offsets) + 24 * len(frames)
    data = b"LDFZ01\0\0" + struct.pack("<HHIII", 1, 0, len(items), 2, len(frames)) + offsets
    for number, (frame, content) in enumerate(zip(frames, packed, strict=True)):
        start = first + sum(map(len, packed[:number]))
        data += struct.pack("<IIQII", 2 * number, 2, start, len(content), len(frame))
    data += b"".join(packed)
    (folder / "chunk-0-0.bin").write_bytes(data)
    chunk = {"chunk_bytes": len(data), "chunk_size": len(items), "dim": None, "filename": "chunk-0-0.bin"}
    config = {"data_format": ["no_header_numpy:5"], "compression": "zstd", "compression_level": "batch"}
    (folder / "index.json").write_text(json.dumps({"chunks": [chunk], "config": config}))
    return {"format": "litdata", "end_of_text": END}


def litdata_packed(folder: Path, documents: Documents) -> Fields:
    return litdata_rows(folder, packed_rows(documents))


def litdata_rows(folder: Path, rows: Documents) -> Fields:
    data = shard([np.array(row, np.uint16).tobytes() for row in rows])
    (folder / "chunk-0-0.bin").write_bytes(data)
    chunk = {"chunk_bytes": len(data), "chunk_size": len(rows), "dim": sum(map(len, rows)), "filename": "chunk-0-0.bin"}
    config = {"data_format": ["no_header_numpy:5"], "compression": None}
    (folder / "index.json").write_text(json.dumps({"chunks": [chunk], "config": config}))
    return {"format": "litdata", "end_of_text": END}


def packed_rows(documents: Documents) -> Documents:
    """Rows of 64 tokens that are cut from the stream of documents; the last one is shorter."""
    tokens = stream(documents)
    return [tokens[start:stop] for start, stop in pairwise([*range(0, len(tokens), 64), len(tokens)])]


def mds_index(
    folder: Path, shards: list[tuple[list[bytes], list[str], list[int | None]]], name: str = "tokens"
) -> Fields:
    """shards: samples, and the encodings and sizes of the columns `id` and `name`."""
    entries = []
    for number, (samples, encodings, sizes) in enumerate(shards):
        data = shard(samples)
        (folder / f"shard.{number:05}.mds").write_bytes(data)
        raw = {"basename": f"shard.{number:05}.mds", "bytes": len(data), "hashes": {}}
        names = ["id", name]
        entries.append({"column_names": names, "column_encodings": encodings, "column_sizes": sizes, "compression": None,
                        "format": "mds", "raw_data": raw, "samples": len(samples), "version": 2, "zip_data": None})  # fmt: skip
    (folder / "index.json").write_text(json.dumps({"shards": entries, "version": 2}))
    return {"format": "mds", "end_of_text": END}


def mds(folder: Path, documents: Documents) -> Fields:
    """The encoding `ndarray:uint16`, after a column of text. The shapes of short and long arrays are stored in different types."""
    samples = []
    for number, document in enumerate(documents):
        row, text = [*document, END], f"document {number}".encode()
        shape = struct.pack("<BB", 1 << 2, len(row)) if len(row) < 256 else struct.pack("<BH", 1 << 2 | 1, len(row))
        values = shape + np.array(row, np.uint16).tobytes()
        samples.append(struct.pack("<II", len(text), len(values)) + text + values)
    half = len(samples) // 2
    kinds, sizes = ["str", "ndarray:uint16"], [None, None]
    return mds_index(folder, [(samples[:half], kinds, sizes), (samples[half:], kinds, sizes)])


def mds_bytes(folder: Path, documents: Documents) -> Fields:
    """int64 as `bytes`, after a column of a fixed size."""
    values = [np.array([*document, END], np.int64).tobytes() for document in documents]
    samples = [struct.pack("<IQ", len(value), number) + value for number, value in enumerate(values)]
    return mds_index(folder, [(samples, ["int", "bytes"], [8, None])], "ids") | {
        "dtype": "int64",
        "tokens_field": "ids",
    }


def mds_untyped(folder: Path, documents: Documents) -> Fields:
    """The encoding `ndarray`, whose arrays begin with a code for their type."""
    samples = []
    for number, document in enumerate(documents):
        row = [*document, END]
        values = struct.pack("<BBI", 33, 1 << 2 | 2, len(row)) + np.array(row, np.int32).tobytes()
        samples.append(struct.pack("<IQ", len(values), number) + values)
    return mds_index(folder, [(samples, ["int", "ndarray"], [8, None])])


def mds_compressed(folder: Path, documents: Documents) -> Fields:
    source = mds(folder, documents)
    index = json.loads((folder / "index.json").read_text())
    for entry in index["shards"]:
        raw = folder / entry["raw_data"]["basename"]
        with pa.output_stream(f"{raw}.zstd", compression="zstd") as file:
            file.write(raw.read_bytes())
        raw.unlink()
        entry |= {"compression": "zstd:7", "zip_data": {"basename": f"{raw.name}.zstd"}}
    (folder / "index.json").write_text(json.dumps(index))
    return source


def saved_dataset(folder: Path, rows: Documents) -> None:
    import datasets

    datasets.Dataset.from_dict({"input_ids": rows, "id": range(len(rows))}).save_to_disk(str(folder))


def datasets_rows(folder: Path, documents: Documents) -> Fields:
    saved_dataset(folder, [[*document, END] for document in documents])
    return {"format": "datasets", "end_of_text": END}


def datasets_packed(folder: Path, documents: Documents) -> Fields:
    saved_dataset(folder, packed_rows(documents))
    return {"format": "datasets", "end_of_text": END}


WRITERS: tuple[Callable[[Path, Documents], Fields], ...] = (
    nanogpt, nanogpt_in_shards, llm_c, llm_c_llama, olmo, olmo_with_header, megatron, megatron_with_end, datatrove, litdata,
    litdata_with_sizes, litdata_compressed, litdata_packed, mds, mds_compressed, mds_bytes, mds_untyped, datasets_rows, datasets_packed,
)  # fmt: skip
